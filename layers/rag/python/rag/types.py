"""The words of the product: what a document becomes on its way in, and what a question finds on its way out."""

from __future__ import annotations

import hashlib
import uuid
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from rag.effort import Effort

Mode = Literal["hybrid", "dense", "lexical"]
Fusion = Literal["weighted", "rrf"]
Rerank = Literal["none", "llm"]
Style = Literal["short", "detailed", "summary"]
Speaker = Literal["user", "assistant"]
Status = Literal["uploaded", "processing", "ready", "failed"]
# What beginning with a document comes to (rag/store/index.py).
Begun = Literal["new", "begun", "settled", "duplicate", "busy"]
# How a key of the index differs from the bucket: not there, another version, there without an object.
Direction = Literal["missing", "outdated", "orphaned", "misdescribed"]
DIRECTIONS: tuple[str, ...] = get_args(Direction)
# How an attempt at a document ended: interrupted, it is left to the next delivery; superseded, the object was another.
AttemptOutcome = Literal["ready", "failed", "forgotten", "interrupted", "superseded"]
Role = Literal["reader", "writer", "admin"]
KeyStatus = Literal["live", "expired", "revoked"]
# What the audit log keeps of a question: nothing, a digest that tells whether a known one was asked, or its text.
KeptQuestions = Literal["off", "hash", "text"]

Scalar: TypeAlias = str | int | float | bool
Metadata: TypeAlias = dict[str, Scalar | list[str]]  # what users say of a document (rag/metadata.py)
Principals: TypeAlias = tuple[str, ...]  # `user:…`, `group:…` and `key:…`: who may see a document (rag/permissions.py)

# A value or a list (`any`, `all`) is compared with a field; a list that is stored matches where an item of it does.
Operator = Literal["eq", "any", "all", "gte", "gt", "lte", "lt", "exists", "prefix"]

Vector: TypeAlias = "array[float]"  # of C floats ("f"): an embedding as the model sent it, four bytes a number

_NAMESPACE = uuid.UUID("6f1d3c1e-54b5-5b6e-9c63-0b9f2a1d7c55")


@dataclass(frozen=True, slots=True)
class Section:
    """A run of text on one page under one heading; `text` starts with the heading's own line, where there is one.

    Of a table, or of a list of records, each row names its columns itself, and `rows` is what stands between two rows.
    """

    text: str
    page: int | None = None
    heading: str | None = None
    rows: str | None = None


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a parser read out of one file: its text in reading order, which can be gone through more than once."""

    media_type: str
    sections: Iterable[Section]
    title: str | None = None
    pages_without_text: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage of a document; `context` (title, heading) is indexed with it and is not part of `content`."""

    position: int
    content: str
    tokens: int
    page: int | None = None
    heading: str | None = None
    context: str = ""

    @property
    def text(self) -> str:
        """What is embedded and analysed."""
        return f"{self.context}\n{self.content}" if self.context else self.content

    @property
    def content_hash(self) -> bytes:
        """sha256 of `text`: equal hashes share one embedding."""
        return hashlib.sha256(self.text.encode()).digest()


@dataclass(frozen=True, slots=True)
class Location:
    """A document's place: `<tenant>/<collection>/<key>` in the bucket."""

    tenant_id: uuid.UUID
    collection: str
    key: str

    @property
    def object_key(self) -> str:
        return f"{self.tenant_id}/{self.collection}/{self.key}"

    @property
    def document_id(self) -> uuid.UUID:
        """The same place has the same id, whatever happens to it: uuid5 of the object key (RFC 9562)."""
        return uuid.uuid5(_NAMESPACE, self.object_key)


