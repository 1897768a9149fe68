"""From an object in the bucket to chunks that can be found: whole, or not at all."""

from __future__ import annotations

import tempfile
import traceback
import uuid
from array import array
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol

from rag import chunking, lexical, metadata, permissions
from rag.deadline import Deadline
from rag.effort import Effort
from rag.errors import DocumentError, FailureCode, OutOfTimeError, RagError, UnavailableError
from rag.staging import RESERVE_SECONDS, Large, OvertakenError, Recognised, Staging, refuse_chunks
from rag.types import (
    Begun,
    Beside,
    Chunk,
    Collection,
    Delivery,
    Description,
    DocumentContent,
    Growth,
    IndexedChunk,
    Ingestion,
    Location,
    ObjectVersion,
    Parsed,
    Principals,
    Staged,
    Usage,
    Vector,
    chunk_id,
)

CountTokens = Callable[[Sequence[str]], list[int]]

# How often the object may change under our hands before the message goes back to the queue.
VERSIONS_PER_RUN = 3
# A smaller file is rarely one of many chunks, and is not asked for whether it was begun as such.
LARGE_BYTES = 1 << 18
# A run that is killed at its time-out is over by then.
LEASE_MARGIN_SECONDS = 10.0
# When a message comes back that somebody is at work on.
BUSY_SECONDS = 30.0


class Opened(Protocol):
    @property
    def version(self) -> ObjectVersion: ...
    def fetch(self, path: Path, *, limit_bytes: int) -> bytes: ...
    def close(self) -> None: ...


class Bucket(Protocol):
    def head(self, object_key: str, *, hurried: bool = False) -> ObjectVersion | None: ...
    def open(self, object_key: str) -> Opened | None: ...
    def read(self, object_key: str, *, limit_bytes: int) -> Beside | None: ...


class Parser(Protocol):
    def parse(self, path: Path, name: str, kept: Recognised) -> Parsed: ...


class Embedder(Protocol):
    used: Usage

    def require_embedding(self) -> None: ...
    def embed(self, texts: Sequence[str], deadline: Deadline) -> list[Vector]: ...
    def embed_each(
        self, batches: Iterable[Sequence[str]], deadline: Deadline
    ) -> Generator[tuple[int, list[Vector]], None, None]: ...


class Store(Protocol):
    def collection(self, location: Location, *, create: bool) -> Collection | None: ...
    def announce(self, collection: Collection, locations: Sequence[Location]) -> None: ...
    def begin(
        self,
        location: Location,
        collection: Collection,
        version: ObjectVersion,
        delivery: Delivery,
        *,
        lease_seconds: float | None,
        failure: str | None,
        code: FailureCode = "INTERNAL",
        allowed: Principals | None = (),
    ) -> Begun: ...
    def leave(self, location: Location, collection: Collection, ingestion: Ingestion, delivery: Delivery) -> None: ...
    def known_embeddings(
        self, location: Location, collection: Collection, content_hashes: Sequence[bytes]
    ) -> dict[bytes, Vector]: ...
    def keep_embeddings(self, location: Location, collection: Collection, vectors: Mapping[bytes, Vector]) -> None: ...
    def replace(
        self,
        location: Location,
        collection: Collection,
        content: DocumentContent,
        ingestion: Ingestion,
        *,
        unchanged: Callable[[], bool],
        describe: Callable[[], Description],
    ) -> Growth | None: ...
    def describe(
        self,
        location: Location,
        collection: Collection,
        version: ObjectVersion,
        describe: Callable[[], Description],
    ) -> bool: ...
    def forget(
        self, location: Location, collection: Collection, ingestion: Ingestion, *, unchanged: Callable[[], bool]
    ) -> bool: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes of a document, of its chunks and of a call to the model; the time that must be left to begin with it.

    A document of more than `held_chunks` is not held in memory. And what the model's tokens cost, where that is known.
    """

    document_bytes: int
    chunk_tokens: int
    chunk_max_tokens: int
    batch_size: int
    chunks: int = 2_000_000
    held_chunks: int = 2_000
    least_seconds: float = 0.0
    usd_per_million_tokens: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one message: the document's new state, or why there was nothing to do."""

    result: Literal["ready", "failed", "described", "forgotten", "unchanged", "duplicate"]
    chunk_count: int = 0
    embedded_count: int = 0
    error_code: str | None = None
    growth: Growth | None = None

    def calls_for_maintenance(self, index_chunks: int) -> bool:
        """Whether the collection has doubled by it, with 64 chunks or more, or needs indexes from now on."""
        if self.growth is None:
            return False
        before, after = self.growth.before, self.growth.after
        doubled = after.bit_length() > max(before.bit_length(), lexical.DRIFTED_CHUNKS.bit_length() - 1)
        return doubled or before <= index_chunks < after


