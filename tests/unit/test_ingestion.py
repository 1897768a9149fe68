"""The ingest pipeline, step by step, with fakes for the world."""

from __future__ import annotations

import uuid
from array import array
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from rag import ingestion
from rag.deadline import Deadline
from rag.errors import BusyError, DocumentError, FailureCode, OutOfTimeError, UnavailableError
from rag.ingestion import Limits, Outcome
from rag.types import (
    Begun,
    Beside,
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
    Section,
    Staged,
    Usage,
    Vector,
)

HERE = Location(uuid.UUID(int=7), "default", "note.txt")
DEFAULT = Collection(1, "default", "english", 1, 100.0, indexed=False, dimensions=4)
PLACES = ("trains", "canals", "bridges", "tunnels", "harbours")


@dataclass
class FakeBucket:
    """`versions` are what GET and HEAD answer in turn; the last one stays."""

    versions: list[str | None]
    content: bytes = b""
    sidecar: bytes | None = None
    uploaded: str | None = None

    def head(self, object_key: str, *, hurried: bool = False) -> ObjectVersion | None:
        name = self.versions.pop(0) if len(self.versions) > 1 else self.versions[0]
        return ObjectVersion(name, "etag", len(self.content), metadata=self.uploaded) if name else None

    def read(self, object_key: str, *, limit_bytes: int) -> Beside | None:
        assert object_key == HERE.object_key + ".metadata.json"
        return None if self.sidecar is None else Beside(self.sidecar[: limit_bytes + 1])

    def open(self, object_key: str) -> FakeOpened | None:
        version = self.head(object_key)
        return FakeOpened(version, self.content) if version else None


@dataclass
class FakeOpened:
    version: ObjectVersion
    content: bytes

    def fetch(self, path: Path, *, limit_bytes: int) -> bytes:
        path.write_bytes(self.content)
        return b"\1" * 32

    def close(self) -> None:
        """There is nothing to let go of."""


class FakeParser:
    """Reads a section from each line."""

    def parse(self, path: Path, name: str, kept: object) -> Parsed:
        text = path.read_text()
        if text == "torn":
            raise DocumentError("CORRUPT", "It is torn.")
        return Parsed("text/plain", tuple(Section(line, heading=line.split()[0]) for line in text.splitlines()))


@dataclass
class FakeEmbedder:
    """Remembers each batch; `seconds` is what one takes of the deadline."""

    batches: list[list[str]] = field(default_factory=list)
    fails_at: int = 0
    used: Usage = field(default_factory=Usage)
    busy: bool = False

    def require_embedding(self) -> None:
        if self.busy:
            raise BusyError("left alone")

    def embed(self, texts: Sequence[str], deadline: Deadline) -> list[Vector]:
        self.batches.append(list(texts))
        self.used.requests += 1
        self.used.prompt_tokens += 10 * len(texts)
        if len(self.batches) == self.fails_at:
            raise UnavailableError("down")
        return [array("f", [len(text), 1.0]) for text in texts]

    def embed_each(
        self, batches: Iterable[Sequence[str]], deadline: Deadline
    ) -> Generator[tuple[int, list[Vector]], None, None]:
        yield from ((number, self.embed(batch, deadline)) for number, batch in enumerate(batches))


