"""What callers see of a tenant: as a model says it, whatever happened before, on whichever connection."""

from __future__ import annotations

import random
import threading
import uuid
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psycopg
import pytest
from hypothesis import seed as seeded
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from pgvector import HalfVector

from rag import lexical, ranking
from rag.deadline import Deadline
from rag.errors import NotFoundError, UnavailableError
from rag.migrations import ensure_space
from rag.store.access import TenantStore
from rag.store.catalog import Catalog
from rag.store.database import Database, Transaction, connect
from rag.store.maintenance import IndexMaintenance
from rag.store.search import SearchStore, sparse
from rag.types import Caller, DocumentQuery, EmbeddingSpace, Filters, Location, Role, Scope

SPACE = EmbeddingSpace("test-model", 4)
SAID = "one word of every document"
PLAIN, INDEXED, LATER = "default", "indexed", "later"
COLLECTIONS = (PLAIN, INDEXED, LATER)
KEYS = tuple(f"{number}.txt" for number in range(4))

_CLEAR = (
    "delete from documents",
    "delete from chunks",
    "delete from embeddings",
    f"delete from collections where name = '{LATER}'",
)
_DOCUMENT = """
    insert into documents (tenant_id, id, collection_id, key, status, version_id, chunk_count, allowed_principals)
    values (%s, %s, %s, %s, 'ready', '1', %s, %s)
"""
_CHUNK = """
    insert into chunks (tenant_id, id, collection_id, document_id, position, content, content_hash, tokens, lexical,
      lexemes, lexeme_count)
    values (%s, %s, %s, %s, %s, %s, sha256(%s), 5, %s, %s, 5)
"""
_EMBEDDING = """
    insert into embeddings (tenant_id, space_id, chunk_id, collection_id, document_id, dimensions, embedding)
    values (%s, %s, %s, %s, %s, 4, %s)
"""


@dataclass
class Place:
    """Two tenants, each with a collection that is searched as it stands and one that has indexes."""

    database: Any
    reader: Database
    search: SearchStore
    catalog: Catalog
    superuser: psycopg.Connection[Any]
    tenants: Sequence[uuid.UUID]
    ids: dict[tuple[uuid.UUID, str], int] = field(default_factory=dict)
    steps: int = 0

    def put(self, location: Location, allowed: Sequence[str] | None, texts: Sequence[str] = (SAID,)) -> None:
        """Rows as ingest leaves them, whatever was there."""
        self.remove(location)
        tenant, document = location.tenant_id, location.document_id
        collection = self.ids[tenant, location.collection]
        run = self.superuser.execute
        run(
            _DOCUMENT, [tenant, document, collection, location.key, len(texts), None if allowed is None else [*allowed]]
        )
        for position, text in enumerate(texts):
            chunk, counts = uuid.uuid4(), lexical.analyse(text, "english")
            weights = sparse(lexical.weigh(counts))
            of = tenant, chunk, collection, document
            run(_CHUNK, [*of, position, text, f"{chunk}".encode(), weights, sorted(counts)])
            vector = HalfVector([random.random(), random.random(), 1, 1])
            run(_EMBEDDING, [tenant, 1, *of[1:], vector])

    def remove(self, location: Location) -> None:
        for table, column in (("embeddings", "document_id"), ("chunks", "document_id"), ("documents", "id")):
            self.superuser.execute(f"delete from {table} where {column} = %s".encode(), [location.document_id])

    def clear(self) -> None:
        for statement in _CLEAR:
            self.superuser.execute(statement.encode())
        self.learn()

    def learn(self) -> None:
        rows = self.superuser.execute("select tenant_id, name, id from collections").fetchall()
        self.ids = {(tenant, name): number for tenant, name, number in rows}

    def found(
        self, caller: Caller, collection: str, mode: Any, asked_about: uuid.UUID | None = None
    ) -> tuple[set[str], bool]:
        """Keys of all hits, and whether the search knows a document."""
        known = []

        def rank(candidates: Any, snapshot: Any) -> Any:
            if asked_about is not None:
                known.append(snapshot.whereabouts(asked_about) is not None)
            return ranking.fuse(candidates, mode=mode)

        hits = self.search.search(
            Scope.of(caller),
            collection,
            embedding=array("f", [0.5, 0.5, 1, 1]) if mode != "lexical" else None,
            lexemes=partial(lexical.ask, "word document"),
            rank=rank,
            mode=mode,
            filters=Filters(),
            depth=50,
            reads_more=asked_about is not None,
        ).hits
        return {hit.key for hit in hits}, any(known)


