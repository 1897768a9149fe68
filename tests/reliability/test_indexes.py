"""Indexes that find less than when new, indexes built in too little memory, and texts that are all the same."""

from __future__ import annotations

import math
import random
import re
import time
from array import array
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg import sql

from rag import searching, wiring
from rag.cache import Cache
from rag.deadline import Deadline
from rag.migrations import ensure_space
from rag.store.access import TenantStore
from rag.store.index import IndexStore
from rag.store.maintenance import IndexMaintenance
from rag.store.recall import Recall, RecallMaintenance
from rag.store.search import SearchStore
from rag.types import EmbeddingSpace, Location, Mode, Scope
from tests.integration.deployment import SPACE as DEPLOYED
from tests.integration.deployment import Context, Deployment, sample
from tests.reliability.test_switching import WORDS, World, put, vector

SPACE = EmbeddingSpace("fake", 32)
CHUNKS_EACH = 50
ROUNDS = 5


@pytest.fixture
def empty(database: Any) -> World:
    ensure_space(database.dsn("rag_owner"), SPACE)
    with closing(World(None, database).connect("rag_admin")) as admin:
        tenant, _ = TenantStore(admin, SPACE).create("tenant")
    return World(tenant, database)


def maintenance(world: World, *, memory_mib: int = 64) -> IndexMaintenance:
    password = world.database.passwords["rag_owner"]
    return IndexMaintenance(world.database.url("rag_owner"), lambda: password, threshold=100, memory_mib=memory_mib)


def write(world: World, chance: random.Random, numbers: list[int], version: str) -> None:
    with closing(world.connect("rag_ingest")) as database:
        store = IndexStore(database, SPACE)
        for number in numbers:
            chunks = [(" ".join(chance.choices(WORDS, k=12)), vector(chance, 32)) for _ in range(CHUNKS_EACH)]
            put(store, Location(world.tenant, "default", f"{number}.txt"), chunks, version)


def index(connection: psycopg.Connection[Any]) -> tuple[str, str]:
    """The name of the one index of vectors, and its comment."""
    found = connection.execute(
        "select relname::text, obj_description(oid, 'pg_class') from pg_class where relname ~ '^embeddings_of_'"
    ).fetchall()
    [(name, comment)] = found
    return name, comment


def remark(connection: psycopg.Connection[Any], text: str) -> None:
    name, _ = index(connection)
    connection.execute(sql.SQL("comment on index {} is {}").format(sql.Identifier(name), sql.Literal(text)))


def next_day(world: World) -> list[Recall]:
    """What maintenance finds, and does, where it last asked yesterday."""
    with world.superuser() as connection:
        _, comment = index(connection)
        remark(connection, f"{comment[: -len('2026-01-01')]}2026-01-01")
    return RecallMaintenance(maintenance(world)).run(Deadline.after(600))


def spoil(connection: psycopg.Connection[Any]) -> None:
    """A graph with too few edges in the place of a good one, of which what it found is still said."""
    name, comment = index(connection)
    [(made,)] = connection.execute("select pg_get_indexdef(%s::regclass)", [name]).fetchall()
    connection.execute(sql.SQL("drop index {}").format(sql.Identifier(name)))
    poor = re.sub(r"ef_construction='\d+'", "ef_construction='4'", re.sub(r"m='\d+'", "m='2'", made))
    assert poor != made
    connection.execute(poor.encode())
    remark(connection, comment)


