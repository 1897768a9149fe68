"""A document too large to hold: chunks go to the database as they are made, and are embedded from there.

A run goes on where the one before ended, which is how a document is worked off that takes longer than a run may.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from rag.deadline import Deadline
from rag.errors import DocumentError, OutOfTimeError
from rag.types import (
    Chunk,
    Collection,
    Description,
    DocumentContent,
    Growth,
    IndexedChunk,
    Ingestion,
    Location,
    ObjectVersion,
    Staged,
    Vector,
)

# Chunks that are staged in one transaction, and fetched to be embedded.
CHUNKS_AT_ONCE = 1_000
# What storing may need after the last vector came.
RESERVE_SECONDS = 20.0
# Of the last transaction, which moves every row: twice and more what was measured without an index to insert into, and
# with one (docs/benchmarks.md, `last ms/chunk` and `added rows/s`).
SECONDS_PER_CHUNK = {False: 0.0003, True: 0.006}


class Staging(Protocol):
    def find(self, location: Location, version: ObjectVersion) -> Staged | None: ...
    def pages(self, location: Location, content_hash: bytes) -> dict[int, str]: ...
    def keep_page(self, location: Location, content_hash: bytes, page: int, content: str) -> None: ...
    def begin(self, location: Location, version: ObjectVersion) -> None: ...
    def add(
        self, location: Location, collection: Collection, version: ObjectVersion, chunks: Sequence[IndexedChunk]
    ) -> bool: ...
    def complete(
        self, location: Location, collection: Collection, content: DocumentContent, *, deadline: Deadline
    ) -> bool: ...
    def unembedded(
        self, location: Location, collection: Collection, *, first: int, most: int
    ) -> list[tuple[int, bytes, str]]: ...
    def keep(
        self,
        location: Location,
        collection: Collection,
        version: ObjectVersion,
        vectors: Mapping[bytes, Vector],
        *,
        embedded_through: int,
    ) -> bool: ...
    def publish(
        self,
        location: Location,
        collection: Collection,
        content: DocumentContent,
        ingestion: Ingestion,
        *,
        unchanged: Callable[[], bool],
        describe: Callable[[], Description],
        deadline: Deadline,
    ) -> Growth | None: ...


class Embedder(Protocol):
    def embed_each(
        self, batches: Iterable[Sequence[str]], deadline: Deadline
    ) -> Generator[tuple[int, list[Vector]], None, None]: ...


class OvertakenError(Exception):
    """Another version of the document is being staged."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """What text recognition read of a file: a page is paid for once, however often its document is delivered."""

    location: Location
    content_hash: bytes
    staging: Staging

    def found(self) -> dict[int, str]:
        return self.staging.pages(self.location, self.content_hash)

    def keep(self, page: int, text: str) -> None:
        self.staging.keep_page(self.location, self.content_hash, page, text)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Chunks whose vectors are asked for, the last of them before `end`."""

    content_hashes: tuple[bytes, ...]
    end: int