@dataclass
class FakeStore:
    """One document, and what was done to it."""

    known: dict[bytes, Vector] = field(default_factory=dict)
    kept: list[int] = field(default_factory=list)
    content: DocumentContent | None = None
    ended: list[Ingestion] = field(default_factory=list)
    announced: list[Location] = field(default_factory=list)
    done: str | None = None
    exists: bool = True
    failure: str | None = None
    held: Begun | None = None
    left: list[Ingestion] = field(default_factory=list)
    allowed: Principals | None = None
    description: Description = field(default_factory=Description)

    def collection(self, location: Location, *, create: bool) -> Collection | None:
        return DEFAULT if create or self.exists else None

    def announce(self, collection: Collection, locations: Sequence[Location]) -> None:
        self.announced = list(locations)

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
    ) -> Begun:
        if version.version_id == self.done:
            return "settled"
        self.allowed = allowed
        if self.held is None:
            self.failure = failure
        return self.held or "begun"

    def leave(self, location: Location, collection: Collection, ingestion: Ingestion, delivery: Delivery) -> None:
        self.left.append(ingestion)

    def known_embeddings(
        self, location: Location, collection: Collection, content_hashes: Sequence[bytes]
    ) -> dict[bytes, Vector]:
        return {content_hash: self.known[content_hash] for content_hash in content_hashes if content_hash in self.known}

    def keep_embeddings(self, location: Location, collection: Collection, vectors: Mapping[bytes, Vector]) -> None:
        self.kept.append(len(vectors))
        self.known |= vectors

    def replace(
        self,
        location: Location,
        collection: Collection,
        content: DocumentContent,
        ingestion: Ingestion,
        *,
        unchanged: Callable[[], bool],
        describe: Callable[[], Description],
    ) -> Growth | None:
        if not unchanged():
            return None
        self.description = describe()
        self.content, self.done = content, content.version.version_id
        self.ended.append(ingestion)
        return Growth(0, ingestion.chunk_count)

    def describe(
        self,
        location: Location,
        collection: Collection,
        version: ObjectVersion,
        describe: Callable[[], Description],
    ) -> bool:
        if version.version_id != self.done:
            return False
        before, self.description = self.description, describe()
        return self.description != before

    def forget(
        self, location: Location, collection: Collection, ingestion: Ingestion, *, unchanged: Callable[[], bool]
    ) -> bool:
        if not unchanged():
            return False
        self.content, self.done = None, None
        self.ended.append(ingestion)
        return True


@dataclass
class FakeStaging:
    """What is staged of one document; as much as `in_time` calls fit into a run."""

    store: FakeStore
    version: str | None = None
    staged: Staged = field(default_factory=Staged)
    chunks: list[IndexedChunk] = field(default_factory=list)
    vectors: dict[bytes, Vector] = field(default_factory=dict)

    def pages(self, location: Location, content_hash: bytes) -> dict[int, str]:
        raise NotImplementedError

    def keep_page(self, location: Location, content_hash: bytes, page: int, content: str) -> None:
        raise NotImplementedError

    def find(self, location: Location, version: ObjectVersion) -> Staged | None:
        last = self.chunks[-1].content_hash if self.chunks else None
        return replace(self.staged, last_hash=last) if version.version_id == self.version else None

    def begin(self, location: Location, version: ObjectVersion) -> None:
        self.version, self.staged, self.chunks = version.version_id, Staged(), []

    def add(
        self, location: Location, collection: Collection, version: ObjectVersion, chunks: Sequence[IndexedChunk]
    ) -> bool:
        if version.version_id != self.version:
            return False
        self.chunks += chunks
        self.staged = replace(self.staged, chunk_count=len(self.chunks))
        return True

    def complete(
        self, location: Location, collection: Collection, content: DocumentContent, *, deadline: Deadline
    ) -> bool:
        if content.version.version_id != self.version:
            return False
        self.staged = replace(
            self.staged, complete=True, content_hash=content.content_hash, media_type=content.media_type
        )
        return True

    def unembedded(
        self, location: Location, collection: Collection, *, first: int, most: int
    ) -> list[tuple[int, bytes, str]]:
        left = [one for one in self.chunks[first:] if one.content_hash not in self.vectors]
        return [(one.chunk.position, one.content_hash, one.chunk.text) for one in left[:most]]

    def keep(
        self,
        location: Location,
        collection: Collection,
        version: ObjectVersion,
        vectors: Mapping[bytes, Vector],
        *,
        embedded_through: int,
    ) -> bool:
        if version.version_id != self.version:
            return False
        self.vectors |= vectors
        count = self.staged.embedded_count + len(vectors)
        self.staged = replace(self.staged, embedded_through=embedded_through, embedded_count=count)
        return True

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
    ) -> Growth | None:
        seen = [replace(one, embedding=self.vectors[one.content_hash]) for one in self.chunks]
        return self.store.replace(
            location,
            collection,
            replace(content, chunks=seen),
            ingestion,
            unchanged=unchanged,
            describe=describe,
        )


