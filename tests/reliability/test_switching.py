"""A collection that crosses the size from which it has indexes is asked all the while: every list is the exact one."""

from __future__ import annotations

import random
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from rag import ingestion, lexical, ranking
from rag.deadline import Deadline
from rag.errors import UnavailableError
from rag.migrations import ensure_space
from rag.store.access import TenantStore
from rag.store.database import Database
from rag.store.index import IndexStore
from rag.store.maintenance import Change, IndexMaintenance
from rag.store.search import SearchStore
from rag.types import (
    Chunk,
    Delivery,
    Description,
    DocumentContent,
    EmbeddingSpace,
    Filters,
    Ingestion,
    Location,
    Mode,
    ObjectVersion,
    Scope,
)

SPACE = EmbeddingSpace("fake", 8)
MODES: tuple[Mode, ...] = ("dense", "lexical", "hybrid")
WORDS = [
    f"{first}{vowel}{second}u{last}" for first in "bdfgk" for vowel in "aeio" for second in "lmn" for last in "kptz"
]
DOCUMENTS, CHUNKS_EACH, SHOWN = 8, 50, 20
SMALL, LARGE = DOCUMENTS * CHUNKS_EACH * 4, DOCUMENTS * CHUNKS_EACH // 4

Question = tuple[Mode, str]


@dataclass
class Log:
    """What each asker found, in its order, and what became of the indexes."""

    answers: dict[Mode, list[tuple[Question, list[Any]]]] = field(default_factory=lambda: {mode: [] for mode in MODES})
    errors: list[BaseException] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)


@dataclass
class World:
    tenant: Any
    database: Any
    stop: threading.Event = field(default_factory=threading.Event)
    log: Log = field(default_factory=Log)

    def connect(self, role: str) -> Database:
        return Database(self.database.url(role), lambda: self.database.passwords[role])

    def superuser(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.database.superuser_dsn(), autocommit=True)

    def cross(self, threshold: int) -> None:
        """One run of the maintenance that finds the threshold here."""
        password = self.database.passwords["rag_owner"]
        job = IndexMaintenance(self.database.url("rag_owner"), lambda: password, threshold=threshold, memory_mib=64)
        self.log.changes += job.run(Deadline.after(600))


@pytest.fixture
def world(database: Any, seed: int) -> World:
    ensure_space(database.dsn("rag_owner"), SPACE)
    with closing(Database(database.url("rag_admin"), lambda: database.passwords["rag_admin"])) as admin:
        tenant, _ = TenantStore(admin, SPACE).create("tenant")
    made = World(tenant, database)
    with closing(made.connect("rag_ingest")) as opened:
        fill(IndexStore(opened, SPACE), tenant, random.Random(seed))
    with made.superuser() as connection:
        # So few rows are read as fast: the indexes are to be used all the same.
        connection.execute(f"alter role rag_query in database {database.name} set enable_seqscan = off".encode())
    return made


def vector(chance: random.Random, dimensions: int = SPACE.dimensions) -> Any:
    return array("f", [chance.gauss(0, 1) for _ in range(dimensions)])


def fill(store: IndexStore, tenant: Any, chance: random.Random) -> None:
    for number in range(DOCUMENTS):
        texts = [" ".join(chance.choices(WORDS, k=chance.randint(8, 30))) for _ in range(CHUNKS_EACH)]
        chunks = [(text, vector(chance)) for text in texts]
        put(store, Location(tenant, "default", f"{number}.txt"), chunks)


def put(store: IndexStore, location: Location, chunks: Sequence[tuple[str, Any]], version_id: str = "v1") -> None:
    """A document of these texts and their vectors, in the place of the one that is there."""
    collection = store.collection(location, create=True)
    assert collection is not None
    version = ObjectVersion(version_id, version_id, 1)
    store.begin(location, collection, version, Delivery("m"))
    indexed = [
        replace(
            ingestion.indexed(location.document_id, collection, Chunk(position, text, tokens=len(text.split()))),
            embedding=embedding,
        )
        for position, (text, embedding) in enumerate(chunks)
    ]
    content = DocumentContent(version, b"\0" * 32, "text/plain", location.key, indexed)
    done = Ingestion("ready", datetime.now(UTC), version_id, chunk_count=len(indexed))
    assert store.replace(location, collection, content, done, unchanged=lambda: True, describe=lambda: Description({}))


def answer(store: SearchStore, tenant: Any, question: Question) -> list[Any]:
    mode, text = question
    found = store.search(
        Scope(tenant),
        "default",
        embedding=vector(random.Random(text)),
        lexemes=lambda language: lexical.ask(text, language),
        rank=lambda candidates, _: ranking.fuse(candidates, mode=mode)[:SHOWN],
        mode=mode,
        filters=Filters(),
        depth=50,
        shown=SHOWN,
    )
    return [hit.chunk_id for hit in found.hits]


def chosen_texts(seed: int) -> list[str]:
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=4)) for _ in range(10)]


def answers_now(world: World, texts: list[str]) -> dict[Question, list[Any]]:
    with closing(world.connect("rag_query")) as database:
        store = SearchStore(database, SPACE)
        questions: list[Question] = [(mode, text) for mode in MODES for text in texts]
        return {question: answer(store, world.tenant, question) for question in questions}


def ask(world: World, mode: Mode, texts: list[str]) -> None:
    with closing(world.connect("rag_query")) as database:
        store = SearchStore(database, SPACE)
        while not world.stop.is_set():
            for text in texts:
                world.log.answers[mode].append(((mode, text), answer(store, world.tenant, (mode, text))))


@contextmanager
def thread(world: World, target: Callable[..., None], *arguments: Any) -> Iterator[None]:
    def run() -> None:
        try:
            target(world, *arguments)
        except BaseException as error:  # noqa: BLE001 (told by the test)
            world.log.errors.append(error)

    started = threading.Thread(target=run)
    started.start()
    try:
        yield
    finally:
        started.join()