def chunk_id(document_id: uuid.UUID, position: int, content_hash: bytes) -> uuid.UUID:
    """Equal runs give equal ids, so that a repeated ingest leaves byte-identical rows."""
    return uuid.uuid5(document_id, f"{position}:{content_hash.hex()}")


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """What the bucket holds of one key now; `metadata` is the JSON that came with the upload, as it is.

    `modified_at`: when it came, to the second; None where that is not known, which nothing is older than.
    """

    version_id: str
    etag: str
    size: int
    media_type: str | None = None
    metadata: str | None = None
    modified_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One of the versions that the bucket keeps of a key, or the marker of a deletion; `modified_at` to the second."""

    key: str
    version_id: str
    modified_at: datetime
    is_marker: bool = False


ErasureScope = Literal["document", "collection", "tenant", "principal"]


@dataclass(frozen=True, slots=True)
class Erasure:
    """A receipt: what was to be erased, on whose request, and how many of what kind were removed until now."""

    id: uuid.UUID
    scope: ErasureScope
    collection: str | None
    document_id: uuid.UUID | None
    requested_by: str
    requested_at: datetime
    finished_at: datetime | None
    removed: dict[str, int]


@dataclass(frozen=True, slots=True)
class ErasureWork:
    """What an unfinished erasure has to remove: all that was there when it was asked for."""

    tenant_id: uuid.UUID
    erasure_id: uuid.UUID
    scope: ErasureScope
    collection: str | None
    document_id: uuid.UUID | None
    key: str | None
    last_version: str | None
    requested_at: datetime
    principal: str | None = None


class Beside(NamedTuple):
    """What a sidecar holds, and who had it uploaded, where that was a caller of the API who does not see everything."""

    content: bytes
    author: str | None = None
    version_id: str | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """A document's user metadata as the bucket has it now; with an `error`, what it had before stays.

    Who may see it by the sidecar, and by the upload; None where it limits nobody. `unread`: what is said of that cannot
    be read. `author`: as whom the sidecar was uploaded, None where by somebody who may see every document. `sidecar` is
    the version of it that was read, None where there was none.
    """

    metadata: Metadata = field(default_factory=dict)
    error: str | None = None
    beside: Principals | None = None
    uploaded: Principals | None = None
    author: Principals | None = None
    unread: bool = False
    sidecar: str | None = None

    @property
    def allowed(self) -> Principals | None:
        return self.uploaded if self.beside is None else self.beside


@dataclass(frozen=True, slots=True)
class EmbeddingSpace:
    """Which model makes a deployment's vectors, and their width; vectors of two spaces are never compared."""

    model: str
    dimensions: int


@dataclass(frozen=True, slots=True)
class Collection:
    """The unit of search: one language, one embedding space, its own statistics; `indexed` when it is large."""

    id: int
    name: str
    language: str
    space_id: int
    average_length: float
    indexed: bool
    dimensions: int


@dataclass(frozen=True, slots=True)
class IndexedChunk:
    """A chunk with everything that search needs of it: its lexemes in their order, and the BM25 weight of each."""

    id: uuid.UUID
    chunk: Chunk
    content_hash: bytes
    embedding: Vector
    lexemes: list[int]
    weights: list[float]
    lexeme_count: int


@dataclass(frozen=True, slots=True)
class Staged:
    """How far a version of a large document has come: so many first chunks are known, and so many of them embedded.

    All are known once it is `complete`, and what else there is to say of it. `last_hash` is of the last known chunk;
    for `embedded_count` chunks the model was asked.
    """

    chunk_count: int = 0
    complete: bool = False
    embedded_through: int = 0
    embedded_count: int = 0
    content_hash: bytes | None = None
    media_type: str | None = None
    title: str | None = None
    last_hash: bytes | None = None
    warnings: Sequence[str] = ()

    @property
    def progress(self) -> int:
        """Grows with everything that need not be done again."""
        return self.chunk_count + self.complete + self.embedded_through


@dataclass(frozen=True, slots=True)
class DocumentContent:
    """What one version of an object becomes; no chunks when it failed. They can be gone through more than once."""

    version: ObjectVersion
    content_hash: bytes | None = None
    media_type: str | None = None
    title: str | None = None
    chunks: Iterable[IndexedChunk] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ingestion:
    """How one attempt at a document ended, as the table `ingestions` keeps it."""

    outcome: AttemptOutcome
    started_at: datetime
    version_id: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    chunk_count: int = 0
    embedded_count: int = 0
    effort: Effort = field(default_factory=Effort)


