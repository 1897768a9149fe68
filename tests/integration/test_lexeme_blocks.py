"""In how many chunks each lexeme stands: what ingests changed, added to blocks of lexemes."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count, pairwise
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from rag.migrations import ensure_space
from rag.store import index, statistics, writing
from rag.store.access import TenantStore
from rag.store.database import Database
from rag.store.index import IndexStore
from rag.store.statements import statement
from rag.types import Collection, EmbeddingSpace, Ingestion, Location
from tests.lexeme_counts import LEXEME_COUNTS

SPACE = EmbeddingSpace("test-model", 4)
# Small, so that little has to be added up in several transactions, and divides blocks.
PER_ROW, ROWS_AT_ONCE, PER_BLOCK = 7, 3, 6
NOTHING: Mapping[int, int] = {}

LEXEMES = some.integers(1, 999_999_999) | some.integers(1, 50)
CHANGES = some.dictionaries(LEXEMES, some.integers(-3, 3), max_size=60)


@dataclass
class Counted:
    """A collection, and what its statistics are to say."""

    index: IndexStore
    looking: psycopg.Connection[Any]
    location: Location
    collection: Collection
    expected: Counter[int] = field(default_factory=Counter)

    def change(self, changes: Mapping[int, int]) -> None:
        """As an ingest that changes the frequencies of these lexemes, with what it does after its commit."""
        before, after = (writing.Counts(), writing.Counts())
        before.frequencies.update({lexeme: -change for lexeme, change in changes.items() if change < 0})
        after.frequencies.update({lexeme: change for lexeme, change in changes.items() if change > 0})
        done = Ingestion("ready", datetime.now(UTC))

        def work(transaction: Any) -> int:
            writing.record(transaction, self.location, self.collection, done, None, before=before, after=after)
            return 0

        self.index.changed(self.location, self.collection, work)
        self.expected.update(changes)

    def add_up(self) -> None:
        self.index.changed(self.location, self.collection, lambda _: 0)

    def found(self) -> list[tuple[int, int]]:
        """What a question sees."""
        return self.looking.execute(
            f"select lexeme, sum(document_frequency) from {LEXEME_COUNTS} where collection_id = %s "
            "group by 1 having sum(document_frequency) <> 0 order by 1".encode(),
            [self.collection.id],
        ).fetchall()

    def blocks(self) -> list[tuple[int, list[int], list[int]]]:
        return self.looking.execute(
            "select first, lexemes, document_frequencies from lexeme_blocks where collection_id = %s order by first",
            [self.collection.id],
        ).fetchall()

    def changes(self) -> list[tuple[list[int], list[int]]]:
        return self.looking.execute(
            "select lexemes, counts from lexeme_changes where collection_id = %s order by id", [self.collection.id]
        ).fetchall()

    def right(self) -> list[tuple[int, int]]:
        return sorted((lexeme, count) for lexeme, count in self.expected.items() if count)


@pytest.fixture
def collections(database: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Iterator[Counted]]:
    """New ones of one tenant, whose statistics are added up after every ingest, in small parts."""
    monkeypatch.setattr(writing, "LEXEMES_PER_ROW", PER_ROW)
    monkeypatch.setattr(index, "ROLL_UP_ROWS", 0)
    monkeypatch.setattr(statistics, "ROWS_AT_ONCE", ROWS_AT_ONCE)
    monkeypatch.setattr(statistics, "LEXEMES_PER_BLOCK", PER_BLOCK)
    ensure_space(database.dsn("rag_owner"), SPACE)
    admin, ingest = (Database(database.url(role), lambda role=role: database.passwords[role]) for role in ROLES)
    store = IndexStore(ingest, SPACE)
    tenant, _ = TenantStore(admin, SPACE).create("first")

    def made(number: int) -> Counted:
        location = Location(tenant, f"collection{number}", "note.txt")
        collection = store.collection(location, create=True)
        assert collection is not None
        return Counted(store, looking, location, collection)

    with psycopg.connect(database.superuser_dsn(), autocommit=True) as looking:
        yield map(made, count())
    admin.close()
    ingest.close()


ROLES = "rag_admin", "rag_ingest"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(rolled_up_after=some.integers(0, 2), rounds=some.lists(CHANGES, min_size=1, max_size=6))
def test_blocks_hold_the_sum_of_all_changes(
    collections: Iterator[Counted], rolled_up_after: int, rounds: list[dict[int, int]]
) -> None:
    counted = next(collections)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "ROLL_UP_ROWS", rolled_up_after)
        for changes in [dict.fromkeys(range(3, 150, 3), 1), *rounds]:
            counted.change(changes)
            assert counted.found() == counted.right()
    counted.add_up()
    assert counted.changes() == []
    blocks = counted.blocks()
    found = [pair for _, lexemes, counts in blocks for pair in zip(lexemes, counts, strict=True)]
    assert found == counted.right()
    assert blocks[0][0] == 0
    assert max(len(lexemes) for _, lexemes, _ in blocks) <= PER_BLOCK
    assert all(first <= min(lexemes, default=first) for first, lexemes, _ in blocks)
    assert all(max(one[1], default=0) < other[0] for one, other in pairwise(blocks))


def test_what_others_append_meanwhile_is_added_up_the_next_time(collections: Iterator[Counted], database: Any) -> None:
    counted = next(collections)
    with psycopg.connect(database.superuser_dsn()) as another:
        another.execute(
            "insert into lexeme_changes (tenant_id, collection_id, lexemes, counts) values (%s, %s, %s, %s)",
            [counted.location.tenant_id, counted.collection.id, [5, 70], [1, 2]],
        )
        counted.change(dict.fromkeys(range(1, 100), 1))
        assert counted.found() == counted.right()
    assert counted.changes() == [([5, 70], [1, 2])]
    counted.expected.update({5: 1, 70: 2})
    assert counted.found() == counted.right()
    counted.add_up()
    assert counted.changes() == []
    assert counted.found() == counted.right()


def test_a_question_sees_the_same_sums_while_they_are_added_up(
    collections: Iterator[Counted], database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = next(collections)
    monkeypatch.setattr(index, "ROLL_UP_ROWS", 1_000)
    for start in range(8):
        counted.change(dict.fromkeys(range(1 + start, 300, 2), 1))
    assert counted.blocks() == []
    monkeypatch.setattr(index, "ROLL_UP_ROWS", 0)
    adding = threading.Thread(target=counted.add_up)
    adding.start()
    seen = [counted.found()]
    while adding.is_alive():
        seen.append(counted.found())
    adding.join()
    assert counted.changes() == []
    assert all(found == counted.right() for found in [*seen, counted.found()])


def test_only_blocks_of_changed_lexemes_are_read(collections: Iterator[Counted], database: Any) -> None:
    counted = next(collections)
    counted.change(dict.fromkeys(range(10, 6_010, 10), 1))
    before = counted.blocks()
    assert len(before) > 100
    with psycopg.connect(database.dsn("rag_ingest")) as connection:
        bound = {"tenant": counted.location.tenant_id, "collection": counted.collection.id}
        connection.execute("select set_config('app.tenant', %s, true)", [str(counted.location.tenant_id)])
        connection.execute(
            "insert into lexeme_changes (tenant_id, collection_id, lexemes, counts) "
            "values (%(tenant)s, %(collection)s, '{10, 20, 3000}', '{1, 1, -1}')",
            bound,
        )
        connection.execute(statement("add_up_lexemes"), bound | {"most": ROWS_AT_ONCE, "lexemes_per_block": PER_BLOCK})
        [(read,)] = connection.execute(
            "select seq_tup_read + idx_tup_fetch from pg_stat_xact_user_tables where relname = 'lexeme_blocks'"
        ).fetchall()
    after = counted.blocks()
    assert len(set(map(str, after)) - set(map(str, before))) == 2
    # To find each block and the next one, to read it and to write it.
    assert 0 < read <= 2 * 4
