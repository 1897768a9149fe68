"""Bodies of requests and responses; their field names are the public contract."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from functions.query import filters
from rag import metadata, permissions, records
from rag.auditing import LONGEST
from rag.lexical import LANGUAGES
from rag.types import (
    Attempt,
    AttemptOutcome,
    CollectionSummary,
    Document,
    Erasure,
    ErasureScope,
    Filters,
    Metadata,
    Principals,
    Status,
)

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
    if records.is_own(text):
        msg = "must not have a folder .rag, which is the product's own"
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
Principal = Annotated[str, StringConstraints(max_length=LONGEST, pattern=r"^(user|key):.+$"), AfterValidator(_storable)]
CollectionName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
QuestionText = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4000), AfterValidator(_storable)
]


class Body(BaseModel):
    # Built at once: FastAPI takes a deferred body for a field and warns of its alias.
    model_config = ConfigDict(extra="forbid", defer_build=False)


def _filters(given: object) -> Filters:
    try:
        return filters.read(given)
    except filters.FilterError as error:
        context = {"reason": str(error), "within": list(error.path)}
        raise PydanticCustomError("filters", "{reason}", context) from error


_VALUE = {"type": ["string", "number", "boolean"]}
_VALUES = {"type": "array", "items": _VALUE}
_OPERATORS = {
    **dict.fromkeys(("eq", "gte", "gt", "lte", "lt"), _VALUE),
    **dict.fromkeys(("any", "all"), _VALUES),
    "exists": {"type": "boolean"},
    "prefix": {"type": "string"},
    "not": {"type": ["string", "number", "boolean", "object"]},
}
SearchFilters = Annotated[
    Filters,
    PlainValidator(_filters),
    WithJsonSchema(
        {
            "type": "object",
            "description": "Field or name of metadata → value, or operators; all must hold.",
            "additionalProperties": {"anyOf": [_VALUE, {"type": "object", "properties": _OPERATORS}]},
            "examples": [{"year": {"gte": 2020}, "tags": {"any": ["a", "b"]}, "key": {"prefix": "reports/"}}],
        }
    ),
]
UploadMetadata = Annotated[
    Metadata,
    PlainValidator(metadata.check),
    WithJsonSchema({"type": "object", "additionalProperties": {"anyOf": [_VALUE, _VALUES]}}),
]
AllowedPrincipals = Annotated[
    Principals,
    PlainValidator(permissions.check),
    WithJsonSchema(
        {
            "type": "array",
            "description": "Who may see the document, besides admins; without it, everyone of the tenant.",
            "items": {
                "type": "string",
                "pattern": f"^{permissions.PRINCIPAL.pattern}$",
                "maxLength": permissions.MOST_LETTERS,
            },
            "minItems": 1,
            "maxItems": permissions.MOST_PRINCIPALS,
            "examples": [["group:finance", "user:ann@example.com"]],
        }
    ),
]


class UploadRequest(Body):
    key: Key
    collection: CollectionName = "default"
    size: Annotated[int, Field(ge=0)] | None = None
    metadata: UploadMetadata | None = None
    allowed_principals: AllowedPrincipals | None = None

    @property
    def carried(self) -> str | None:
        """What travels with the upload; MetadataError when it is too much for that."""
        if not self.metadata and self.allowed_principals is None:
            return None
        return metadata.as_field(self.metadata or {}, self.allowed_principals)

    @model_validator(mode="after")
    def describe_documents_only(self) -> UploadRequest:
        described = metadata.described(self.key)
        if described is not None and (not described or described.endswith(("/", metadata.SIDECAR))):
            msg = f"{self.key!r} is the key of a sidecar, and of no document"
            raise ValueError(msg)
        if described is not None and (self.metadata is not None or self.allowed_principals is not None):
            msg = "a sidecar has no metadata and no permissions: its content is the document's"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def fit_into_a_form(self) -> UploadRequest:
        _ = self.carried
        return self


class Upload(BaseModel):
    url: str
    fields: dict[str, str]


class UploadResponse(BaseModel):
    """`visible`: whether you will see the document yourself, as far as the request limits it."""

    id: uuid.UUID
    key: str
    collection: str
    upload: Upload
    expires_in_seconds: int
    visible: Annotated[bool, Field(examples=[True])]


class Failure(BaseModel):
    code: str
    message: str

    @classmethod
    def of(cls, document: Document) -> Failure | None:
        if document.error_code is None:
            return None
        return cls(code=document.error_code, message=document.error_message or "")


class Progress(BaseModel):
    """How far a large document has come: passages that are read, and embedded, so far."""

    read: int
    embedded: int
    all_read: bool

    @classmethod
    def of(cls, document: Document) -> Progress | None:
        if document.read_count is None or document.status != "processing":
            return None
        return cls(read=document.read_count, embedded=document.embedded_count or 0, all_read=document.all_read is True)


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
    metadata: dict[str, Any]
    metadata_error: str | None
    warnings: list[str]
    allowed_principals: list[str] | None
    progress: Progress | None

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
            metadata=document.metadata,
            metadata_error=document.metadata_error,
            warnings=document.warnings,
            allowed_principals=document.allowed_principals,
            progress=Progress.of(document),
        )


class AttemptBody(BaseModel):
    """One attempt at a document; `attempt` counts those at the same version."""

    attempt: int
    version_id: str | None
    outcome: AttemptOutcome
    error: Failure | None
    chunk_count: int
    embedded_count: int
    started_at: datetime
    finished_at: datetime
    durations_ms: dict[str, int]
    model_calls: int
    tokens: int
    cost_usd: float | None

    @classmethod
    def of(cls, attempt: Attempt) -> AttemptBody:
        failed = attempt.error_code is not None or attempt.error_message is not None
        return cls(
            attempt=attempt.number,
            version_id=attempt.version_id,
            outcome=attempt.outcome,
            error=Failure(code=attempt.error_code or "LATER", message=attempt.error_message or "") if failed else None,
            chunk_count=attempt.chunk_count,
            embedded_count=attempt.embedded_count,
            started_at=attempt.started_at,
            finished_at=attempt.finished_at,
            durations_ms={
                "fetch": attempt.fetch_ms,
                "parse": attempt.parse_ms,
                "embed": attempt.embed_ms,
                "store": attempt.store_ms,
            },
            model_calls=attempt.model_calls,
            tokens=attempt.tokens,
            cost_usd=attempt.cost_usd,
        )


class DocumentDetails(DocumentBody):
    """With what was done for it, the newest first."""

    history: list[AttemptBody]

    @classmethod
    def told(cls, document: Document, attempts: Sequence[Attempt]) -> DocumentDetails:
        return cls(**dict(DocumentBody.of(document)), history=[AttemptBody.of(attempt) for attempt in attempts])


class DocumentPage(BaseModel):
    documents: list[DocumentBody]
    next_cursor: str | None


class Removed(BaseModel):
    """How many of each kind were removed so far."""

    documents: int = 0
    chunks: int = 0
    collections: int = 0
    object_versions: int = 0
    cached_answers: int = 0
    conversations: int = 0
    feedback: int = 0
    kept_answers: int = 0
    audit_rows: int = 0


class ErasureBody(BaseModel):
    """A receipt. `caches_expire_at`: when no function's memory holds an answer from it any more.

    `backups_expire_at`: when the last backup that may hold it is gone; null where there are no backups.
    """

    id: uuid.UUID
    scope: ErasureScope
    collection: str | None
    document_id: uuid.UUID | None
    status: Literal["pending", "done"]
    requested_by: str
    requested_at: datetime
    finished_at: datetime | None
    removed: Removed
    caches_expire_at: datetime | None
    backups_expire_at: datetime | None

    @classmethod
    def of(cls, erasure: Erasure, *, cache_seconds: int, backup_days: int) -> ErasureBody:
        finished_at = erasure.finished_at
        return cls(
            id=erasure.id,
            scope=erasure.scope,
            collection=erasure.collection,
            document_id=erasure.document_id,
            status="done" if finished_at else "pending",
            requested_by=erasure.requested_by,
            requested_at=erasure.requested_at,
            finished_at=finished_at,
            removed=Removed.model_validate(erasure.removed),
            caches_expire_at=finished_at + timedelta(seconds=cache_seconds) if finished_at else None,
            backups_expire_at=finished_at + timedelta(days=backup_days) if finished_at and backup_days else None,
        )


class ErasureList(BaseModel):
    erasures: list[ErasureBody]


class RetryResponse(BaseModel):
    id: uuid.UUID
    status: Literal["uploaded"] = "uploaded"


class CollectionRequest(Body):
    name: CollectionName
    language: Annotated[str, AfterValidator(_language)] = "english"


class Ingesting(BaseModel):
    """Documents that are not ready; of large ones, how many passages are read and embedded so far."""

    uploaded: int
    processing: int
    failed: int
    passages_read: int
    passages_embedded: int


class CollectionBody(BaseModel):
    name: str
    language: str
    document_count: int
    chunk_count: int
    created_at: datetime
    ingesting: Ingesting

    @classmethod
    def of(cls, collection: CollectionSummary) -> CollectionBody:
        return cls(
            name=collection.name,
            language=collection.language,
            document_count=collection.document_count,
            chunk_count=collection.chunk_count,
            created_at=collection.created_at,
            ingesting=Ingesting(
                uploaded=collection.uploaded,
                processing=collection.processing,
                failed=collection.failed,
                passages_read=collection.passages_read,
                passages_embedded=collection.passages_embedded,
            ),
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