def ingest(
    location: Location,
    *,
    bucket: Bucket,
    parser: Parser,
    embedder: Embedder,
    store: Store,
    staging: Staging,
    count_tokens: CountTokens,
    limits: Limits,
    deadline: Deadline,
    delivery: Delivery,
) -> Outcome:
    """Bring the index to what the bucket holds of this object now; the message only named it.

    UnavailableError when a dependency fails, time runs out or the object keeps changing: deliver the message again,
    what was embedded so far is kept. At the last delivery the document counts as failed until it is ready, so that a
    run that is killed leaves nothing unfinished. A `duplicate` is left to the run that works off another message of
    the same version: that message is in its queue until the version is ready or failed.
    """
    if deadline.remaining() < limits.least_seconds:
        msg = "there is no time left in this run to begin with the document"
        raise OutOfTimeError(msg)
    for _ in range(VERSIONS_PER_RUN):
        opened = bucket.open(location.object_key)
        if opened is None:
            outcome = _forget(location, bucket=bucket, store=store)
        else:
            with closing(opened):
                outcome = _index(
                    location,
                    opened,
                    bucket=bucket,
                    parser=parser,
                    embedder=embedder,
                    store=store,
                    staging=staging,
                    count_tokens=count_tokens,
                    limits=limits,
                    deadline=deadline,
                    delivery=delivery,
                )
        if outcome is not None:
            return outcome
    msg = f"{location.object_key} changed {VERSIONS_PER_RUN} times while it was being read"
    raise UnavailableError(msg)


def describe(location: Location, *, bucket: Bucket, store: Store) -> Outcome:
    """Bring a document's metadata and permissions to what the bucket holds now; the message named its sidecar.

    A document that the index does not hold in its current version is left to its own message: whoever ends its ingest
    reads the sidecar then, under the same lock as this. Only who may see it is said at once, if the sidecar says it.
    """
    version = bucket.head(location.object_key)
    collection = store.collection(location, create=False) if version is not None else None
    if version is None or collection is None:
        return Outcome("unchanged")
    return _describe(location, collection, version, bucket=bucket, store=store)


def announce(locations: Iterable[Location], *, store: Store) -> None:
    """Make documents visible as uploaded while they wait; nothing happens where they are known."""
    together: defaultdict[tuple[uuid.UUID, str], list[Location]] = defaultdict(list)
    for location in locations:
        together[location.tenant_id, location.collection].append(location)
    for waiting in together.values():
        collection = store.collection(waiting[0], create=True)
        if collection is not None:
            store.announce(collection, waiting)


def give_up(
    location: Location,
    reason: str,
    delivery: Delivery,
    *,
    bucket: Bucket,
    store: Store,
    code: FailureCode = "INTERNAL",
) -> None:
    """Record that no delivery is left, or none for long; a version that was ready stays so, and the one before serves.

    With these codes the next delivery begins anew.
    """
    version = bucket.head(location.object_key)
    collection = store.collection(location, create=True)
    if version is not None and collection is not None:
        allowed: Principals | None = ()
        with suppress(UnavailableError):
            allowed = _allowed_at_first(location, version, bucket)
        store.begin(
            location, collection, version, delivery, lease_seconds=None, failure=reason, code=code, allowed=allowed
        )


