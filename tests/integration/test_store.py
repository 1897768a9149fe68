"""The store on a real PostgreSQL, each role with its own connection."""

from __future__ import annotations

import threading
import uuid
from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg import sql

from functions.query.filters import read
from rag import ingestion, lexical, ranking
from rag.errors import ConflictError, InvalidRequestError, NotAuthorizedError, NotFoundError, UnavailableError
from rag.migrations import MigrationError, ensure_space, migrate
from rag.store.access import KeyStore, TenantStore
from rag.store.catalog import Catalog
from rag.store.database import Database, Transaction
from rag.store.index import IndexStore
from rag.store.search import SearchStore
from rag.types import (
    Chunk,
    Delivery,
    Description,
    DocumentContent,
    DocumentQuery,
    EmbeddingSpace,
    Hit,
    Ingestion,
    Location,
    ObjectVersion,
    Scope,
)
from tests.lexeme_counts import LEXEME_COUNTS

SPACE = EmbeddingSpace("test-model", 4)


@dataclass
class World:
    """One deployment's stores, and a tenant to use them."""

    database: Any
    tenant: uuid.UUID
    key: str
    index: IndexStore
    search: SearchStore
    catalog: Catalog
    tenants: TenantStore
    keys: KeyStore

    def place(self, key: str, *, collection: str = "default", tenant: uuid.UUID | None = None) -> Location:
        return Location(tenant or self.tenant, collection, key)

    def put(self, key: str, *texts: str, version: str = "v1", metadata: Any = None, **place: Any) -> Location:
        """Index a document whose chunks are the texts, each with a vector made of its first letters."""
        location = self.place(key, **place)
        collection = self.index.collection(location, create=True)
        assert collection is not None
        known = ObjectVersion(version, "etag", sum(map(len, texts)))
        self.index.begin(location, collection, known, Delivery("m"))
        chunks = [Chunk(position, text, tokens=len(text.split())) for position, text in enumerate(texts)]
        indexed = [
            replace(ingestion.indexed(location.document_id, collection, chunk), embedding=vector(chunk.text))
            for chunk in chunks
        ]
        content = DocumentContent(known, b"\0" * 32, "text/plain", key, indexed)
        done = Ingestion("ready", datetime.now(UTC), version, chunk_count=len(texts))
        described = Description(metadata or {})
        assert self.index.replace(
            location, collection, content, done, unchanged=lambda: True, describe=lambda: described
        )
        return location

    def find(self, text: str, *, tenant: uuid.UUID | None = None, mode: Any = "hybrid", **filters: Any) -> list[Hit]:
        counts = lexical.ask(text, "english")
        return self.search.search(
            Scope(tenant or self.tenant),
            "default",
            embedding=vector(text),
            lexemes=lambda _: counts,
            rank=lambda candidates, _: ranking.fuse(candidates, mode=mode),
            mode=mode,
            filters=read(filters),
            depth=100,
        ).hits

    def superuser(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database.superuser_dsn()) as connection:
            return connection.execute(query.encode()).fetchall()


def vector(text: str) -> Any:
    letters = [float(text.count(letter) + 0.1) for letter in "aeio"]
    return array("f", letters)


@pytest.fixture
def world(database: Any) -> Any:
    ensure_space(database.dsn("rag_owner"), SPACE)
    opened = {role: connect(database, role) for role in ("rag_ingest", "rag_query", "rag_authorize", "rag_admin")}
    tenants = TenantStore(opened["rag_admin"], SPACE)
    tenant, key = tenants.create("first")
    yield World(
        database,
        tenant,
        key,
        IndexStore(opened["rag_ingest"], SPACE),
        SearchStore(opened["rag_query"], SPACE),
        Catalog(opened["rag_query"], SPACE),
        tenants,
        KeyStore(opened["rag_authorize"]),
    )
    for connection in opened.values():
        connection.close()


def connect(database: Any, role: str) -> Database:
    return Database(database.url(role), lambda: database.passwords[role])