def words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def text(*places: str) -> bytes:
    """A line for each place, long enough for a chunk of its own."""
    return "\n".join(f"{place} " + "and more of the same " * 5 for place in places).encode()


def ingest(
    *versions: str | None,
    content: bytes = b"",
    store: FakeStore | None = None,
    staging: FakeStaging | None = None,
    embedder: FakeEmbedder | None = None,
    held_chunks: int = 100,
    most_chunks: int = 1000,
    batch_size: int = 2,
    seconds: float = 600,
    least_seconds: float = 0,
    last_delivery: bool = False,
    sidecar: bytes | None = None,
    uploaded: str | None = None,
) -> Any:
    store = store or FakeStore()
    return ingestion.ingest(
        HERE,
        bucket=FakeBucket(list(versions), content, sidecar, uploaded),
        parser=FakeParser(),
        embedder=embedder or FakeEmbedder(),
        store=store,
        staging=staging or FakeStaging(store),
        count_tokens=words,
        limits=Limits(
            10**6,
            chunk_tokens=30,
            chunk_max_tokens=40,
            batch_size=batch_size,
            chunks=most_chunks,
            held_chunks=held_chunks,
            least_seconds=least_seconds,
            usd_per_million_tokens=2.0,
        ),
        deadline=Deadline.after(seconds),
        delivery=Delivery("message", last=last_delivery),
    )


def test_while_the_model_is_left_alone_a_document_is_not_even_begun_with() -> None:
    store = FakeStore()
    with pytest.raises(BusyError):
        ingest("v1", content=text("trains"), store=store, embedder=FakeEmbedder(busy=True))
    assert (store.content, store.left) == (None, [])


def test_a_document_is_embedded_in_batches_and_stored_once() -> None:
    store, embedder = FakeStore(), FakeEmbedder()
    assert ingest("v1", content=text(*PLACES), store=store, embedder=embedder) == Outcome(
        "ready", 5, 5, growth=Growth(0, 5)
    )
    assert [len(batch) for batch in embedder.batches] == [2, 2, 1]
    assert store.kept == [2, 2]  # the last batch is stored with the document
    assert store.content is not None
    assert [chunk.chunk.position for chunk in store.content.chunks] == [0, 1, 2, 3, 4]
    assert [chunk.embedding[0] for chunk in store.content.chunks] == [len(c.chunk.text) for c in store.content.chunks]
    [done] = store.ended
    assert (done.outcome, done.version_id, done.chunk_count, done.embedded_count) == ("ready", "v1", 5, 5)


def test_equal_passages_are_embedded_once() -> None:
    store, embedder = FakeStore(), FakeEmbedder()
    assert ingest("v1", content=text("trains", "trains"), store=store, embedder=embedder) == Outcome(
        "ready", 2, 1, growth=Growth(0, 2)
    )
    assert store.content is not None
    first, second = store.content.chunks
    assert (first.embedding, first.chunk.text) == (second.embedding, second.chunk.text)
    assert first.id != second.id


def test_what_was_kept_of_a_cut_short_attempt_is_not_embedded_again() -> None:
    store, failing = FakeStore(), FakeEmbedder(fails_at=3)
    with pytest.raises(UnavailableError, match="down"):
        ingest("v1", content=text(*PLACES), store=store, embedder=failing)
    assert (store.content, store.kept) == (None, [2, 2])
    embedder = FakeEmbedder()
    assert ingest("v1", content=text(*PLACES), store=store, embedder=embedder) == Outcome(
        "ready", 5, 1, growth=Growth(0, 5)
    )
    assert [len(batch) for batch in embedder.batches] == [1]