@pytest.mark.parametrize(
    "documents",
    [pytest.param(24, marks=pytest.mark.faults_full), pytest.param(200, marks=pytest.mark.faults_soak)],
)
def test_an_index_that_finds_less_than_when_it_was_new_is_rebuilt_and_one_that_only_saw_much_replaced_is_not(
    empty: World, seed: int, record_fault: Any, documents: int
) -> None:
    chance = random.Random(seed)
    write(empty, chance, list(range(documents)), "v0")
    maintenance(empty).run(Deadline.after(600))
    churned = RecallMaintenance(maintenance(empty)).run(Deadline.after(600))
    assert RecallMaintenance(maintenance(empty)).run(Deadline.after(600)) == []  # once a day
    with empty.superuser() as connection:
        for number in range(1, ROUNDS + 1):
            write(empty, chance, chance.sample(range(documents), documents // 2), f"v{number}")
            connection.execute("vacuum embeddings")
            churned += next_day(empty)
        options = "select reloptions from pg_class where relname ~ '^embeddings_of_'"
        usual = connection.execute(options.encode()).fetchall()
        spoil(connection)
        began = time.monotonic()
        [spoilt] = next_day(empty)
        seconds = time.monotonic() - began
        left = connection.execute("select relname from pg_class where relname ~ '_(next|replaced)$'").fetchall()
        _, comment = index(connection)
        made = connection.execute(options.encode()).fetchall()

    fell = [recall for recall in churned if recall.rebuilt or recall.found < 0.9]
    healed = spoilt.rebuilt and spoilt.after is not None and spoilt.after > max(spoilt.found + 0.05, 0.9)
    figure = (
        f"{documents * CHUNKS_EACH:,} chunks, half replaced {ROUNDS} times: recall {churned[0].found:.3f} before, "
        f"{churned[-1].found:.3f} after; a bad graph {spoilt.found:.3f}, rebuilt {spoilt.after:.3f} in {seconds:.1f} s"
    )
    injected, violations = ROUNDS + 1, len(fell) + (not healed) + len(left)
    record_fault("D5", injected=injected, violations=violations, figure=figure)
    assert len(churned) == ROUNDS + 1
    assert fell == []
    assert healed, spoilt
    assert left == []
    assert comment.startswith(f"recall {spoilt.after:.4f} when new, ")
    assert made == usual


class Directions:
    """Each text has a vector of its own, but for what is said of it."""

    embedding_model, dimensions = SPACE.model, SPACE.dimensions

    def __init__(self, known: dict[str, Any]) -> None:
        self._known = known

    def embed(self, texts: Sequence[str], deadline: Deadline) -> list[Any]:
        return [self._known[text] for text in texts]


def unit(values: Iterable[float]) -> Any:
    found = list(values)
    return array("f", [value / math.hypot(*found) for value in found])


def near(one: Any, other: Any, share: float) -> Any:
    """Between the two: the larger the share, the nearer to the second."""
    return unit((1 - share) * a + share * b for a, b in zip(unit(one), unit(other), strict=True))


@pytest.mark.faults_full
@pytest.mark.parametrize("mode", ["dense", "hybrid"])
def test_documents_are_found_beside_five_thousand_chunks_that_are_all_the_same(
    empty: World, seed: int, record_fault: Any, mode: Mode
) -> None:
    chance = random.Random(seed)
    notice, said = "This message is confidential and meant for whom it names.", vector(chance, 32)
    # Half of what is to be found is like the notice; and half of all comes when there is an index already.
    distinct = {
        f"The {chance.choice(WORDS)} of {word} is {chance.choice(WORDS)}.": vector(chance, 32)
        if number % 2
        else near(said, vector(chance, 32), 0.4)
        for number, word in enumerate(chance.sample(WORDS, 20))
    }
    documents = list(distinct.items())
    with closing(empty.connect("rag_ingest")) as database:
        store = IndexStore(database, SPACE)
        for half, indexed in enumerate((False, True)):
            for number in range(50):
                put(
                    store,
                    Location(empty.tenant, "default", f"mail-{half}-{number}.txt"),
                    [(notice, said)] * CHUNKS_EACH,
                )
            for number, document in enumerate(documents[half::2]):
                put(store, Location(empty.tenant, "default", f"own-{half}-{number}.txt"), [document])
            if not indexed:
                maintenance(empty).run(Deadline.after(600))

    asked = {**distinct, notice: said}
    # Whoever asks as if for the notice, in the words of a document.
    asked |= {f"{text} ": near(said, embedding, 0.3) for text, embedding in documents if mode == "hybrid"}
    with closing(empty.connect("rag_query")) as database:
        found = {
            question: searching.search(
                searching.Question(Scope(empty.tenant), question, mode=mode, top_k=10),
                llm=Directions(asked),
                store=SearchStore(database, SPACE),
                cache=Cache("", lambda: "", signing=lambda: "", ttl_seconds=600),
                deadline=Deadline.after(60),
            ).hits
            for question in asked
        }
    with empty.superuser() as connection:
        scans = connection.execute(
            "select idx_scan > 0 from pg_stat_user_indexes where indexrelname ~ '^embeddings_of_'"
        )
        assert scans.fetchall() == [(True,)]
    short = [question for question, hits in found.items() if len(hits) < 10]
    # Of all that says the same one passage is shown before whatever says something else.
    missed = [question for question in asked if question.strip() not in [hit.content for hit in found[question]][:2]]
    texts = [len({hit.content for hit in found[question]}) for question in distinct]
    record_fault(
        "D4",
        injected=100 * CHUNKS_EACH,
        violations=len(short) + len(missed),
        figure=f"{len(asked) - len(missed)} of {len(asked)} found among the first two, lists short {len(short)}; "
        f"distinct passages in top 10: {min(texts)} to {max(texts)}",
    )
    assert (short, missed) == ([], [])


@pytest.mark.faults_full
def test_an_index_for_which_there_is_too_little_memory_is_built_all_the_same_and_that_is_said(
    deployment: Deployment,
    seed: int,
    record_fault: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from functions.maintain.handler import handler

    chance, world = random.Random(seed), World(deployment.tenant, deployment.database)
    with closing(world.connect("rag_ingest")) as database:
        store = IndexStore(database, DEPLOYED)
        for number in range(40):
            chunks = [(f"Note {number} {place}.", vector(chance, DEPLOYED.dimensions)) for place in range(200)]
            put(store, Location(world.tenant, "default", f"{number}.txt"), chunks)

    seconds: dict[int, float] = {}
    warned: dict[int, list[str]] = {}
    for mebibytes in (4, 64):
        with world.superuser() as connection, deployment.function("rag_owner"):
            for (name,) in connection.execute(
                "select relname from pg_class where relname ~ '^embeddings_of_'"
            ).fetchall():
                connection.execute(sql.SQL("drop index {}").format(sql.Identifier(name)))
            # Less than the settings allow.
            monkeypatch.setattr(wiring, "index_maintenance", lambda of=mebibytes: maintenance(world, memory_mib=of))
            began = time.monotonic()
            changes = handler(sample("maintain/schedule.json"), Context(600))["changes"]
            seconds[mebibytes] = time.monotonic() - began
            _, comment = index(connection)
            [(valid,)] = connection.execute(
                "select indisvalid from pg_index where indexrelid::regclass::text ~ '^embeddings_of_'"
            ).fetchall()
        notices = [getattr(line, "notice", None) for line in caplog.records if line.levelname == "WARNING"]
        warned[mebibytes] = [notice for notice in notices if notice]
        caplog.clear()
        assert "created" in [change["action"] for change in changes]
        assert valid
        assert float(comment.split()[1]) > 0.95
    right = len(warned[4]) == 1 and "maintenance_work_mem" in warned[4][0] and warned[64] == []
    record_fault(
        "D8",
        injected=1,
        violations=not right,
        figure=f"8,000 chunks × 4: warned, {comment}; {seconds[4]:.1f} s with 4 MB, {seconds[64]:.1f} s with 64",
    )
    assert right, warned
