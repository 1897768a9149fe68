"""Whatever bucket, queue, clock and crashes do to a document's events, the index ends as the bucket is."""

from __future__ import annotations

import itertools
import random
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import psycopg
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rag import ingestion
from rag.bucket import Bucket
from rag.deadline import Deadline
from rag.errors import UnavailableError
from rag.migrations import ensure_space
from rag.store.access import TenantStore
from rag.store.database import Database
from rag.store.index import IndexStore
from rag.store.staged import StagingStore
from rag.types import Delivery, Location
from tests.integration.deployment import BUCKET
from tests.lexeme_counts import LEXEME_COUNTS
from tests.reliability.bucket_model import BucketModel
from tests.reliability.plain import DAMAGED, LIMITS, SPACE, PlainEmbedder, PlainParser, body, count_tokens

MOST_RECEIVES = 3
SHORT_SECONDS, AMPLE_SECONDS = 10.0, 600.0
# Calls that are made, or may be, while the document is locked.
UNDER_LOCK = {"head", "read", "replace", "publish", "forget", "describe"}

_numbers = itertools.count(1)


class CrashError(BaseException):
    """The process is gone: nothing of ours may catch this."""


@dataclass
class Watched:
    """An edge whose calls are counted together with those of the others; at one of them `act` happens."""

    target: Any
    steps: Iterator[int]
    at: int | None
    act: Callable[[str], None]
    after: bool

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.target, name)
        if not callable(call):
            return call

        def watched(*arguments: Any, **keywords: Any) -> Any:
            due = next(self.steps) == self.at
            if due and not self.after:
                self.act(name)
            result = call(*arguments, **keywords)
            if due and self.after:
                self.act(name)
            return result

        return watched


@dataclass
class Event:
    """A message that names a key; what else it says is never trusted."""

    key: str
    receives: int = 0
    message_id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass
class World:
    tenant: uuid.UUID
    store: IndexStore
    other_store: IndexStore
    connection: psycopg.Connection[Any]
    counted: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(query.encode(), parameters).fetchall()


@pytest.fixture(scope="module")
def world(module_database: Any) -> Iterator[World]:
    ensure_space(module_database.dsn("rag_owner"), SPACE)
    admin = Database(module_database.url("rag_admin"), lambda: module_database.passwords["rag_admin"])
    tenant, _ = TenantStore(admin, SPACE).create("tenant")
    admin.close()
    databases = [
        Database(module_database.url("rag_ingest"), lambda: module_database.passwords["rag_ingest"]) for _ in "12"
    ]
    stores = [IndexStore(database, SPACE) for database in databases]
    with psycopg.connect(module_database.superuser_dsn(), autocommit=True) as connection:
        yield World(tenant, *stores, connection)
    for database in databases:
        database.close()