def _forget(location: Location, *, bucket: Bucket, store: Store) -> Outcome | None:
    started_at = datetime.now(UTC)
    collection = store.collection(location, create=False)
    if collection is None:
        return Outcome("unchanged")
    gone = store.forget(
        location,
        collection,
        Ingestion("forgotten", started_at),
        unchanged=lambda: bucket.head(location.object_key, hurried=True) is None,
    )
    return Outcome("forgotten") if gone else None


def _index(
    location: Location,
    opened: Opened,
    *,
    bucket: Bucket,
    parser: Parser,
    embedder: Embedder,
    store: Store,
    staging: Staging,
    count_tokens: CountTokens,
    limits: Limits,
    deadline: Deadline,
    delivery: Delivery,
) -> Outcome | None:
    started_at, version = datetime.now(UTC), opened.version
    collection = store.collection(location, create=True)
    if collection is None:
        return Outcome("unchanged")
    # Before the document is read, or so much as begun with, which would be in vain.
    embedder.require_embedding()
    begun = store.begin(
        location,
        collection,
        version,
        delivery,
        lease_seconds=deadline.remaining() + LEASE_MARGIN_SECONDS,
        failure="the last delivery did not end" if delivery.last else None,
        allowed=_allowed_at_first(location, version, bucket),
    )
    if begun == "settled":
        return _describe(location, collection, version, bucket=bucket, store=store)
    if begun == "duplicate":
        return Outcome("duplicate")
    if begun == "busy":
        msg = "another run is at work on this very message"
        raise UnavailableError(msg, retry_after_seconds=BUSY_SECONDS)
    attempt = Ingestion("superseded", started_at, version.version_id, effort=Effort(limits.usd_per_million_tokens))
    try:
        outcome = _build(
            location,
            collection,
            opened,
            attempt,
            is_new=begun == "new",
            bucket=bucket,
            parser=parser,
            embedder=embedder,
            store=store,
            staging=staging,
            count_tokens=count_tokens,
            limits=limits,
            deadline=deadline,
        )
    except Exception as error:
        if isinstance(error, MemoryError):
            _let_go(error)
        # What an unforeseen error says may be of the inside.
        reason = str(error) if isinstance(error, RagError) else "see the log"
        with suppress(UnavailableError):
            store.leave(location, collection, replace(attempt, outcome="interrupted", error_message=reason), delivery)
        raise
    if outcome is None:
        store.leave(location, collection, attempt, delivery)
    return outcome