@dataclass(frozen=True, slots=True)
class Delivery:
    """The delivery of a message that a `run` works off; the `last` one is followed by none."""

    message_id: str
    number: int = 1
    last: bool = False
    run: uuid.UUID = field(default_factory=uuid.uuid4)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What the table `ingestions` tells of one attempt at a document; `number` counts those at the same version."""

    number: int
    version_id: str | None
    outcome: AttemptOutcome
    error_code: str | None
    error_message: str | None
    chunk_count: int
    embedded_count: int
    started_at: datetime
    finished_at: datetime
    fetch_ms: int
    parse_ms: int
    embed_ms: int
    store_ms: int
    model_calls: int
    tokens: int
    cost_usd: float | None


class Listed(NamedTuple):
    """What stands under a key of the bucket now, and since when; a deletion marker has no version."""

    object_key: str
    version_id: str | None
    at: datetime


class Indexed(NamedTuple):
    """What the index holds under a key of the bucket; `leased` while a run is at work on it.

    `sidecar` is the version of its sidecar that it is described by, None where by none.
    """

    object_key: str
    version_id: str | None
    status: Status
    updated_at: datetime
    leased: bool
    sidecar: str | None = None


@dataclass(frozen=True, slots=True)
class Pass:
    """A comparison of the bucket with the index, as far as it has come, and how many keys it found to differ."""

    after_key: str
    began_at: datetime
    compared: int = 0
    missing: int = 0
    outdated: int = 0
    orphaned: int = 0
    misdescribed: int = 0

    def past(self, key: str, direction: Direction | None) -> Pass:
        """The comparison after one more key."""
        counted = {direction: getattr(self, direction) + 1} if direction else {}
        return replace(self, after_key=key, compared=self.compared + 1, **counted)

    def since(self, earlier: Pass) -> Pass:
        """What was compared and found after that."""
        names = ("compared", *DIRECTIONS)
        return replace(self, **{name: getattr(self, name) - getattr(earlier, name) for name in names})


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A document that waits in vain; a `stuck` one was asked for again before."""

    location: Location
    collection_id: int
    version_id: str | None
    stuck: bool


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold of the metadata of this name, or of this field `of_document`; `negated`, what must not.

    Instants are whole microseconds since 1970, ids their text. What is absent, or of another type, holds nowhere, and
    so does hold negated.
    """

    name: str
    operator: Operator
    value: Scalar | tuple[Scalar, ...]
    of_document: bool = False
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Filters:
    """Which documents a search may look at: those of which every condition holds."""

    conditions: tuple[Condition, ...] = ()

    @property
    def any(self) -> bool:
        return bool(self.conditions)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is asking, as the authorizer found: `key:<id>` or `user:<subject>`.

    `collections` are those that the credential is limited to; None: all of the tenant's. `groups` are the caller's, by
    name, which documents may be limited to, as they may be to the user's `email`, which is verified.
    `requests_per_minute` is what the credential may make, and `tenant_requests_per_minute` all of its tenant, in the
    place of the deployment's numbers; 0: any number.
    """

    tenant_id: uuid.UUID
    principal: str
    role: Role
    collections: tuple[str, ...] | None = None
    groups: tuple[str, ...] = ()
    email: str | None = None
    requests_per_minute: int | None = None
    tenant_requests_per_minute: int | None = None

    @property
    def identities(self) -> tuple[str, ...]:
        """What a document that is not for everyone has to name to be for this caller."""
        by_email = [f"user:{self.email}"] if self.email else []
        return (self.principal, *by_email, *(f"group:{name}" for name in self.groups))


@dataclass(frozen=True, slots=True)
class Scope:
    """What a transaction may see of one tenant: the database shows it nothing else (sql/migrations, "access").

    Of documents that are not for everyone those that name one of the `identities`, of collections those of these names;
    None: all of them, as functions see that act for a whole tenant.
    """

    tenant_id: uuid.UUID
    identities: tuple[str, ...] | None = None
    collections: tuple[str, ...] | None = None

    @classmethod
    def of(cls, caller: Caller) -> Scope:
        """What a caller may see: an admin manages every document of the tenant."""
        return cls(caller.tenant_id, None if caller.role == "admin" else caller.identities, caller.collections)


class RequestClaim(NamedTuple):
    """The right of one run to carry out a request that names itself."""

    caller: Caller
    key_hash: bytes
    attempt: uuid.UUID


class KeptAnswer(NamedTuple):
    """What was answered to such a request; without a body where that is shown only once."""

    status: int
    media_type: str | None
    body: bytes | None


@dataclass(frozen=True, slots=True)
class WantedKey:
    """What an API key is to be: named, for a role, for some collections (None: all) and groups, until then."""

    name: str
    role: Role
    collections: tuple[str, ...] | None = None
    groups: tuple[str, ...] = ()
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """All that is known of an API key but what it is compared with; `replaced_by` is the id of its successor."""

    id: str
    name: str
    role: Role
    collections: list[str] | None
    groups: list[str]
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    replaced_by: str | None
    status: KeyStatus