@dataclass(slots=True)
class Large:
    """A version of a large document on its way in, and what it may use; `worked` once a run brought it further."""

    location: Location
    collection: Collection
    version: ObjectVersion
    staging: Staging
    deadline: Deadline
    worked: bool = False

    def stage(
        self,
        content: DocumentContent,
        split: Callable[[], Iterator[Chunk]],
        index: Callable[[Chunk], IndexedChunk],
        *,
        most: int,
    ) -> Staged:
        """Stage what is not yet staged of the chunks that `split` makes.

        DocumentError (TOO_MANY_CHUNKS) beyond `most`; OutOfTimeError when it must go on in another run.
        """
        chunks = split()
        staged = self.found()
        if staged is None or not _goes_on(chunks, staged):
            self.staging.begin(self.location, self.version)
            chunks = split()
        while some := list(islice(chunks, CHUNKS_AT_ONCE)):
            refuse_chunks(some[-1].position + 1, most)
            if not self.staging.add(self.location, self.collection, self.version, [index(chunk) for chunk in some]):
                raise OvertakenError
            self.worked = True
            known = some[-1].position + 1
            self._pause_unless_time(f"{known:,} passages are read and kept", known)
        if not self.staging.complete(self.location, self.collection, content, deadline=self.deadline):
            raise OvertakenError
        return self._now()

    def found(self) -> Staged | None:
        """How far the runs before have come, if there was one."""
        return self.staging.find(self.location, self.version)

    def embed(self, staged: Staged, embedder: Embedder, *, batch_size: int) -> Staged:
        """Have every staged chunk's vector; OutOfTimeError when it must go on in another run."""
        under_way: dict[int, _Batch] = {}
        through = before = staged.embedded_through
        with closing(embedder.embed_each(self._texts(through, batch_size, under_way), self.deadline)) as answers:
            for number, vectors in answers:
                batch = under_way.pop(number)
                # Behind one that has failed what is missing is looked for again.
                through = batch.end if number < min(under_way, default=number + 1) else through
                if not self.staging.keep(
                    self.location,
                    self.collection,
                    self.version,
                    dict(zip(batch.content_hashes, vectors, strict=True)),
                    embedded_through=through,
                ):
                    raise OvertakenError
                self.worked = True
        if before < through < staged.chunk_count:
            done = staged.chunk_count + 1 + through
            self._pause_unless_time(f"{through:,} of {staged.chunk_count:,} passages are embedded", done)
        return self._now()

    def _texts(self, first: int, size: int, under_way: dict[int, _Batch]) -> Iterator[list[str]]:
        """The texts that have no vector from there on, a batch at a time, while there is time for another."""
        most = max(CHUNKS_AT_ONCE // size, 1) * size
        number = 0
        while rows := self.staging.unembedded(self.location, self.collection, first=first, most=most):
            # The vectors of what is under way are not kept yet.
            seen = {content_hash for batch in under_way.values() for content_hash in batch.content_hashes}
            first = rows[-1][0] + 1
            for some in _batches(rows, size):
                texts = {content_hash: text for _, content_hash, text in some if content_hash not in seen}
                if number > 0 and self.deadline.remaining() < RESERVE_SECONDS:
                    return
                if texts:
                    under_way[number] = _Batch(tuple(texts), some[-1][0] + 1)
                    yield list(texts.values())
                    number += 1
                    seen |= texts.keys()

    def publish(
        self,
        staged: Staged,
        ingestion: Ingestion,
        *,
        unchanged: Callable[[], bool],
        describe: Callable[[], Description],
    ) -> Growth | None:
        """Put the staged chunks in the place of the version before; OutOfTimeError when only another run has the time.

        None of the chunks is seen before all are, so that this is one transaction: a run that has not `worked` begins
        it whatever time there is.
        """
        needed = RESERVE_SECONDS + SECONDS_PER_CHUNK[self.collection.indexed] * staged.chunk_count
        if self.worked and self.deadline.remaining() < needed:
            msg = f"time is short: all {staged.chunk_count:,} passages are embedded and kept"
            raise OutOfTimeError(msg, version_id=self.version.version_id, progress=staged.progress)
        content = DocumentContent(
            self.version, staged.content_hash, staged.media_type, staged.title, warnings=tuple(staged.warnings)
        )
        return self.staging.publish(
            self.location,
            self.collection,
            content,
            ingestion,
            unchanged=unchanged,
            describe=describe,
            deadline=self.deadline,
        )

    def _now(self) -> Staged:
        staged = self.found()
        if staged is None:
            raise OvertakenError
        return staged

    def _pause_unless_time(self, done: str, progress: int) -> None:
        if self.deadline.remaining() < RESERVE_SECONDS:
            msg = f"time is short: {done}"
            raise OutOfTimeError(msg, version_id=self.version.version_id, progress=progress)


def refuse_chunks(chunks: int, most: int) -> None:
    """TOO_MANY_CHUNKS beyond the passages that one document may have."""
    if chunks > most:
        msg = f"The document has more than {most:,} passages, which is all that are indexed of one. Split it."
        raise DocumentError("TOO_MANY_CHUNKS", msg)


def _goes_on(chunks: Iterator[Chunk], staged: Staged) -> bool:
    """Pass by the staged chunks; whether the last of them stood where it was, since a new release may cut otherwise."""
    if staged.chunk_count == 0:
        return True
    last = next(islice(chunks, staged.chunk_count - 1, None), None)
    return last is not None and last.content_hash == staged.last_hash


def _batches(rows: Sequence[tuple[int, bytes, str]], size: int) -> Iterator[Sequence[tuple[int, bytes, str]]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