def test_what_was_put_is_found_by_both_legs_with_its_text(world: World) -> None:
    world.put("animals.txt", "The quick brown fox jumps.", "A lazy dog sleeps all day.")
    world.put("tools.txt", "A hammer drives nails.")
    [best, *_] = world.find("Which dog sleeps?")
    assert (best.key, best.position, best.content) == ("animals.txt", 1, "A lazy dog sleeps all day.")
    assert best.bm25 > 0
    assert [hit.key for hit in world.find("hammer", mode="lexical")] == ["tools.txt"]
    assert len(world.find("hammer", mode="dense")) == 3


def test_the_lexical_leg_is_bm25_to_the_last_digits(world: World) -> None:
    texts = ["red apple and green apple", "green pear", "a red fire engine and a red balloon"]
    for number, text in enumerate(texts):
        world.put(f"{number}.txt", text)
    counts = [lexical.analyse(text, "english") for text in texts]
    asked = lexical.ask("red apple", "english")
    frequencies = {term: sum(term in count for count in counts) for term in asked}
    weights = lexical.question(asked, frequencies, len(texts))
    expected = [sum(weights[t] * lexical.weigh(count, 100.0).get(t, 0) for t in asked) for count in counts]
    scores = {hit.key: hit.bm25 for hit in world.find("red apple", mode="lexical")}
    assert scores == {
        f"{number}.txt": pytest.approx(score, rel=1e-4) for number, score in enumerate(expected) if score > 0
    }


def test_replacing_a_document_leaves_nothing_of_the_version_before(world: World) -> None:
    location = world.put("note.txt", "old words here", "more old words", "even more")
    world.put("note.txt", "fresh sentence", version="v2")
    assert {hit.content for hit in world.find("words sentence")} == {"fresh sentence"}
    document = world.catalog.document(Scope(world.tenant), location.document_id)
    assert (document.version_id, document.chunk_count, document.status) == ("v2", 1, "ready")


def test_statistics_are_exact_after_replacing_deleting_and_rolling_up(world: World) -> None:
    for number in range(70):
        world.put(f"{number}.txt", f"shared word number{number}", "shared again")
    for number in range(35):
        world.put(f"{number}.txt", f"replaced number{number}", version="v2")
    gone = world.put("69.txt", "shared", version="v2")
    collection = world.index.collection(gone, create=False)
    assert collection is not None
    world.index.forget(gone, collection, Ingestion("forgotten", datetime.now(UTC)), unchanged=lambda: True)
    counted = (
        f"select lexeme, sum(document_frequency) from {LEXEME_COUNTS} "
        "group by 1 having sum(document_frequency) <> 0 order by 1"
    )
    true = "select lexeme, count(*) from (select unnest(lexemes) as lexeme from chunks) as each group by 1 order by 1"
    totals = "select sum(document_count), sum(chunk_count), sum(lexeme_count) from collection_statistics"
    true_totals = "select count(distinct document_id), count(*), sum(lexeme_count) from chunks"
    assert world.superuser("select count(*) <= 64 from collection_statistics") == [(True,)]
    assert world.superuser("select count(*) > 0 from lexeme_blocks") == [(True,)]
    assert world.superuser("select count(*) <= 64 from lexeme_changes") == [(True,)]
    assert world.superuser(counted) == world.superuser(true)
    assert world.superuser(totals) == world.superuser(true_totals)


def test_a_version_that_is_no_longer_current_writes_nothing(world: World) -> None:
    location = world.place("late.txt")
    collection = world.index.collection(location, create=True)
    assert collection is not None
    known = ObjectVersion("v1", "etag", 1)
    world.index.begin(location, collection, known, Delivery("m"))
    content, done = DocumentContent(known), Ingestion("failed", datetime.now(UTC), "v1", "NO_TEXT", "none")
    assert not world.index.replace(location, collection, content, done, unchanged=lambda: False)
    assert world.catalog.document(Scope(world.tenant), location.document_id).status == "processing"