@pytest.mark.faults_fast
def test_the_bucket_in_memory_is_as_s3(aws: Any, seed: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What ingestion can see of both, after each of 60 random changes to three keys."""
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    s3, real, model = aws.client("s3"), Bucket(BUCKET), BucketModel()
    chance = random.Random(seed)
    keys = [f"{uuid.uuid4()}/default/key {number} é.txt" for number in range(3)]
    ids: dict[str, str] = {}
    for number in range(60):
        key = chance.choice(keys)
        held = model.versions(key)
        change = chance.choice(["put", "put", "delete", "delete version"])
        if change == "put":
            put = s3.put_object(Bucket=BUCKET, Key=key, Body=body(number, 1))
            ids[model.put(key, body(number, 1))] = put["VersionId"]
        elif change == "delete":
            ids[model.delete(key)] = s3.delete_object(Bucket=BUCKET, Key=key)["VersionId"]
        elif held:
            position = chance.randrange(len(held))
            s3.delete_object(Bucket=BUCKET, Key=key, VersionId=ids[held[position].version_id])
            model.delete_version(key, position)
        ours, theirs = model.head(key), real.head(key)
        assert (ours is None) == (theirs is None), (number, change)
        here, there = model.read(key, limit_bytes=20), real.read(key, limit_bytes=20)
        assert (here and here.content) == (there and there.content)
        opened, open_there = model.open(key), real.open(key)
        assert (opened and opened.version, open_there and open_there.version) == (ours, theirs)
        if ours and theirs and here and there and opened and open_there:
            assert ids[here.version_id] == there.version_id
            assert (ids[ours.version_id], ours.etag, ours.size) == (theirs.version_id, theirs.etag, theirs.size)
            assert opened.fetch(tmp_path / "a", limit_bytes=99_999) == open_there.fetch(
                tmp_path / "b", limit_bytes=99_999
            )


class Document(RuleBasedStateMachine):
    """One document's life: what happens to its object, and what to the messages about it."""

    world: World

    @initialize()
    def begin(self) -> None:
        self.bucket = BucketModel()
        self.location = Location(self.world.tenant, "default", f"document-{next(_numbers)}.txt")
        self.key = self.location.object_key
        self.events: list[Event] = []
        self.dead: list[Event] = []
        self.lost = False
        self.count("histories")

    def count(self, what: str) -> None:
        self.world.counted[what] += 1

    def happened(self, *, lost: bool = False) -> None:
        """S3 tells of every change, in no order that can be relied on; some messages never come."""
        if lost:
            self.lost = True
            self.count("events lost")
        else:
            self.events.append(Event(self.key))

    @rule(paragraphs=st.integers(0, 3), lost=st.sampled_from([False] * 9 + [True]))
    def put(self, paragraphs: int, lost: bool) -> None:  # noqa: FBT001
        written = body(next(_numbers), paragraphs) if paragraphs else DAMAGED + str(next(_numbers)).encode()
        self.bucket.put(self.key, written)
        self.happened(lost=lost)

    @precondition(lambda self: bool(self.bucket.versions(self.key)))
    @rule(position=st.integers(-1, 4), lost=st.sampled_from([False] * 9 + [True]))
    def delete(self, position: int, lost: bool) -> None:  # noqa: FBT001
        """By a delete marker; or, for good, an old version, the current one, or a delete marker."""
        held = self.bucket.versions(self.key)
        if position < 0:
            self.bucket.delete(self.key)
            self.count("deletes")
        else:
            self.count("versions removed" if held[position % len(held)].body is not None else "markers removed")
            self.bucket.delete_version(self.key, position % len(held))
        self.happened(lost=lost)

    @precondition(lambda self: bool(self.events))
    @rule()
    def deliver_the_next(self) -> None:
        self.deliver(0, again=False, fault="none", step=0, after=False)

    @precondition(lambda self: bool(self.events))
    @rule(
        place=st.integers(0, 5),
        again=st.booleans(),
        fault=st.sampled_from(
            ["none", "crash", "crash", "failure", "overwrite", "overtaken", "delete", "short of time"]
        ),
        step=st.integers(0, 9),
        after=st.booleans(),
    )
    def deliver_any(self, place: int, again: bool, fault: str, step: int, after: bool) -> None:  # noqa: FBT001
        self.deliver(place, again=again, fault=fault, step=step, after=after)

    @precondition(lambda self: bool(self.events))
    @rule(
        fault=st.sampled_from(["crash", "failure", "overwrite", "overtaken", "delete"]),
        step=st.integers(0, 9),
        after=st.booleans(),
    )
    def deliver_badly(self, fault: str, step: int, after: bool) -> None:  # noqa: FBT001
        self.deliver(0, again=False, fault=fault, step=step, after=after)

    @rule()
    def time_passes(self) -> None:
        """So much that whoever was at work on the document is over: it ended, or it was ended."""
        self.world.rows(
            "update documents set leased_until = now() where id = %s returning id", self.location.document_id
        )

    @rule(step=st.integers(1, 6))
    def overtake(self, step: int) -> None:
        """Nothing else is under way that would put right what the slower of two workers did last."""
        self.time_passes()
        for event in self.events:
            assert self.run(event)
        self.events.clear()
        self.bucket.put(self.key, body(next(_numbers), 1))
        self.run(Event(self.key), fault="overtaken", step=step, after=True)

    def deliver(self, place: int, *, again: bool, fault: str, step: int, after: bool) -> None:
        """Any message, however old; it may come again although it was acknowledged."""
        event = self.events[place % len(self.events)]
        self.count("deliveries")
        self.count("reordered") if place % len(self.events) else None
        if self.run(event, fault=fault, step=step, after=after):
            if again:
                self.count("duplicates")
            else:
                self.events.remove(event)
        elif event.receives >= MOST_RECEIVES:
            self.events.remove(event)
            self.dead.append(event)
            self.count("dead letters")

    def run(
        self, event: Event, *, fault: str = "none", step: int = 0, after: bool = False, store: IndexStore | None = None
    ) -> bool:
        """One delivery to the real pipeline on the real store; whether it was acknowledged."""
        store = store or self.world.store
        event.receives += 1
        delivery = Delivery(event.message_id, event.receives, last=event.receives >= MOST_RECEIVES)

        def act(call: str) -> None:
            if fault != "overtaken" or call not in UNDER_LOCK:  # there, whoever comes second waits
                self.count(fault)
                self.meanwhile(fault)

        at = step if fault in {"crash", "failure", "overwrite", "overtaken", "delete"} else None
        steps = itertools.count()
        called: dict[str, Any] = {
            "bucket": self.bucket,
            "parser": PlainParser(),
            "embedder": PlainEmbedder(),
            "store": store,
            "staging": StagingStore(store),
        }
        edges: dict[str, Any] = {name: Watched(edge, steps, at, act, after) for name, edge in called.items()}
        try:
            ingestion.ingest(
                self.location,
                **edges,
                count_tokens=count_tokens,
                limits=LIMITS,
                deadline=Deadline.after(SHORT_SECONDS if fault == "short of time" else AMPLE_SECONDS),
                delivery=delivery,
            )
        except CrashError:
            return False
        except UnavailableError:
            if delivery.last:
                ingestion.give_up(self.location, "scripted", delivery, bucket=self.bucket, store=self.world.store)
            return False
        return True

    def meanwhile(self, fault: str) -> None:
        """What happens in the middle of a delivery."""
        if fault == "crash":
            raise CrashError
        if fault == "failure":
            raise UnavailableError("scripted")
        if fault == "delete":
            self.bucket.delete(self.key)
        else:
            self.bucket.put(self.key, body(next(_numbers), 2))
        if fault == "overtaken":  # by another worker, with a version that is newer than ours
            assert self.run(Event(self.key), store=self.world.other_store)
        else:
            self.happened()

    @invariant()
    def never_in_parts(self) -> None:
        """P1: what a reader would see now is of one version, and as much as the document says."""
        if not hasattr(self, "location"):
            return
        chunks, counted = self.found()
        if len(chunks) != counted or len({chunk.split(" says ")[0] for chunk in chunks}) > 1:
            self.world.wrong.append(f"torn: {chunks}, {counted}")
            raise AssertionError(chunks, counted)

    def found(self) -> tuple[list[str], int]:
        rows = self.world.rows(
            "select c.content, d.chunk_count from documents d join chunks c on c.document_id = d.id where d.id = %s "
            "order by c.position",
            self.location.document_id,
        )
        return [content for content, _ in rows], rows[0][1] if rows else 0

    def teardown(self) -> None:
        if not hasattr(self, "location"):
            return
        waiting = [*self.events, *self.dead]
        if self.lost:  # a reconcile pass names what it finds in the bucket or in the index
            waiting.append(Event(self.key))
        self.time_passes()
        for event in waiting:
            assert self.run(event)
        now = self.bucket.current(self.key)
        chunks, _ = self.found()
        [state] = self.world.rows(
            "select status, version_id, error_code, chunk_count from documents where id = %s", self.location.document_id
        ) or [None]  # fmt: skip
        kept = self.world.rows(
            "select document_id from pending_embeddings where document_id = %s "
            "union all select document_id from pending_documents where document_id = %s",
            *[self.location.document_id] * 2,
        )
        if now is None or now.body is None:
            right = state is None and not chunks and not kept
        elif now.body.startswith(DAMAGED):
            right = state == ("failed", now.version_id, "CORRUPT", 0) and not chunks and not kept
        else:
            parts = now.body.decode().split("\n\n")
            right = state == ("ready", now.version_id, None, len(parts)) and chunks == parts and not kept
        if not right:
            self.world.wrong.append(f"{now} became {state}, {chunks}")
        assert right, (now, state, chunks, kept)


@pytest.mark.faults_fast
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", range(14))
def test_whoever_is_overtaken_while_a_large_document_is_staged_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, step: int, *, after: bool
) -> None:
    monkeypatch.setattr(Document, "world", world, raising=False)
    document = Document()
    document.begin()
    document.put(paragraphs=3, lost=False)
    document.deliver_badly(fault="overtaken", step=step, after=after)
    document.teardown()


