"""Bodies of searches, questions and conversations; their field names are the public contract."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import AliasChoices, BaseModel, Field

from functions.query.schemas import Body, CollectionName, QuestionText, SearchFilters
from rag.explaining import Explanation
from rag.searching import Stages
from rag.settings import Settings
from rag.types import Answer, Citation, Conversation, Filters, Fusion, Hit, Message, Mode, Rerank, Speaker, Style

SEARCH_TOP_K = 10
SUMMARY_TOP_K = 20


class Options(Body, defer_build=True):
    """What searches and questions have in common; what is null is as the deployment's settings say."""

    collection: CollectionName = "default"
    mode: Mode = "hybrid"
    filters: Annotated[SearchFilters, Field(default_factory=Filters)]
    fusion: Fusion | None = None
    diversity: Annotated[float, Field(ge=0, le=1)] | None = None
    per_document: Annotated[int, Field(ge=1, le=300)] | None = None
    rerank: Rerank | None = None
    explain: bool = False
    why_not: uuid.UUID | None = None

    @property
    def explained(self) -> bool:
        return self.explain or self.why_not is not None

    def stages(self, settings: Settings) -> Stages:
        return Stages(
            fusion=self.fusion or settings.fusion,
            pool=settings.top_k,
            diversity=1 - settings.mmr_lambda if self.diversity is None else self.diversity,
            per_document=self.per_document or settings.per_document,
            rerank=(self.rerank or settings.rerank) == "llm",
        )


class SearchRequest(Options, defer_build=False):
    query: QuestionText
    # Three hundred passages hold a hundred documents, which is as far as evaluations look.
    top_k: Annotated[int, Field(ge=1, le=300)] = SEARCH_TOP_K


class QueryRequest(Options, defer_build=False):
    question: Annotated[QuestionText, Field(validation_alias=AliasChoices("question", "query"))]
    top_k: Annotated[int, Field(ge=1, le=100)] | None = None
    style: Style = "short"
    conversation: bool = False
    conversation_id: uuid.UUID | None = None
    stream: bool = False

    def wanted(self, settings: Settings) -> int:
        return self.top_k or max(settings.rerank_top_k, SUMMARY_TOP_K if self.style == "summary" else 1)


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


class Found(BaseModel):
    """What an answer that is streamed begins with."""

    hits: list[HitBody]


class SearchResponse(BaseModel):
    hits: list[HitBody]
    degraded: str | None = None
    explanation: Explanation | None = None
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

    @classmethod
    def of(cls, citation: Citation) -> CitationBody:
        return cls(
            n=citation.n,
            document_id=citation.hit.document_id,
            key=citation.hit.key,
            title=citation.hit.title,
            page=citation.hit.page,
            heading=citation.hit.heading,
            quote=citation.quote,
            score=round(citation.hit.score, 6),
        )


class QueryResponse(BaseModel):
    question: str
    rewritten_question: str | None = None
    conversation_id: uuid.UUID | None = None
    answer: str
    citations: list[CitationBody]
    hits: list[HitBody]
    model: str | None
    cached: bool
    degraded: str | None
    explanation: Explanation | None = None
    usage: dict[str, int]
    timings_ms: dict[str, float]
    request_id: str

    @classmethod
    def of(cls, question: str, answer: Answer, request_id: str) -> QueryResponse:
        return cls(
            question=question,
            answer=answer.text,
            citations=[CitationBody.of(citation) for citation in answer.citations],
            hits=[HitBody.of(hit) for hit in answer.hits],
            model=answer.model,
            cached=answer.cached,
            degraded=answer.degraded,
            usage=answer.usage,
            timings_ms=answer.timings_ms,
            request_id=request_id,
        )


class ConversationBody(BaseModel):
    id: uuid.UUID
    title: str
    message_count: int
    created_at: datetime
    expires_at: datetime

    @classmethod
    def of(cls, conversation: Conversation) -> ConversationBody:
        return cls(
            id=conversation.id,
            title=conversation.title,
            message_count=conversation.message_count,
            created_at=conversation.created_at,
            expires_at=conversation.expires_at,
        )


class ConversationList(BaseModel):
    conversations: list[ConversationBody]


class MessageBody(BaseModel):
    role: Speaker
    content: str
    created_at: datetime


class ConversationDetail(ConversationBody):
    messages: list[MessageBody]

    @classmethod
    def whole(cls, conversation: Conversation, messages: Sequence[Message]) -> ConversationDetail:
        said = [MessageBody(role=one.role, content=one.content, created_at=one.created_at) for one in messages]
        return cls(**ConversationBody.of(conversation).model_dump(), messages=said)