def test_the_same_version_is_not_begun_twice_once_it_is_ready(world: World) -> None:
    location = world.put("done.txt", "text")
    collection = world.index.collection(location, create=False)
    assert collection is not None
    begun = [
        world.index.begin(location, collection, ObjectVersion(name, "etag", 1), Delivery("m")) for name in ("v1", "v2")
    ]
    assert begun == ["settled", "begun"]


def test_a_document_is_new_until_a_version_of_it_was_begun(world: World) -> None:
    location = world.place("later.txt")
    collection = world.index.collection(location, create=True)
    assert collection is not None
    world.index.announce(collection, [location])
    begun = [
        world.index.begin(location, collection, ObjectVersion(name, "etag", 1), Delivery("m"), lease_seconds=600)
        for name in ("v1", "v1", "v2")
    ]
    assert begun == ["new", "busy", "begun"]


def test_vectors_of_a_cut_short_attempt_are_found_again_and_leave_with_the_document(world: World) -> None:
    location = world.put("book.txt", "page one")
    collection = world.index.collection(location, create=False)
    assert collection is not None
    world.index.begin(location, collection, ObjectVersion("v2", "etag", 1), Delivery("message"))
    world.index.keep_embeddings(location, collection, {b"k" * 32: vector("aaa")})
    [(here,)] = world.superuser("select content_hash from chunks")
    known = world.index.known_embeddings(location, collection, [b"k" * 32, here, b"unknown"])
    assert known.keys() == {b"k" * 32, here}
    assert world.index.known_embeddings(location, collection, []) == {}
    assert list(known[b"k" * 32]) == pytest.approx(list(vector("aaa")), rel=1e-3)
    world.put("book.txt", "page two", version="v2")
    assert world.superuser("select count(*) from pending_embeddings") == [(0,)]


def test_readers_see_all_of_a_version_or_all_of_the_other(world: World) -> None:
    world.put("torn.txt", *(f"alpha part {n}" for n in range(20)), version="v0")
    stop = threading.Event()
    seen: list[set[str]] = []

    def read() -> None:
        while not stop.is_set():
            seen.append({hit.content.split()[0] for hit in world.find("part")})

    reader = threading.Thread(target=read)
    reader.start()
    for round_number in range(1, 15):
        word = "beta" if round_number % 2 else "alpha"
        world.put("torn.txt", *(f"{word} part {n}" for n in range(20)), version=f"v{round_number}")
    stop.set()
    reader.join()
    assert len(seen) > 5
    assert all(len(words) == 1 for words in seen)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"key": {"prefix": "a/"}}, {"a/1.txt", "a/2.txt"}),
        ({"key": {"any": ["a/1.txt", "b/1.txt"]}}, {"a/1.txt", "b/1.txt"}),
        ({"media_type": "application/pdf"}, set()),
        ({"key": {"eq": "a/1.txt", "prefix": "b/"}}, set()),
        ({"year": {"gte": 2021}}, {"a/2.txt", "b/1.txt"}),
        ({"year": {"gte": 2021}, "key": {"prefix": "a/"}}, {"a/2.txt"}),
    ],
)
def test_a_filter_leaves_every_hit_that_fits_and_no_other(world: World, filters: Any, expected: set[str]) -> None:
    for year, key in enumerate(("a/1.txt", "a/2.txt", "b/1.txt"), start=2020):
        world.put(key, "the same words everywhere", metadata={"year": year})
    for mode in ("hybrid", "dense", "lexical"):
        assert {hit.key for hit in world.find("same words", mode=mode, **filters)} == expected


def test_if_k_matching_chunks_exist_k_are_returned_however_few_match(world: World) -> None:
    for number in range(150):
        world.put(f"{number}.txt", "the same words everywhere", metadata={"rare": number % 50 == 0})
    for mode in ("hybrid", "dense", "lexical"):
        assert {hit.key for hit in world.find("same words", mode=mode, rare=True)} == {"0.txt", "50.txt", "100.txt"}