@pytest.mark.parametrize("held_chunks", [2, 100])
def test_what_came_beside_a_batch_that_failed_is_kept_and_only_that_is_asked_for_again(held_chunks: int) -> None:
    class Uneven(FakeEmbedder):
        """The second batch fails while the third is under way."""

        def embed_each(
            self, batches: Iterable[Sequence[str]], deadline: Deadline
        ) -> Generator[tuple[int, list[Vector]], None, None]:
            given = list(batches)
            yield 0, self.embed(given[0], deadline)
            yield 2, self.embed(given[2], deadline)
            raise UnavailableError("down")

    store = FakeStore()
    staging, uneven, embedder = FakeStaging(store), Uneven(), FakeEmbedder()
    content = text(*PLACES)
    with pytest.raises(UnavailableError, match="down"):
        ingest("v1", content=content, store=store, staging=staging, embedder=uneven, held_chunks=held_chunks)
    assert store.content is None
    outcome = ingest("v1", content=content, store=store, staging=staging, embedder=embedder, held_chunks=held_chunks)
    assert (outcome.result, outcome.chunk_count) == ("ready", 5)
    assert [len(batch) for batch in (*uneven.batches, *embedder.batches)] == [2, 1, 2]
    assert len({each for batch in (*uneven.batches, *embedder.batches) for each in batch}) == 5
    assert [position for position, *_ in shown(store)] == [0, 1, 2, 3, 4]


def test_when_time_is_short_the_first_batch_is_done_and_the_rest_left_for_the_next_delivery() -> None:
    store, embedder = FakeStore(), FakeEmbedder()
    for kept in ([2], [2, 2]):
        with pytest.raises(UnavailableError, match="time is short: 1 of"):
            ingest("v1", content=text(*PLACES), store=store, embedder=embedder, seconds=15)
        assert store.kept == kept
    assert ingest("v1", content=text(*PLACES), store=store, embedder=embedder, seconds=15) == Outcome(
        "ready", 5, 1, growth=Growth(0, 5)
    )


def test_a_version_that_is_done_is_not_read_again() -> None:
    store, embedder = FakeStore(done="v1"), FakeEmbedder()
    assert ingest("v1", content=text("trains"), store=store, embedder=embedder) == Outcome("unchanged")
    assert (embedder.batches, store.ended) == ([], [])


def test_a_version_that_is_overtaken_is_read_again_as_the_newer_one() -> None:
    store = FakeStore()
    assert ingest("v1", "v2", "v2", "v2", content=text("trains"), store=store).result == "ready"
    assert [done.version_id for done in store.ended] == ["v2"]


def test_an_object_that_goes_while_it_is_read_is_forgotten() -> None:
    store = FakeStore()
    assert ingest("v1", None, content=text("trains"), store=store) == Outcome("forgotten")
    assert store.content is None


def test_an_object_that_comes_back_while_it_is_forgotten_is_indexed() -> None:
    store = FakeStore()
    assert ingest(None, "v2", content=text("trains"), store=store).result == "ready"
    assert [done.outcome for done in store.ended] == ["ready"]


def test_an_object_that_keeps_changing_is_left_for_later() -> None:
    store = FakeStore()
    with pytest.raises(UnavailableError, match="changed 3 times"):
        ingest(*(f"v{n}" for n in range(20)), content=text("trains"), store=store)
    assert store.ended == []


def test_a_deleted_object_of_an_unknown_collection_leaves_no_trace() -> None:
    store = FakeStore(exists=False)
    assert ingest(None, store=store) == Outcome("unchanged")
    assert store.ended == []