@dataclass(frozen=True, slots=True)
class TenantSummary:
    """What an operator sees of a tenant; the numbers are None where they are the deployment's."""

    id: uuid.UUID
    name: str
    created_at: datetime
    requests_per_day: int | None
    tokens_per_day: int | None
    live_keys: int
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class Document:
    id: uuid.UUID
    collection: str
    key: str
    status: Status
    title: str | None
    media_type: str | None
    version_id: str | None
    size: int | None
    chunk_count: int
    error_code: str | None
    error_message: str | None
    created_at: datetime
    updated_at: datetime
    metadata: Metadata = field(default_factory=dict)
    metadata_error: str | None = None
    warnings: list[str] = field(default_factory=list)
    # Of a large one that is being ingested: passages that are read, and embedded, so far; whether all are read.
    read_count: int | None = None
    embedded_count: int | None = None
    all_read: bool | None = None
    # None: everyone of the tenant may see it; nobody: only admins.
    allowed_principals: list[str] | None = None


@dataclass(frozen=True, slots=True)
class Notification:
    """What is to be told of a document that became ready or failed; `on_bus` when the bus has it already."""

    tenant_id: uuid.UUID
    id: uuid.UUID
    document_id: uuid.UUID
    collection: str
    key: str
    version_id: str | None
    status: Literal["ready", "failed"]
    error_code: str | None
    error_message: str | None
    chunk_count: int
    uploaded_at: datetime
    settled_at: datetime
    on_bus: bool
    attempts: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many notifications of a tenant are due, and since when the oldest that is not yet told waits."""

    tenant_id: uuid.UUID
    due: int
    oldest: datetime


@dataclass(frozen=True, slots=True)
class Letter:
    """A message as it lies among the dead letters."""

    id: str
    body: str


@dataclass(frozen=True, slots=True)
class DocumentQuery:
    """Which documents to list; `after` is the (collection, key) of the last one seen."""

    collection: str | None = None
    status: Status | None = None
    key: str | None = None
    prefix: str | None = None
    after: tuple[str, str] | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class CollectionSummary:
    """What a collection holds, and how many of its documents are in each state but `ready`.

    Of large ones that are being ingested, how many passages are read and embedded so far.
    """

    name: str
    language: str
    created_at: datetime
    document_count: int
    chunk_count: int
    uploaded: int
    processing: int
    failed: int
    passages_read: int
    passages_embedded: int


@dataclass(frozen=True, slots=True)
class Growth:
    """How many chunks a collection had before a document was written, and after."""

    before: int
    after: int


class Candidate(NamedTuple):
    """A chunk before fusion: cosine in [-1, 1], BM25 ≥ 0; both are known for each. Equal hashes, equal words.

    A tuple, because a question makes a hundred: a frozen dataclass takes five times as long.
    """

    chunk_id: uuid.UUID
    document_id: uuid.UUID
    content_hash: bytes
    cosine: float
    bm25: float


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """What one search could see of one document; `best` are its chunks that stand highest in either leg."""

    document_id: uuid.UUID
    status: Status
    error_code: str | None
    in_collection: bool
    in_filters: bool
    best: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk after fusion, with what is needed to show and cite it."""

    chunk_id: uuid.UUID
    document_id: uuid.UUID
    collection: str
    key: str
    title: str | None
    page: int | None
    heading: str | None
    position: int
    content: str
    content_hash: bytes
    score: float
    cosine: float
    bm25: float


class Retrieved(NamedTuple):
    """Hits, best first, the collection's language, and in how many of its chunks each lexeme of the question stands."""

    hits: list[Hit]
    language: str
    frequencies: Mapping[int, int]
    chunk_count: int


@dataclass(frozen=True, slots=True)
class Citation:
    """A quoted span that stands literally in a hit of this request."""

    n: int
    hit: Hit
    quote: str


@dataclass(frozen=True, slots=True)
class Completion:
    """What a chat model said, and what it used."""

    text: str
    model: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(slots=True)
class Usage:
    """What calls to models came to; whoever makes them adds to it.

    `requests` are those that were sent, repeated ones among them; of them `errors` failed and `throttled` (part of the
    errors) were refused with 429. `unfinished` ones were broken off while the model worked on them, so that nobody
    says what they took. `spared` ones were not sent, because the model is being left alone, and `refused` ones because
    the tenant's budget is used up.
    """

    requests: int = 0
    errors: int = 0
    throttled: int = 0
    unfinished: int = 0
    spared: int = 0
    refused: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def add(self, other: Usage) -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    citations: tuple[Citation, ...]
    hits: tuple[Hit, ...]
    model: str | None
    cached: bool = False
    degraded: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    timings_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Message:
    """What was said in a conversation: a question as it was put, or the answer to it."""

    role: Speaker
    content: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Conversation:
    """Questions that belong together, of one principal; `title` is the first of them."""

    id: uuid.UUID
    title: str
    message_count: int
    created_at: datetime
    expires_at: datetime


JSON = dict[str, Any]
