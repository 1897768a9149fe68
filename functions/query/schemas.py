"""Bodies of requests and responses; their field names are the public contract."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, StringConstraints

from rag.lexical import LANGUAGES
from rag.types import Answer, CollectionSummary, Document, Filters, Hit, Mode, Status

T = TypeVar("T")
State = Literal["ok", "down", "off"]
Condition = Literal["ok", "degraded", "down"]


def _storable(text: str) -> str:
    """Neither PostgreSQL nor UTF-8 has a place for these."""
    if any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in text):
        msg = "must not contain NUL characters or lone surrogates"
        raise ValueError(msg)
    return text


def _key(text: str) -> str:
    parts = text.split("/")
    if any(part in {"", ".", ".."} for part in parts) or any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
        msg = "must be a relative path without empty, '.' or '..' parts and without control characters"
        raise ValueError(msg)
    if "${filename}" in text.lower():
        # S3 puts the uploaded file's name there, so that the form would fit every key that begins alike.
        msg = "must not contain ${filename}"
        raise ValueError(msg)
    if len(text.encode()) > 900:
        msg = "must have at most 900 bytes"
        raise ValueError(msg)
    return text


def _language(text: str) -> str:
    if text not in LANGUAGES:
        msg = f"must be one of {', '.join(sorted(LANGUAGES))}"
        raise ValueError(msg)
    return text


Text = Annotated[str, AfterValidator(_storable)]
Key = Annotated[str, StringConstraints(min_length=1, max_length=900), AfterValidator(_storable), AfterValidator(_key)]
CollectionName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
QuestionText = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4000), AfterValidator(_storable)
]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AnyOf(Body, Generic[T]):
    any: Annotated[list[T], Field(min_length=1, max_length=1000)] | None = None


class KeyFilter(AnyOf[Text]):
    prefix: Text | None = None


class FilterBody(Body):
    """Restrict a search to documents by their fields; a plain value means equality."""

    key: Text | KeyFilter | None = None
    document_id: uuid.UUID | AnyOf[uuid.UUID] | None = None
    media_type: Text | AnyOf[Text] | None = None

    def filters(self) -> Filters:
        return Filters(
            document_ids=_any_of(self.document_id),
            keys=_any_of(self.key),
            key_prefix=self.key.prefix if isinstance(self.key, KeyFilter) else None,
            media_types=_any_of(self.media_type),
        )


class SearchRequest(Body):
    query: QuestionText
    collection: CollectionName = "default"
    # Three hundred passages hold a hundred documents, which is as far as evaluations look.
    top_k: Annotated[int, Field(ge=1, le=300)] = 10
    mode: Mode = "hybrid"
    filters: FilterBody = FilterBody()


class QueryRequest(Body):
    question: Annotated[QuestionText, Field(validation_alias=AliasChoices("question", "query"))]
    collection: CollectionName = "default"
    top_k: Annotated[int, Field(ge=1, le=100)] = 10
    mode: Mode = "hybrid"
    filters: FilterBody = FilterBody()


class HitBody(BaseModel):
    chunk_id: uuid.UUID
    document_id: uuid.UUID
    collection: str
    key: str
    title: str | None
    page: int | None
    heading: str | None
    content: str
    score: float

    @classmethod
    def of(cls, hit: Hit) -> HitBody:
        return cls(
            chunk_id=hit.chunk_id,
            document_id=hit.document_id,
            collection=hit.collection,
            key=hit.key,
            title=hit.title,
            page=hit.page,
            heading=hit.heading,
            content=hit.content,
            score=round(hit.score, 6),
        )


class SearchResponse(BaseModel):
    hits: list[HitBody]
    degraded: str | None = None
    timings_ms: dict[str, float]
    request_id: str


class CitationBody(BaseModel):
    n: int
    document_id: uuid.UUID
    key: str
    title: str | None
    page: int | None
    heading: str | None
    quote: str
    score: float


class QueryResponse(BaseModel):
    answer: str
    citations: list[CitationBody]
    hits: list[HitBody]
    model: str | None
    cached: bool
    degraded: str | None
    usage: dict[str, int]
    timings_ms: dict[str, float]
    request_id: str

    @classmethod
    def of(cls, answer: Answer, request_id: str) -> QueryResponse:
        return cls(
            answer=answer.text,
            citations=[
                CitationBody(
                    n=citation.n,
                    document_id=citation.hit.document_id,
                    key=citation.hit.key,
                    title=citation.hit.title,
                    page=citation.hit.page,
                    heading=citation.hit.heading,
                    quote=citation.quote,
                    score=round(citation.hit.score, 6),
                )
                for citation in answer.citations
            ],
            hits=[HitBody.of(hit) for hit in answer.hits],
            model=answer.model,
            cached=answer.cached,
            degraded=answer.degraded,
            usage=answer.usage,
            timings_ms=answer.timings_ms,
            request_id=request_id,
        )


class UploadRequest(Body):
    key: Key
    collection: CollectionName = "default"
    size: Annotated[int, Field(ge=0)] | None = None


class Upload(BaseModel):
    url: str
    fields: dict[str, str]


class UploadResponse(BaseModel):
    id: uuid.UUID
    key: str
    collection: str
    upload: Upload
    expires_in_seconds: int


class Failure(BaseModel):
    code: str
    message: str

    @classmethod
    def of(cls, document: Document) -> Failure | None:
        if document.error_code is None:
            return None
        return cls(code=document.error_code, message=document.error_message or "")


class DocumentBody(BaseModel):
    id: uuid.UUID
    key: str
    collection: str
    status: Status
    error: Failure | None
    chunk_count: int
    title: str | None
    media_type: str | None
    size: int | None
    version_id: str | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, document: Document) -> DocumentBody:
        return cls(
            id=document.id,
            key=document.key,
            collection=document.collection,
            status=document.status,
            error=Failure.of(document),
            chunk_count=document.chunk_count,
            title=document.title,
            media_type=document.media_type,
            size=document.size,
            version_id=document.version_id,
            created_at=document.created_at,
            updated_at=document.updated_at,
        )


class DocumentPage(BaseModel):
    documents: list[DocumentBody]
    next_cursor: str | None


class DeleteResponse(BaseModel):
    id: uuid.UUID
    status: Literal["deleting"] = "deleting"


class CollectionRequest(Body):
    name: CollectionName
    language: Annotated[str, AfterValidator(_language)] = "english"


class CollectionBody(BaseModel):
    name: str
    language: str
    document_count: int
    chunk_count: int
    created_at: datetime

    @classmethod
    def of(cls, collection: CollectionSummary) -> CollectionBody:
        return cls(
            name=collection.name,
            language=collection.language,
            document_count=collection.document_count,
            chunk_count=collection.chunk_count,
            created_at=collection.created_at,
        )


class CollectionList(BaseModel):
    collections: list[CollectionBody]


class Health(BaseModel):
    status: Condition
    version: str
    timestamp: datetime
    checks: dict[str, State]


class Problem(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[dict[str, str]] | None = None


def _any_of(given: T | AnyOf[T] | None) -> list[T] | None:
    if given is None:
        return None
    return given.any if isinstance(given, AnyOf) else [given]