@pytest.mark.parametrize(("content", "code"), [(b"torn", "CORRUPT"), (b"", "NO_TEXT")])
def test_a_document_that_cannot_be_read_fails_with_its_reason_and_costs_no_model_call(
    content: bytes, code: str
) -> None:
    store, embedder = FakeStore(), FakeEmbedder()
    assert ingest("v1", content=content, store=store, embedder=embedder) == Outcome("failed", error_code=code)
    [done] = store.ended
    assert (done.outcome, done.version_id, done.error_code, done.chunk_count) == ("failed", "v1", code, 0)
    assert done.error_message
    assert store.content == DocumentContent(ObjectVersion("v1", "etag", len(content)))
    assert embedder.batches == []


def test_giving_up_does_not_undo_what_is_done() -> None:
    store = FakeStore(done="v1")
    ingestion.give_up(HERE, "given up", Delivery("message"), bucket=FakeBucket(["v1"]), store=store)
    assert store.failure is None
    ingestion.give_up(HERE, "given up", Delivery("message"), bucket=FakeBucket(["v2"]), store=store)
    assert store.failure == "given up"


def test_at_its_last_delivery_a_document_counts_as_failed_until_it_is_ready() -> None:
    store = FakeStore()
    with pytest.raises(UnavailableError):
        ingest("v1", content=text("trains"), store=store, embedder=FakeEmbedder(fails_at=1), last_delivery=True)
    assert store.failure == "the last delivery did not end"
    assert ingest("v1", content=text("trains"), store=store, last_delivery=True).result == "ready"


def test_what_a_document_took_is_told_with_how_it_ended() -> None:
    store = FakeStore()
    ingest("v1", content=text(*PLACES), store=store)
    [done] = store.ended
    assert set(done.effort.seconds) == {"fetch", "parse", "embed"}
    assert done.effort.model_calls == 3
    assert done.effort.tokens == 10 * len(PLACES)
    assert done.effort.cost_usd == pytest.approx(10 * len(PLACES) * 2e-6)


def test_an_attempt_that_is_cut_short_is_told_as_well() -> None:
    store = FakeStore()
    with pytest.raises(UnavailableError):
        ingest("v1", content=text(*PLACES), store=store, embedder=FakeEmbedder(fails_at=2))
    [left] = store.left
    assert (left.outcome, left.version_id, left.error_message) == ("interrupted", "v1", "down")
    assert left.effort.model_calls == 2


def test_an_attempt_that_was_overtaken_is_told_before_the_one_that_counts() -> None:
    store = FakeStore()
    ingest("v1", "v2", content=text("trains"), store=store)
    assert [(one.outcome, one.version_id) for one in (*store.left, *store.ended)] == [
        ("superseded", "v1"),
        ("ready", "v2"),
    ]


def test_a_version_that_another_message_is_about_to_bring_is_left_to_it() -> None:
    store, embedder = FakeStore(held="duplicate"), FakeEmbedder()
    assert ingest("v1", content=text("trains"), store=store, embedder=embedder) == Outcome("duplicate")
    assert (embedder.batches, store.ended, store.left) == ([], [], [])


def test_a_message_that_is_being_worked_off_elsewhere_is_not_forgotten() -> None:
    store = FakeStore(held="busy")
    with pytest.raises(UnavailableError, match="this very message"):
        ingest("v1", content=text("trains"), store=store)
    assert store.left == []


def test_a_document_is_not_begun_without_the_time_to_read_it() -> None:
    store = FakeStore()
    with pytest.raises(OutOfTimeError):
        ingest("v1", store=store, least_seconds=1000)
    assert store.ended == []


def describe(
    version: str | None, store: FakeStore, *, sidecar: bytes | None = None, uploaded: str | None = None
) -> Any:
    return ingestion.describe(HERE, bucket=FakeBucket([version], b"", sidecar, uploaded), store=store)