@pytest.mark.faults_fast
def test_a_hundred_histories_end_as_the_bucket_is(world: World, seed: int, record_fault: Any) -> None:
    live(world, seed, histories=100, record_fault=record_fault)


@pytest.mark.faults_full
def test_five_hundred_histories_end_as_the_bucket_is(world: World, seed: int, record_fault: Any) -> None:
    live(world, seed + 1, histories=500, record_fault=record_fault)


@pytest.mark.faults_soak
def test_four_thousand_histories_end_as_the_bucket_is(world: World, seed: int, record_fault: Any) -> None:
    live(world, seed + 2, histories=4000, record_fault=record_fault)


def live(world: World, seed: int, *, histories: int, record_fault: Any) -> None:
    world.counted.clear()
    world.wrong.clear()
    machine = hypothesis.seed(seed)(type("SeededDocument", (Document,), {"world": world}))
    settings = hypothesis.settings(
        max_examples=histories,
        stateful_step_count=10,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    try:
        run_state_machine_as_test(machine, settings=settings)
    finally:
        counted, wrong = world.counted, len(world.wrong)
        for fault, what in {
            "A1": "duplicates", "A2": "reordered", "A3": "histories", "A4": "events lost", "A5": "overwrite",
            "B3": "overtaken", "A6": "markers removed", "A13": "dead letters", "B1": "crash",
        }.items():  # fmt: skip
            if counted[what]:
                figure = f"{what} in {counted['histories']:,} histories, {counted['deliveries']:,} deliveries"
                record_fault(fault, injected=counted[what], violations=wrong, figure=figure)
    assert world.wrong == []
    assert counted["histories"] >= histories
    assert statistics_are_right(world.rows)


def statistics_are_right(rows: Callable[[str], list[tuple[Any, ...]]]) -> bool:
    """Each lexeme's count is that of the chunks there are, after all the replacing and deleting."""
    kept = f"select lexeme, sum(document_frequency) from {LEXEME_COUNTS} group by 1 having sum(document_frequency) <> 0"
    there = "select lexeme, count(*) from chunks, unnest(lexemes) as lexeme group by 1"
    totals = "select sum(chunk_count) from collection_statistics"
    chunks = "select count(*) from chunks"
    return dict(rows(kept)) == dict(rows(there)) and rows(totals) == rows(chunks)