@pytest.fixture
def place(database: Any) -> Iterator[Place]:
    ensure_space(database.dsn("rag_owner"), SPACE)
    roles = ("rag_admin", "rag_query")
    admin, reader = (Database(database.url(role), partial(database.passwords.get, role)) for role in roles)
    superuser = connect(database.superuser_dsn())
    superuser.execute("set session_replication_role = replica")
    tenants = [TenantStore(admin, SPACE).create(name)[0] for name in ("first", "second")]
    opened = Place(database, reader, SearchStore(reader, SPACE), Catalog(reader, SPACE), superuser, tenants)
    for tenant in tenants:
        opened.catalog.create_collection(Scope(tenant), INDEXED, "english")
    opened.learn()
    for tenant in tenants:
        superuser.execute(
            "insert into collection_statistics (tenant_id, collection_id, document_count, chunk_count, lexeme_count)"
            " values (%s, %s, 1, 1, 5)",
            [tenant, opened.ids[tenant, INDEXED]],
        )
    made = IndexMaintenance(
        database.url("rag_owner"), lambda: database.passwords["rag_owner"], threshold=0, memory_mib=64
    )
    assert len(made.run(Deadline.after(60))) == 2 * len(tenants)
    yield opened
    for connection in (admin, reader, superuser):
        connection.close()


# --- one tenant's rows on a connection that was another's a moment ago ---


THREADS = 4


class _InterruptedError(Exception):
    """An error of the work itself."""


def _disturbed(transaction: Transaction, how: str, place: Place, other: Scope) -> None:
    connection = transaction._connection
    match how:
        case "exception":
            raise _InterruptedError
        case "nested":
            place.reader.read(other, lambda within: within.rows("list_collections", name=None))
        case "cancelled":
            connection.execute("select pg_cancel_backend(pg_backend_pid()), pg_sleep(1)")
        case "refused":
            transaction.rows("document", document="no id")
        case "lost":
            connection.execute("select pg_terminate_backend(pg_backend_pid())")
        case "switched":
            connection.execute("select set_config('app.tenant', %s, true)", [str(other.tenant_id)])


_ERRORS: Mapping[str, Any] = {
    "exception": _InterruptedError,
    "nested": RuntimeError,
    "cancelled": UnavailableError,
    "refused": psycopg.errors.InvalidTextRepresentation,
    "lost": UnavailableError,
    "switched": psycopg.errors.InsufficientPrivilege,
}