def let_them_ask(world: World, times: int) -> None:
    until = time.monotonic() + 60
    before = {mode: len(answers) for mode, answers in world.log.answers.items()}
    while any(len(answers) < before[mode] + times for mode, answers in world.log.answers.items()):
        if world.log.errors:
            return
        assert time.monotonic() < until
        time.sleep(0.002)


def is_indexed(world: World) -> bool:
    with world.superuser() as connection:
        [(indexed,)] = connection.execute("select indexed from searched_collections").fetchall()
    return bool(indexed)


def indexes_used(world: World) -> set[str]:
    query = "select indexrelname from pg_stat_user_indexes where indexrelname ~ '_of_[0-9]+$' and idx_scan > 0"
    with world.superuser() as connection:
        return {name.rstrip("0123456789") for (name,) in connection.execute(query.encode()).fetchall()}


def waiting(connection: psycopg.Connection[Any]) -> None:
    """Until a search that knows already whether its collection is indexed waits for what it weighs words with."""
    until = time.monotonic() + 60
    query = "select from pg_locks where relation = 'lexeme_blocks'::regclass and not granted"
    while not connection.execute(query).fetchall():
        assert time.monotonic() < until
        time.sleep(0.002)


def shrink(world: World, *, stalled: bool) -> None:
    """Drop the indexes; under searches that saw them and get no further meanwhile, if `stalled`."""
    with world.superuser() as connection, ExitStack() as locked:
        if stalled:
            locked.enter_context(connection.transaction())
            connection.execute("lock table lexeme_blocks in access exclusive mode")
            waiting(connection)
        world.cross(SMALL)


@pytest.mark.faults_full
def test_a_collection_is_searched_exactly_right_while_it_gets_and_loses_its_indexes(
    world: World, seed: int, record_fault: Any
) -> None:
    texts = chosen_texts(seed)
    exact = answers_now(world, texts)
    assert {len(found) for found in exact.values()} == {SHOWN}

    rounds = 6
    with ExitStack() as askers:
        for mode in MODES:
            askers.enter_context(thread(world, ask, mode, texts))
        askers.callback(world.stop.set)
        for number in range(rounds):
            let_them_ask(world, 10)
            world.cross(LARGE)
            assert is_indexed(world)
            let_them_ask(world, 10)
            shrink(world, stalled=number % 2 == 0)
            assert not is_indexed(world)
            let_them_ask(world, 10)
            world.cross(SMALL)  # the function goes
        world.cross(LARGE)
        let_them_ask(world, 10)

    assert world.log.errors == []
    actions = [change.action for change in world.log.changes]
    assert actions == [*["created", "created", "dropped", "dropped"] * rounds, "created", "created"]
    assert indexes_used(world) == {"embeddings_of_", "chunks_of_"}
    given = [each for answers in world.log.answers.values() for each in answers]
    recall = [len({*found} & {*exact[question]}) / SHOWN for question, found in given]
    different = [question for question, found in given if found != exact[question]]
    record_fault(
        "D2",
        injected=2 * rounds,
        violations=len(different),
        figure=f"{len(given):,} lists meanwhile, least recall {min(recall):.3f}",
    )
    assert different == []


def builder(connection: psycopg.Connection[Any], phase: str) -> int:
    """The process that builds an index, once it is in this phase."""
    until = time.monotonic() + 60
    query = "select pid from pg_stat_progress_create_index where phase = %s"
    while not (found := connection.execute(query, [phase]).fetchall()):
        assert time.monotonic() < until
        time.sleep(0.002)
    return int(found[0][0])


def invalid(connection: psycopg.Connection[Any]) -> list[str]:
    query = "select indexrelid::regclass::text from pg_index where not indisvalid"
    return [name.rstrip("0123456789") for (name,) in connection.execute(query).fetchall()]


WRITER, READER = "lock table embeddings in row exclusive mode", "select count(*) from collections"


@pytest.mark.faults_full
@pytest.mark.parametrize("end", ["pg_cancel_backend", "pg_terminate_backend"])
@pytest.mark.parametrize(
    ("other", "phase"),
    [(WRITER, "waiting for writers before build"), (READER, "waiting for old snapshots")],
    ids=["empty", "built"],
)
def test_an_index_that_was_ended_while_it_was_built_is_not_searched_and_the_next_run_makes_it_again(
    world: World, seed: int, record_fault: Any, other: str, phase: str, end: str
) -> None:
    texts = chosen_texts(seed)
    exact = answers_now(world, texts)
    with world.superuser() as observer:
        busy = world.superuser()
        busy.execute("begin isolation level repeatable read")
        busy.execute(other.encode())
        with thread(world, World.cross, LARGE), closing(busy):
            building = builder(observer, phase)
            meanwhile = answers_now(world, texts)
            observer.execute(f"select {end}(%s)".encode(), [building])
        assert [type(error) for error in world.log.errors] == [UnavailableError]
        assert invalid(observer) == ["embeddings_of_"]
        assert answers_now(world, texts) == meanwhile == exact

        world.cross(LARGE)
        left = invalid(observer)
        record_fault("D6", injected=1, violations=len(left), figure=f"{phase}: {2 * len(exact)} lists as before")
        assert left == []
    assert [(change.name.rstrip("0123456789"), change.action) for change in world.log.changes] == [
        ("embeddings_of_", "dropped"),
        ("embeddings_of_", "created"),
        ("chunks_of_", "created"),
    ]
    assert is_indexed(world)
    assert answers_now(world, texts) == exact
    assert indexes_used(world) == {"embeddings_of_", "chunks_of_"}