def test_metadata_is_replaced_alone_and_stays_when_it_cannot_be_used(world: World) -> None:
    location = world.put("note.txt", "text", metadata={"year": 2020, "lang": "en"})
    collection = world.index.collection(location, create=False)
    assert collection is not None
    chunks = world.superuser("select * from chunks")

    def describe(description: Description, version: str = "v1") -> bool:
        known = ObjectVersion(version, "etag", 1)
        return world.index.describe(location, collection, known, lambda: description)

    def shown() -> tuple[Any, str | None]:
        document = world.catalog.document(Scope(world.tenant), location.document_id)
        return document.metadata, document.metadata_error

    assert describe(Description({"year": 2021}))
    assert shown() == ({"year": 2021}, None)
    assert describe(Description(error="torn"))
    assert shown() == ({"year": 2021}, "torn")
    assert not describe(Description(error="torn"))
    assert not describe(Description({"year": 1}), version="v2")  # which its own ingest will describe
    world.index.begin(location, collection, ObjectVersion("v2", "etag", 1), Delivery("m"))
    assert not describe(Description({"year": 1}), version="v2")
    assert shown() == ({"year": 2021}, "torn")
    world.put("note.txt", "text", version="v2")
    assert shown() == ({}, None)
    assert world.superuser("select * from chunks") == chunks


def test_whoever_reads_metadata_later_under_the_lock_writes_it_later(world: World) -> None:
    location = world.put("note.txt", "text")
    collection = world.index.collection(location, create=False)
    assert collection is not None
    other = connect(world.database, "rag_ingest")
    bucket, reading, waiting = [{"year": 1}], threading.Event(), "select count(*) from pg_locks where not granted"

    def slowly() -> Description:
        read = Description(bucket[0])
        reading.set()
        while world.superuser(waiting) == [(0,)]:
            pass
        return read

    def describe(index: IndexStore, read: Callable[[], Description]) -> None:
        index.describe(location, collection, ObjectVersion("v1", "etag", 1), read)

    first = threading.Thread(target=describe, args=(world.index, slowly))
    first.start()
    assert reading.wait(60)
    bucket[0] = {"year": 2}
    describe(IndexStore(other, SPACE), lambda: Description(bucket[0]))
    first.join()
    other.close()
    assert world.catalog.document(Scope(world.tenant), location.document_id).metadata == {"year": 2}


def test_a_tenant_sees_nothing_of_another_by_any_read(world: World) -> None:
    location = world.put("secret.txt", "the launch code is orange")
    stranger, _ = world.tenants.create("second")
    world.put("mine.txt", "unrelated", tenant=stranger)
    assert {hit.key for hit in world.find("launch code orange", tenant=stranger)} == {"mine.txt"}
    assert [document.key for document in world.catalog.documents(Scope(stranger), DocumentQuery())] == ["mine.txt"]
    assert [item.document_count for item in world.catalog.collections(Scope(stranger))] == [1]
    with pytest.raises(NotFoundError):
        world.catalog.document(Scope(stranger), location.document_id)