@pytest.mark.slow
def test_a_connection_shows_nothing_of_the_tenant_it_worked_for_before(
    place: Place, seed: int, record_attack: Callable[..., None], amount: Callable[[str], int]
) -> None:
    wanted = amount("switches of a pooled connection")
    names = {tenant: f"only-{number}" for number, tenant in enumerate(place.tenants)}
    for tenant, name in names.items():
        place.catalog.create_collection(Scope(tenant), name, "english")
    leaks, wrong, switches, backends = [], [], [], set()

    def switch(chance: random.Random) -> None:
        tenant, other = chance.sample(place.tenants, 2)
        how = chance.choices(["", *_ERRORS], [60, 10, 10, 2, 10, 1, 7])[0]
        run = chance.choice([place.reader.read, place.reader.write])

        def work(transaction: Transaction) -> None:
            first = transaction.first_rows if chance.random() < 0.5 else transaction.rows
            shown = {name for name, *_ in first("list_collections", name=None)}
            leaks.extend(shown & {names[other]})
            wrong.extend({names[tenant]} - shown)
            backends.add(transaction._connection.info.backend_pid)
            _disturbed(transaction, how, place, Scope(other))

        if how:
            with pytest.raises(_ERRORS[how]):
                run(Scope(tenant), work)
        else:
            run(Scope(tenant), work)
        switches.append(how)

    def many(number: int) -> None:
        chance = random.Random(f"{seed} {number}")
        for _ in range(wanted // THREADS):
            switch(chance)

    threads = [threading.Thread(target=many, args=[number]) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    disturbed = sum(map(bool, switches))
    figure = f"{disturbed:,} of them ended by an error or a change of tenant; {len(backends)} connections, leaks 0"
    record_attack("H3", tried=len(switches), succeeded=len(leaks), figure=figure)
    assert (len(switches), leaks, wrong) == (wanted, [], [])


# --- what a question remembers of its scope ---


def test_what_is_remembered_of_a_scope_counts_for_no_other(place: Place, record_attack: Callable[..., None]) -> None:
    first, second = place.tenants
    place.put(Location(first, PLAIN, "for-all.txt"), None)
    place.put(Location(first, PLAIN, "for-staff.txt"), ["group:staff"])
    place.put(Location(first, INDEXED, "for-all.txt"), None)
    place.put(Location(second, PLAIN, "for-all.txt"), None)
    # Tenant, identities, collections, and how many chunks they show.
    scopes = [
        (str(first), "*", "*", 3),
        (str(first), "{group:staff}", "*", 3),
        (str(first), "{key:1}", "*", 2),
        (str(first), "{key:1}", f"{{{PLAIN}}}", 1),
        (str(first), "{group:staff}", f"{{{PLAIN}}}", 2),
        (str(first), "{}", f"{{{INDEXED}}}", 1),
        (str(first), "{}", "{}", 0),
        (str(second), "{key:1}", "*", 1),
        (str(second), "{key:1}", f"{{{INDEXED}}}", 0),
        (str(first), "", "", 0),
        ("", "", "", 0),
    ]
    bind = (
        "select set_config('app.tenant', %s, true), set_config('app.identities', %s, true),"
        " set_config('app.collections', %s, true)"
    )
    wrong = []
    with psycopg.connect(place.database.dsn("rag_query"), autocommit=True) as connection:
        for remembered in scopes:
            for *asking, shown in scopes:
                connection.execute("begin")
                connection.execute(bind, remembered[:3])
                connection.execute("select remember_scope()")
                connection.execute(bind, asking)
                for table in ("chunks", "embeddings"):
                    [found] = connection.execute(f"select count(*) from {table}".encode()).fetchall()
                    wrong += [(remembered, asking, table, found)] if found != (shown,) else []
                connection.execute("commit")
                [left] = connection.execute("select count(*) from chunks").fetchall()
                wrong += [(remembered, "after it", left)] if left != (0,) else []
    figure = f"{len(scopes)} scopes after each other in one transaction, and nothing after it"
    record_attack("H2", tried=2 * len(scopes) ** 2, succeeded=len(wrong), figure=figure)
    assert wrong == []


# --- any history, any caller ---

IDENTITIES = ("key:1", "user:a", "group:staff", "group:legal")
CALLERS = st.tuples(
    st.sampled_from(["reader", "writer", "admin"]),
    st.sampled_from(["key:1", "key:2", "user:a"]),
    st.sampled_from([(), ("staff",), ("staff", "legal")]),
    st.sampled_from([None, None, (PLAIN,), (PLAIN, INDEXED), (LATER,)]),
)
# Nobody may see what says `[]`: it cannot be told yet who may.
ALLOWED = st.none() | st.lists(st.sampled_from(IDENTITIES), max_size=3, unique=True)
TENANTS = st.integers(0, 1)


class Machine(RuleBasedStateMachine):
    """Documents come, change hands and go; every caller sees what the model says, and nothing else."""

    place: Place

    def __init__(self) -> None:
        super().__init__()
        self.documents: dict[Location, Sequence[str] | None] = {}
        self.later: set[int] = set()

    @initialize()
    def begin(self) -> None:
        self.place.clear()

    def caller(self, tenant: int, who: tuple[Role, str, tuple[str, ...], tuple[str, ...] | None]) -> Caller:
        role, principal, groups, collections = who
        self.place.steps += 1
        return Caller(self.place.tenants[tenant], principal, role, collections, groups)

    def collections(self, caller: Caller) -> set[str]:
        there = {PLAIN, INDEXED} | ({LATER} if self.place.tenants.index(caller.tenant_id) in self.later else set())
        return there & set(COLLECTIONS if caller.collections is None else caller.collections)

    def visible(self, caller: Caller) -> set[Location]:
        mine = {caller.principal, *(f"group:{name}" for name in caller.groups)}
        return {
            location
            for location, allowed in self.documents.items()
            if location.tenant_id == caller.tenant_id
            and location.collection in self.collections(caller)
            and (allowed is None or caller.role == "admin" or mine & {*allowed})
        }

    def _location(self, tenant: int, collection: str, key: str) -> Location:
        return Location(self.place.tenants[tenant], collection, key)

    @rule(tenant=TENANTS, collection=st.sampled_from([PLAIN, INDEXED]), key=st.sampled_from(KEYS), allowed=ALLOWED)
    def put(self, tenant: int, collection: str, key: str, allowed: Sequence[str] | None) -> None:
        self.place.steps += 1
        location = self._location(tenant, collection, key)
        self.documents[location] = allowed
        self.place.put(location, allowed)

    @rule(tenant=TENANTS, collection=st.sampled_from([PLAIN, INDEXED]), key=st.sampled_from(KEYS), allowed=ALLOWED)
    def allow(self, tenant: int, collection: str, key: str, allowed: Sequence[str] | None) -> None:
        self.place.steps += 1
        location = self._location(tenant, collection, key)
        if location in self.documents:
            self.documents[location] = allowed
        self.place.superuser.execute(
            "update documents set allowed_principals = %s where id = %s", [allowed, location.document_id]
        )

    @rule(tenant=TENANTS, collection=st.sampled_from([PLAIN, INDEXED]), key=st.sampled_from(KEYS))
    def remove(self, tenant: int, collection: str, key: str) -> None:
        self.place.steps += 1
        location = self._location(tenant, collection, key)
        self.documents.pop(location, None)
        self.place.remove(location)

    @rule(tenant=TENANTS, who=CALLERS, name=st.sampled_from(COLLECTIONS))
    def create(self, tenant: int, who: Any, name: str) -> None:
        caller = self.caller(tenant, who)
        if caller.collections is not None and name not in caller.collections:
            with pytest.raises(NotFoundError):
                self.place.catalog.create_collection(Scope.of(caller), name, "english")
            return
        _, new = self.place.catalog.create_collection(Scope.of(caller), name, "english")
        assert new == (name == LATER and tenant not in self.later)
        if name == LATER:
            self.later.add(tenant)

    @rule(
        tenant=TENANTS,
        who=CALLERS,
        collection=st.sampled_from([PLAIN, INDEXED, INDEXED, LATER]),
        mode=st.sampled_from(["dense", "hybrid", "lexical"]),
        about=st.none() | st.tuples(TENANTS, st.sampled_from([PLAIN, INDEXED]), st.sampled_from(KEYS)),
    )
    def search(self, tenant: int, who: Any, collection: str, mode: Any, about: Any) -> None:
        caller = self.caller(tenant, who)
        asked_about = self._location(*about) if about else None
        if collection not in self.collections(caller):
            with pytest.raises(NotFoundError):
                self.place.found(caller, collection, mode)
            return
        visible = self.visible(caller)
        keys, known = self.place.found(caller, collection, mode, asked_about.document_id if asked_about else None)
        assert keys == {location.key for location in visible if location.collection == collection}
        assert known == (asked_about in visible)

    @rule(tenant=TENANTS, who=CALLERS)
    def listed(self, tenant: int, who: Any) -> None:
        caller = self.caller(tenant, who)
        shown = self.place.catalog.documents(Scope.of(caller), DocumentQuery())
        expected = sorted((location.collection, location.key) for location in self.visible(caller))
        assert [(document.collection, document.key) for document in shown] == expected
        names = [collection.name for collection in self.place.catalog.collections(Scope.of(caller))]
        assert names == sorted(self.collections(caller))

    @rule(
        tenant=TENANTS,
        who=CALLERS,
        of=TENANTS,
        collection=st.sampled_from([PLAIN, INDEXED]),
        key=st.sampled_from(KEYS),
    )
    def get(self, tenant: int, who: Any, of: int, collection: str, key: str) -> None:
        caller = self.caller(tenant, who)
        location = self._location(of, collection, key)
        if location in self.visible(caller):
            assert self.place.catalog.document(Scope.of(caller), location.document_id).key == key
        else:
            with pytest.raises(NotFoundError, match=f"^there is no document {location.document_id}$"):
                self.place.catalog.document(Scope.of(caller), location.document_id)


STEPS_EACH = 100


@pytest.mark.slow
def test_every_caller_sees_what_the_model_says_after_any_history(
    place: Place, seed: int, record_attack: Callable[..., None], amount: Callable[[str], int]
) -> None:
    wanted = amount("steps of any history")
    chosen = settings(max_examples=20, stateful_step_count=STEPS_EACH, database=None)
    rounds = 0
    while place.steps < wanted:
        made = type("Machine", (Machine,), {"place": place})
        run_state_machine_as_test(seeded(seed + rounds)(made), settings=chosen)
        rounds += 1
    record_attack("H9", tried=place.steps, succeeded=0, figure="steps; seen otherwise than the model says 0")


# --- single promises ---


def test_what_a_scope_does_not_say_shows_nothing(place: Place) -> None:
    [tenant, _] = place.tenants
    place.put(Location(tenant, PLAIN, "all.txt"), None)
    place.put(Location(tenant, PLAIN, "staff.txt"), ["group:staff"])
    with psycopg.connect(place.database.dsn("rag_query"), autocommit=True) as connection:
        connection.execute("select set_config('app.tenant', %s, false)", [str(tenant)])
        for table in ("collections", "documents", "chunks", "embeddings", "collection_statistics"):
            assert connection.execute(f"select count(*) from {table}".encode()).fetchone() == (0,), table
        connection.execute("select set_config('app.collections', '*', false)")
        assert connection.execute("select key from documents").fetchall() == [("all.txt",)]


@pytest.mark.parametrize("collection", [PLAIN, INDEXED])
@pytest.mark.parametrize("mode", ["dense", "hybrid", "lexical"])
def test_lists_are_full_of_what_the_caller_may_see_however_much_there_is_besides(
    place: Place, collection: str, mode: Any
) -> None:
    [tenant, _] = place.tenants
    for number in range(300):
        allowed = None if number % 30 == 0 else ["group:staff"]
        place.put(Location(tenant, collection, f"{number}.txt"), allowed)
    keys, _ = place.found(Caller(tenant, "key:1", "reader"), collection, mode)
    assert keys == {f"{number}.txt" for number in range(0, 300, 30)}
    member = Caller(tenant, "key:1", "reader", groups=("staff",))
    assert len(place.found(member, collection, mode)[0]) >= 50


def test_a_change_of_who_may_see_a_document_holds_from_the_next_question_on(place: Place) -> None:
    [tenant, _] = place.tenants
    reader = Caller(tenant, "key:1", "reader")
    location = Location(tenant, PLAIN, "a.txt")
    for allowed, seen in ((None, {"a.txt"}), (["key:2"], set()), (["key:1"], {"a.txt"})):
        place.put(location, allowed)
        assert place.found(reader, PLAIN, "hybrid")[0] == seen


@pytest.mark.parametrize("allowed", [["group:a"] * 101, [None]])
def test_permissions_that_are_too_many_or_no_names_are_refused(place: Place, allowed: list[Any]) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        place.put(Location(place.tenants[0], PLAIN, "a.txt"), allowed)