def test_a_document_has_the_metadata_of_its_sidecar_else_of_its_upload() -> None:
    store = FakeStore()
    ingest(
        "v1", content=text("trains"), store=store, sidecar=b'{"year": 2020}', uploaded='{"year": 1999, "lang": "en"}'
    )
    assert store.description == Description({"year": 2020})
    ingest("v2", content=text("trains"), store=store, uploaded='{"year": 1999}')
    assert store.description == Description({"year": 1999})
    ingest("v3", content=text("trains"), store=store)
    assert store.description == Description()


def test_a_document_that_failed_has_metadata_as_well() -> None:
    store = FakeStore()
    assert ingest("v1", content=b"torn", store=store, sidecar=b'{"year": 2020}').result == "failed"
    assert store.description == Description({"year": 2020})


@pytest.mark.parametrize(
    ("sidecar", "uploaded", "error"),
    [
        (b"{", None, "the sidecar: is not JSON in UTF-8"),
        (b'{"a": "' + b"x" * 20_000 + b'"}', "{}", "the sidecar: has more than 16,384 bytes"),
        (None, "[]", "the upload: must be a JSON object"),
        (b'{"allowed_principals": "ann"}', "{}", "the sidecar: allowed_principals: must be a list of 1 to 100 users"),
    ],
)
def test_metadata_that_cannot_be_used_leaves_the_document_ready_and_says_why(
    sidecar: bytes | None, uploaded: str | None, error: str
) -> None:
    store = FakeStore()
    assert ingest("v1", content=text("trains"), store=store, sidecar=sidecar, uploaded=uploaded).result == "ready"
    assert (store.description.metadata, store.allowed, store.description.unread) == ({}, (), True)
    assert str(store.description.error).startswith(error)


def test_metadata_that_cannot_be_used_does_not_hide_who_may_see_the_document() -> None:
    store = FakeStore()
    ingest("v1", content=text("trains"), store=store, sidecar=b'{"allowed_principals": ["group:a"], "a": {"b": 1}}')
    error = "the sidecar: a: must be a string, a number, a boolean or a list of strings"
    assert store.description == Description(error=error, beside=("group:a",))
    assert store.allowed == ("group:a",)


def test_the_same_version_with_another_sidecar_is_described_and_not_read_again() -> None:
    store, embedder = FakeStore(), FakeEmbedder()
    ingest("v1", content=text("trains"), store=store, embedder=embedder)
    again = ingest("v1", content=text("trains"), store=store, embedder=embedder, sidecar=b'{"a": 1}')
    assert (again, len(embedder.batches)) == (Outcome("described"), 1)
    assert describe("v1", store, sidecar=b'{"a": 2}') == Outcome("described")
    assert describe("v1", store, sidecar=b'{"a": 2}') == Outcome("unchanged")
    assert store.description == Description({"a": 2})


def test_a_sidecar_of_a_document_that_is_not_there_or_not_ingested_yet_changes_nothing() -> None:
    store = FakeStore(done="v1")
    assert describe(None, store, sidecar=b'{"a": 1}') == Outcome("unchanged")
    assert describe("v2", store, sidecar=b'{"a": 1}') == Outcome("unchanged")
    assert describe("v1", FakeStore(exists=False), sidecar=b'{"a": 1}') == Outcome("unchanged")
    assert store.description == Description()


def test_what_waits_is_announced() -> None:
    store = FakeStore()
    ingestion.announce([HERE], store=store)
    assert store.announced == [HERE]


def test_equal_runs_give_equal_ids() -> None:
    ids = []
    for version in ("v1", "v2"):
        store = FakeStore()
        ingest(version, content=text(*PLACES), store=store)
        assert store.content is not None
        ids.append([chunk.id for chunk in store.content.chunks])
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == len(PLACES)


@pytest.mark.parametrize(("before", "after"), [(63, 64), (127, 128), (10, 500), (999, 1001)])
def test_maintenance_is_called_when_a_collection_has_doubled_or_needs_indexes(before: int, after: int) -> None:
    assert ingestion.Outcome("ready", growth=Growth(before, after)).calls_for_maintenance(1000)