@pytest.mark.parametrize("table", ["documents", "chunks", "embeddings"])
def test_the_query_role_cannot_write_what_ingest_owns(world: World, table: str) -> None:
    with (
        psycopg.connect(world.database.dsn("rag_query"), autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(sql.SQL("delete from {}").format(sql.Identifier(table)))


def test_a_row_for_another_tenant_is_refused(world: World) -> None:
    stranger, _ = world.tenants.create("second")

    def work(transaction: Transaction) -> None:
        transaction.run("announce", documents=[uuid.uuid4()], collection=1, keys=["x"], tenant=stranger)

    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        world.index.database.write(Scope(world.tenant), work)


def test_a_lost_connection_is_made_again_unnoticed(world: World) -> None:
    world.put("kept.txt", "still here")
    cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename like 'rag\\_%'"
    assert world.superuser(cut)[0][0] >= 2
    assert [hit.content for hit in world.find("here")] == ["still here"]


def test_a_database_that_is_away_is_a_typed_error() -> None:
    away = Database("postgresql://rag_query@127.0.0.1:1/rag", lambda: "x")
    with pytest.raises(UnavailableError):
        away.read(Scope(uuid.uuid4()), lambda transaction: transaction.rows("alive"))
    assert not away.alive()


def test_a_chunk_finds_its_document_by_its_key_before_anything_was_analysed(world: World) -> None:
    # What a foreign key asks for each row; its plan is kept for as long as the session.
    asked = "explain (generic_plan) select 1 from only documents x where tenant_id = $1 and id = $2 for key share of x"
    assert world.superuser("select reltuples from pg_class where relname = 'documents'") == [(-1,)]
    assert "documents_pkey" in str(world.superuser(asked))


def test_no_statement_is_prepared_on_the_server(world: World) -> None:
    for _ in range(10):
        world.find("anything")
    with world.search.database._connection() as connection:
        assert connection.execute("select count(*) from pg_prepared_statements").fetchall() == [(0,)]


def test_a_key_names_its_tenant_and_a_wrong_one_nobody(world: World) -> None:
    caller = world.keys.caller(world.key)
    assert (caller.tenant_id, caller.role) == (world.tenant, "admin")
    _, other = world.tenants.create("second")
    mixed = world.key.split(".")[0] + "." + other.split(".")[1]
    for wrong in (mixed, world.key[:-1], "", "rag_nothing.here", world.key + "x"):
        with pytest.raises(NotAuthorizedError):
            world.keys.caller(wrong)


def test_a_revoked_or_expired_key_is_refused(world: World) -> None:
    for column in ("revoked_at", "expires_at"):
        _, key = world.tenants.create(column)
        with psycopg.connect(world.database.superuser_dsn(), autocommit=True) as connection:
            expire = sql.SQL("update api_keys set {} = now() where id = %s").format(sql.Identifier(column))
            connection.execute(expire, [key[4:12]])
        with pytest.raises(NotAuthorizedError):
            world.keys.caller(key)


def test_two_tenants_cannot_share_a_name(world: World) -> None:
    with pytest.raises(InvalidRequestError, match="first"):
        world.tenants.create("first")


def test_vectors_of_two_models_are_never_compared(world: World) -> None:
    world.put("here.txt", "text")
    other = SearchStore(world.search.database, EmbeddingSpace("another-model", 4))
    with pytest.raises(ConflictError, match=r"test-model .* another-model"):
        replace(world, search=other).find("text")


def test_a_page_of_documents_continues_after_its_last(world: World) -> None:
    for number in range(7):
        world.put(f"{number}.txt", "text", collection="b" if number % 2 else "a")
    seen: list[tuple[str, str]] = []
    while True:
        page = world.catalog.documents(Scope(world.tenant), DocumentQuery(after=seen[-1] if seen else None, limit=3))
        if not page:
            break
        seen += [(document.collection, document.key) for document in page]
    assert seen == [("a", f"{n}.txt") for n in (0, 2, 4, 6)] + [("b", f"{n}.txt") for n in (1, 3, 5)]


def test_migrating_again_changes_nothing_and_an_edited_file_is_noticed(database: Any) -> None:
    assert migrate(database.dsn("rag_owner")) == []
    with psycopg.connect(database.superuser_dsn(), autocommit=True) as connection:
        connection.execute("update schema_migrations set digest = 'other'")
    with pytest.raises(MigrationError, match="0001"):
        migrate(database.dsn("rag_owner"))


def test_an_unknown_tenant_gets_no_collection(world: World) -> None:
    with pytest.raises(NotFoundError):
        world.index.collection(world.place("x.txt", tenant=uuid.uuid4()), create=True)
