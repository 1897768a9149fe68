"""Filters on a real PostgreSQL: what they let through is what a reference in Python lets through."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.query import filters
from rag.migrations import ensure_space
from rag.store.access import TenantStore
from rag.store.database import Database
from rag.store.filters import parameter
from rag.types import EmbeddingSpace
from tests.scopes import ALL_OF

SPACE = EmbeddingSpace("test-model", 4)
START = datetime(2026, 1, 1, tzinfo=UTC)

# Few of each, so that values meet; with quotes and dollars, which a jsonpath takes for its own.
NAMES = st.sampled_from(["a.b-c", "key"])
STRINGS = st.sampled_from(
    ["", "a", "ab", "B", "é", "e\u0301", '"', "\\", "$v0", "1", "true", "\N{PARTY POPPER}", "\uffff"]
)
NUMBERS = st.sampled_from([-1, 0, 1, 1.5, 2, 1e300, 5e-324, 2**53, 0.1 + 0.2, 0.3])
SCALARS = STRINGS | NUMBERS | st.booleans()
METADATA = st.dictionaries(NAMES, SCALARS | st.lists(STRINGS, max_size=3), max_size=4)
ORDER = st.sampled_from(["gte", "gt", "lte", "lt"])
TERMS = st.one_of(
    SCALARS,
    st.builds(lambda value: {"eq": value}, SCALARS),
    st.dictionaries(ORDER, STRINGS | NUMBERS, min_size=1, max_size=2),
    st.dictionaries(st.sampled_from(["any", "all"]), st.lists(SCALARS, min_size=1, max_size=3), min_size=1),
    st.builds(lambda value: {"exists": value}, st.booleans()),
    st.builds(lambda value: {"prefix": value}, STRINGS.filter(bool)),
)


def negatable(terms: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    single = terms.filter(lambda term: not isinstance(term, dict) or len(term) == 1)
    return terms | st.builds(lambda term: {"not": term}, single)


OF_METADATA = st.dictionaries(
    NAMES.map(lambda name: "metadata.key" if name == "key" else name), negatable(TERMS), min_size=1, max_size=2
)
NUMBER = st.integers(0, 4)
TEXTS = st.sampled_from(["0.txt", "1.txt", "2.TXT", "Title 1", "text/plain", "a/b"])
OF_TEXT = st.one_of(
    TEXTS,
    st.dictionaries(ORDER, TEXTS, min_size=1, max_size=2),
    st.builds(lambda values: {"any": values}, st.lists(TEXTS, min_size=1, max_size=3)),
    st.builds(lambda value: {"prefix": value[:3]}, TEXTS),
    st.builds(lambda value: {"exists": value}, st.booleans()),
)
OF_INSTANT = st.dictionaries(
    ORDER, st.builds(lambda day: (START + timedelta(days=day)).isoformat(), NUMBER), min_size=1
)
IDS = st.builds(lambda number: str(uuid.UUID(int=number)), NUMBER)
OF_IDENTITY = IDS | st.builds(lambda values: {"any": values, "eq": values[0]}, st.lists(IDS, min_size=1, max_size=3))
OF_DOCUMENT = st.one_of(
    st.builds(lambda term: {"document_id": term}, negatable(OF_IDENTITY)),
    st.dictionaries(st.sampled_from(["key", "media_type", "title"]), negatable(OF_TEXT), min_size=1, max_size=2),
    st.dictionaries(st.sampled_from(["created_at", "updated_at"]), negatable(OF_INSTANT), min_size=1, max_size=2),
)
FILTERS = (
    OF_METADATA | OF_METADATA | OF_DOCUMENT | st.builds(lambda own, users: {**own, **users}, OF_DOCUMENT, OF_METADATA)
)
DOCUMENTS = st.lists(st.tuples(st.none() | TEXTS, st.none() | TEXTS, NUMBER, NUMBER, METADATA), min_size=1, max_size=5)


# The reference

Document = dict[str, Any]


def fits(document: Document, given: dict[str, Any]) -> bool:
    return all(
        holds(values_of(document, field), operator, value)
        for field, term in given.items()
        for operator, value in (term if isinstance(term, dict) else {"eq": term}).items()
    )


def values_of(document: Document, field: str) -> list[Any] | None:
    """All values of a field, of which one must fit; None when there is no such field."""
    found = (
        document["metadata"].get(field.removeprefix("metadata.")) if field not in filters.FIELDS else document[field]
    )
    return found if isinstance(found, list) or found is None else [found]


def holds(values: list[Any] | None, operator: str, wanted: Any) -> bool:
    match operator:
        case "not":
            [(inner, value)] = (wanted if isinstance(wanted, dict) else {"eq": wanted}).items()
            return not holds(values, inner, value)
        case "exists":
            return (values is not None) == wanted
        case "all":
            return all(holds(values, "eq", one) for one in wanted)
        case "any":
            return any(holds(values, "eq", one) for one in wanted)
    return any(COMPARISONS[operator](value, wanted) for value in values or [] if kind(value) == kind(wanted))


def kind(value: Any) -> str:
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda value, wanted: bool(value == wanted),
    "gte": lambda value, wanted: bool(value >= wanted),
    "gt": lambda value, wanted: bool(value > wanted),
    "lte": lambda value, wanted: bool(value <= wanted),
    "lt": lambda value, wanted: bool(value < wanted),
    "prefix": lambda value, wanted: value.startswith(wanted),
}


def instants(given: dict[str, Any]) -> dict[str, Any]:
    """The filter with its times as the documents of the reference have them."""

    def read(term: Any) -> Any:
        return {op: read(one) if op == "not" else datetime.fromisoformat(one) for op, one in term.items()}

    return {field: read(term) if field.endswith("_at") else term for field, term in given.items()}


# The database


class Collection:
    """A collection whose documents are what a test says; each holds one chunk, so far as its row tells."""

    def __init__(self, database: Any) -> None:
        ensure_space(database.dsn("rag_owner"), SPACE)
        admin = Database(database.url("rag_admin"), lambda: database.passwords["rag_admin"])
        self.tenant, _ = TenantStore(admin, SPACE).create("first")
        admin.close()
        self.reader = psycopg.connect(database.dsn("rag_query"), autocommit=True)
        self.superuser = psycopg.connect(database.superuser_dsn(), autocommit=True)
        [(self.id,)] = self.superuser.execute("select id from collections").fetchall()

    def hold(self, documents: list[Document]) -> None:
        with self.superuser.cursor() as cursor:
            cursor.execute("delete from documents")
            cursor.executemany(
                "insert into documents (tenant_id, collection_id, status, chunk_count, id, key, title, media_type,"
                " created_at, updated_at, metadata) values (%s, %s, 'ready', 1, %s, %s, %s, %s, %s, %s, %s)",
                [(self.tenant, self.id, *list(one.values())[:-1], json.dumps(one["metadata"])) for one in documents],
            )

    def found(self, given: dict[str, Any]) -> set[uuid.UUID]:
        with self.reader.transaction():
            self.reader.execute(ALL_OF, [str(self.tenant)])
            wanted = parameter(filters.read(given)) or "{}"
            rows = self.reader.execute("select id from filtered_documents(%s, %s::jsonb)", [self.id, wanted]).fetchall()
        assert len({identity for (identity,) in rows}) == len(rows)
        return {identity for (identity,) in rows}


@pytest.fixture
def collection(database: Any) -> Iterator[Collection]:
    opened = Collection(database)
    yield opened
    opened.reader.close()
    opened.superuser.close()


def document(
    number: int, title: str | None, media_type: str | None, made: int, changed: int, metadata: Any
) -> Document:
    return {
        "document_id": uuid.UUID(int=number),
        "key": f"{number}.txt",
        "title": title,
        "media_type": media_type,
        "created_at": START + timedelta(days=made),
        "updated_at": START + timedelta(days=changed),
        "metadata": metadata,
    }


def test_a_filter_lets_through_what_the_reference_lets_through(collection: Collection) -> None:
    @settings(max_examples=200)
    @given(DOCUMENTS, FILTERS)
    def compare(rows: list[Any], given: dict[str, Any]) -> None:
        documents = [document(number, *row) for number, row in enumerate(rows)]
        collection.hold(documents)
        wanted = instants(given)
        as_text = [{**one, "document_id": str(one["document_id"])} for one in documents]
        expected = {uuid.UUID(one["document_id"]) for one in as_text if fits(one, wanted)}
        assert collection.found(given) == expected

    compare()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"year": {"gte": 2020}}, {0}),
        ({"year": {"gte": 2020}, "tags": {"any": ["a", "b"]}, "key": {"prefix": "0"}, "lang": "en"}, {0}),
        ({"year": {"not": {"gte": 2020}}}, {1, 2}),  # a document without a year is not of 2020 or later
        ({"year": "2021"}, set()),  # a number is no text
        ({"tags": "b"}, {0}),  # a list has what one of its items is
        ({"tags": {"all": ["a", "b"]}}, {0}),
        ({"tags": {"exists": True}}, {0, 1}),
        ({"tags": {"exists": False}}, {2}),
        ({"published": {"gte": "2026-01", "lt": "2027"}}, {1}),  # texts in the order of their characters
        ({"metadata.key": "mine"}, {2}),
        ({"title": {"exists": False}}, {1, 2}),
        ({"created_at": {"gte": "2026-01-02", "lt": "2026-01-03"}}, {1}),
        ({"lang": 'en" || true || "'}, set()),
    ],
    ids=str,
)
def test_a_filter_chooses_documents(collection: Collection, given: dict[str, Any], expected: set[int]) -> None:
    users: list[Any] = [
        {"year": 2021, "tags": ["a", "b"], "lang": "en"},
        {"year": 1999, "tags": ["a"], "published": "2026-03-01"},
        {"key": "mine", "lang": "de"},
    ]
    titles = ["First", None, None]
    collection.hold([document(n, titles[n], None, n, n, metadata) for n, metadata in enumerate(users)])
    assert {identity.int for identity in collection.found(given)} == expected