@pytest.mark.parametrize("growth", [None, *(Growth(*pair) for pair in [(0, 63), (64, 127), (1001, 1002), (128, 64)])])
def test_most_documents_do_not_call_for_maintenance(growth: Growth | None) -> None:
    assert not ingestion.Outcome("ready", growth=growth).calls_for_maintenance(1000)


def shown(store: FakeStore) -> list[tuple[int, str, Vector]]:
    assert store.content is not None
    return [(one.chunk.position, one.chunk.text, one.embedding) for one in store.content.chunks]


def test_a_document_too_large_to_hold_ends_as_one_that_is_held() -> None:
    held, store, embedder = FakeStore(), FakeStore(), FakeEmbedder()
    content = text(*PLACES, "trains")
    ingest("v1", content=content, store=held)
    outcome = ingest("v1", content=content, store=store, embedder=embedder, held_chunks=2)
    assert outcome == Outcome("ready", 6, 5, growth=Growth(0, 6))
    assert shown(store) == shown(held)
    assert [(done.outcome, done.chunk_count, done.embedded_count) for done in store.ended] == [("ready", 6, 5)]
    assert sum(len(batch) for batch in embedder.batches) == 5
    assert (store.kept, held.kept) == ([], [2, 2])


def test_a_large_document_goes_on_where_the_run_before_ran_out_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.staging.CHUNKS_AT_ONCE", 2)
    store, embedder = FakeStore(), FakeEmbedder()
    staging, content = FakeStaging(store), text(*PLACES)
    progress = [0]
    while not store.ended:
        try:
            ingest("v1", content=content, store=store, staging=staging, embedder=embedder, held_chunks=2, seconds=15)
        except OutOfTimeError as error:
            progress.append(error.progress)

    assert progress == sorted(set(progress))
    assert len(progress) > 4
    assert [len(batch) for batch in embedder.batches] == [2, 2, 1]
    assert [position for position, *_ in shown(store)] == [0, 1, 2, 3, 4]


def test_a_large_document_that_is_cut_otherwise_than_before_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.staging.CHUNKS_AT_ONCE", 2)
    store = FakeStore()
    staging = FakeStaging(store)
    with pytest.raises(OutOfTimeError):
        ingest("v1", content=text(*PLACES), store=store, staging=staging, held_chunks=2, seconds=15)
    assert [one.chunk.heading for one in staging.chunks] == ["trains", "canals"]
    ingest("v1", content=text(*reversed(PLACES)), store=store, staging=staging, held_chunks=2)
    assert [words.split()[0] for _, words, _ in shown(store)] == [*reversed(PLACES)]


def test_a_large_document_that_is_overtaken_is_read_again_as_the_newer_one() -> None:
    store = FakeStore()
    staging = FakeStaging(store)

    class Rival(FakeEmbedder):
        def embed(self, texts: Sequence[str], deadline: Deadline) -> list[Vector]:
            if not self.batches:
                staging.begin(HERE, ObjectVersion("v2", "etag", 0))
            return super().embed(texts, deadline)

    outcome = ingest("v1", "v2", content=text(*PLACES), store=store, staging=staging, embedder=Rival(), held_chunks=2)
    assert outcome.result == "ready"
    assert [done.version_id for done in store.ended] == ["v2"]


@pytest.mark.parametrize("held_chunks", [2, 100])
def test_a_document_of_too_many_chunks_fails_and_says_how_many_it_may_have(held_chunks: int) -> None:
    store, embedder = FakeStore(), FakeEmbedder()
    outcome = ingest(
        "v1", content=text(*PLACES), store=store, embedder=embedder, held_chunks=held_chunks, most_chunks=4
    )
    assert outcome == Outcome("failed", error_code="TOO_MANY_CHUNKS")
    assert "more than 4 passages" in str(store.ended[0].error_message)
    assert embedder.batches == []