def _let_go(error: BaseException | None) -> None:
    """Free what the frames hold that an error has come through: else there is no memory to say so in."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def _build(
    location: Location,
    collection: Collection,
    opened: Opened,
    attempt: Ingestion,
    *,
    is_new: bool,
    bucket: Bucket,
    parser: Parser,
    embedder: Embedder,
    store: Store,
    staging: Staging,
    count_tokens: CountTokens,
    limits: Limits,
    deadline: Deadline,
) -> Outcome | None:
    """Read the version, embed it and put it in the place of the one before; None when it is not the current one."""
    effort, version = attempt.effort, opened.version
    large = Large(location, collection, version, staging, deadline)
    found = large.found() if version.size >= LARGE_BYTES else None
    try:
        if found is not None and found.complete:
            opened.close()
            return _publish(large, found, attempt, bucket=bucket, embedder=embedder, limits=limits)
        content_hash, parsed = _read(location, opened, effort, parser=parser, staging=staging, limits=limits)

        def split() -> Iterator[Chunk]:
            return chunking.split(
                parsed, count_tokens=count_tokens, target=limits.chunk_tokens, maximum=limits.chunk_max_tokens
            )

        document_id = location.document_id

        def index(chunk: Chunk) -> IndexedChunk:
            return indexed(document_id, collection, chunk)

        with effort.stage("parse"):
            chunks = list(islice(split(), limits.held_chunks + 1))
            if len(chunks) > limits.held_chunks:
                content = DocumentContent(
                    version, content_hash, parsed.media_type, parsed.title, warnings=parsed.warnings
                )
                staged = large.stage(content, split, index, most=limits.chunks)
        if len(chunks) > limits.held_chunks:
            return _publish(large, staged, attempt, bucket=bucket, embedder=embedder, limits=limits)
        if not chunks:
            msg = "the file was read and has no text in it"
            raise DocumentError("NO_TEXT", msg)  # noqa: TRY301 (one way to fail)
        refuse_chunks(len(chunks), limits.chunks)
    except OvertakenError:
        return None
    except DocumentError as error:
        return _fail(location, collection, version, error, attempt, bucket=bucket, store=store)

    with effort.stage("embed"):
        indexed_chunks, embedded = _embed(
            location,
            collection,
            version,
            chunks,
            index,
            effort,
            is_new=is_new,
            embedder=embedder,
            store=store,
            limits=limits,
            deadline=deadline,
        )
    content = DocumentContent(
        version,
        content_hash,
        parsed.media_type,
        parsed.title,
        indexed_chunks,
        parsed.warnings,
    )
    done = replace(attempt, outcome="ready", chunk_count=len(chunks), embedded_count=embedded)
    growth = _replace(location, collection, content, done, bucket=bucket, store=store)
    return Outcome("ready", len(chunks), embedded, growth=growth) if growth else None


def _publish(
    large: Large,
    staged: Staged,
    attempt: Ingestion,
    *,
    bucket: Bucket,
    embedder: Embedder,
    limits: Limits,
) -> Outcome | None:
    """Embed what is staged and put it in the place of the version before; None when it is not the current one."""
    with attempt.effort.stage("embed"), attempt.effort.calls(embedder.used):
        embedded = large.embed(staged, embedder, batch_size=limits.batch_size)
    chunk_count, embedded_count = embedded.chunk_count, embedded.embedded_count
    growth = large.publish(
        embedded,
        replace(attempt, outcome="ready", chunk_count=chunk_count, embedded_count=embedded_count),
        unchanged=_unchanged(large.location, large.version, bucket),
        describe=lambda: _description(large.location, large.version, bucket),
    )
    return Outcome("ready", chunk_count, embedded_count, growth=growth) if growth else None


def indexed(document_id: uuid.UUID, collection: Collection, chunk: Chunk) -> IndexedChunk:
    """Everything that search needs of a chunk but its embedding."""
    content_hash = chunk.content_hash
    counts = lexical.analyse(chunk.text, collection.language)
    lexemes = sorted(counts)
    weights = lexical.saturation(counts.values(), collection.average_length)
    return IndexedChunk(
        id=chunk_id(document_id, chunk.position, content_hash),
        chunk=chunk,
        content_hash=content_hash,
        embedding=array("f"),
        lexemes=lexemes,
        weights=[weights[counts[lexeme]] for lexeme in lexemes],
        lexeme_count=counts.total(),
    )


def _read(
    location: Location,
    opened: Opened,
    effort: Effort,
    *,
    parser: Parser,
    staging: Staging,
    limits: Limits,
) -> tuple[bytes, Parsed]:
    with tempfile.TemporaryDirectory(prefix="rag-") as folder:
        path = Path(folder) / "document"
        with effort.stage("fetch"):
            content_hash = opened.fetch(path, limit_bytes=limits.document_bytes)
        with effort.stage("parse"):
            parsed = parser.parse(path, location.key, Recognised(location, content_hash, staging))
    return content_hash, parsed


def _embed(
    location: Location,
    collection: Collection,
    version: ObjectVersion,
    chunks: Sequence[Chunk],
    index: Callable[[Chunk], IndexedChunk],
    effort: Effort,
    *,
    is_new: bool,
    embedder: Embedder,
    store: Store,
    limits: Limits,
    deadline: Deadline,
) -> tuple[list[IndexedChunk], int]:
    """Every chunk, indexed and with its vector, and how many of them had to be embedded now."""
    every = {chunk.content_hash: chunk.text for chunk in chunks}
    vectors = {} if is_new else store.known_embeddings(location, collection, list(every))
    texts = {content_hash: text for content_hash, text in every.items() if content_hash not in vectors}
    batches = list(_batches(texts, limits.batch_size))
    waiting = map(index, chunks)
    made: list[IndexedChunk] = []

    def in_time() -> Iterator[list[str]]:
        for number, batch in enumerate(batches):
            if deadline.remaining() < RESERVE_SECONDS and number > 0:
                return
            yield list(batch.values())
            # While the model is at work on it.
            made.extend(islice(waiting, len(chunks) // len(batches)))

    done = 0
    with effort.calls(embedder.used), closing(embedder.embed_each(in_time(), deadline)) as answers:
        for number, answer in answers:
            embedded = dict(zip(batches[number], answer, strict=True))
            vectors |= embedded
            # The last one is stored with the document, unless one before it has failed.
            if number < len(batches) - 1 or done < number:
                store.keep_embeddings(location, collection, embedded)
            done += 1
    if done < len(batches):
        msg = f"time is short: {done} of {len(batches)} batches are embedded and kept"
        raise OutOfTimeError(msg, version_id=version.version_id, progress=len(vectors))
    made.extend(waiting)
    return [replace(one, embedding=vectors[one.content_hash]) for one in made], len(texts)


def _batches(texts: Mapping[bytes, str], size: int) -> Iterator[dict[bytes, str]]:
    items = list(texts.items())
    for start in range(0, len(items), size):
        yield dict(items[start : start + size])


def _fail(
    location: Location,
    collection: Collection,
    version: ObjectVersion,
    error: DocumentError,
    attempt: Ingestion,
    *,
    bucket: Bucket,
    store: Store,
) -> Outcome | None:
    failed = replace(attempt, outcome="failed", error_code=error.code, error_message=str(error))
    if not _replace(location, collection, DocumentContent(version), failed, bucket=bucket, store=store):
        return None
    return Outcome("failed", error_code=error.code)


def _replace(
    location: Location,
    collection: Collection,
    content: DocumentContent,
    ingestion: Ingestion,
    *,
    bucket: Bucket,
    store: Store,
) -> Growth | None:
    return store.replace(
        location,
        collection,
        content,
        ingestion,
        unchanged=_unchanged(location, content.version, bucket),
        describe=lambda: _description(location, content.version, bucket),
    )


def _unchanged(location: Location, version: ObjectVersion, bucket: Bucket) -> Callable[[], bool]:
    def unchanged() -> bool:
        now = bucket.head(location.object_key, hurried=True)
        return now is not None and now.version_id == version.version_id

    return unchanged


def _describe(
    location: Location, collection: Collection, version: ObjectVersion, *, bucket: Bucket, store: Store
) -> Outcome:
    changed = store.describe(location, collection, version, lambda: _description(location, version, bucket))
    return Outcome("described" if changed else "unchanged")


def _description(location: Location, version: ObjectVersion, bucket: Bucket) -> Description:
    """What sidecar and upload say of the document; the upload is that of this version."""
    beside = bucket.read(metadata.sidecar(location.object_key), limit_bytes=metadata.MOST_BYTES)
    return metadata.describe(version.metadata, beside)


def _allowed_at_first(location: Location, version: ObjectVersion, bucket: Bucket) -> Principals | None:
    """Who may see of a new document that it is there, before it is described under its lock."""
    return permissions.judged(_description(location, version, bucket), None, published=True).allowed
