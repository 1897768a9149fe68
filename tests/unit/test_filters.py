"""The language of filters: what it means, and what is refused at which place."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from functions.query.filters import FilterError, read
from rag.types import Condition

IDENTITY = "6f1d3c1e-54b5-5b6e-9c63-0b9f2a1d7c55"
DAY = 24 * 3600 * 1_000_000


@pytest.mark.parametrize(
    ("given", "conditions"),
    [
        ({}, []),
        ({"lang": "en"}, [Condition("lang", "eq", "en")]),
        ({"lang": {"eq": "en"}}, [Condition("lang", "eq", "en")]),
        ({"open": True}, [Condition("open", "eq", value=True)]),
        ({"year": {"gte": 2020, "lt": 2.5e3}}, [Condition("year", "gte", 2020), Condition("year", "lt", 2500.0)]),
        ({"tags": {"any": ["a", "b"]}}, [Condition("tags", "any", ("a", "b"))]),
        ({"tags": {"all": ["a"]}}, [Condition("tags", "all", ("a",))]),
        ({"tags": {"exists": False}}, [Condition("tags", "exists", value=False)]),
        ({"lang": {"not": "en"}}, [Condition("lang", "eq", "en", negated=True)]),
        ({"lang": {"not": {"any": ["en", "de"]}}}, [Condition("lang", "any", ("en", "de"), negated=True)]),
        ({"key": {"prefix": "reports/"}}, [Condition("key", "prefix", "reports/", of_document=True)]),
        ({"metadata.key": "x"}, [Condition("key", "eq", "x")]),
        ({"metadata.metadata.key": "x"}, [Condition("metadata.key", "eq", "x")]),
        ({"metadata": "x"}, [Condition("metadata", "eq", "x")]),
        ({"document_id": IDENTITY.upper()}, [Condition("document_id", "eq", IDENTITY, of_document=True)]),
        ({"created_at": {"gt": "1970-01-02"}}, [Condition("created_at", "gt", DAY, of_document=True)]),
        ({"updated_at": {"lt": "1970-01-01T01:00+01:00"}}, [Condition("updated_at", "lt", 0, of_document=True)]),
        ({"created_at": {"gte": "1970-01-01T00:00:00.000007Z"}}, [Condition("created_at", "gte", 7, of_document=True)]),
    ],
    ids=str,
)
def test_a_filter_means_its_conditions(given: Any, conditions: list[Condition]) -> None:
    assert list(read(given).conditions) == conditions


@pytest.mark.parametrize(
    ("given", "path", "reason"),
    [
        ([], (), "must be an object"),
        ({f"n{number}": 1 for number in range(21)}, (), "has 21 conditions, 20 at most"),
        ({"no name": 1}, ("no name",), "nor a name that metadata may have"),
        ({"metadata.": 1}, ("metadata.",), "nor a name"),
        ({"year": {}}, ("year",), "names no operator: all, any, eq"),
        ({"year": None}, ("year",), "must be a string, a number or a boolean"),
        ({"tags": ["a"]}, ("tags",), "must not be a list: use all, any"),
        ({"year": {"between": [1, 2]}}, ("year", "between"), "is no operator of this field"),
        ({"key": {"all": ["a"]}}, ("key", "all"), "is no operator of this field: any, eq, exists"),
        ({"document_id": {"gt": IDENTITY}}, ("document_id", "gt"), "is no operator of this field: any, eq, not"),
        ({"document_id": "1"}, ("document_id",), "must be the id of a document"),
        ({"key": 1}, ("key",), "must be a string"),
        ({"key": "a\0b"}, ("key",), "must not contain NUL"),
        ({"year": {"gte": True}}, ("year", "gte"), "must be a number or a string"),
        ({"year": {"gte": float("nan")}}, ("year", "gte"), "must be a finite number"),
        ({"year": {"gte": [1]}}, ("year", "gte"), "must not be a list"),
        ({"tags": {"any": []}}, ("tags", "any"), "must be a list of 1 to 100 values"),
        ({"tags": {"any": ["a"] * 101}}, ("tags", "any"), "must be a list of 1 to 100 values"),
        ({"metadata.key": {"any": ["a"] * 101}}, ("metadata.key", "any"), "must be a list of 1 to 100 values"),
        ({"tags": {"any": "a"}}, ("tags", "any"), "must be a list"),
        ({"tags": {"any": [["a"]]}}, ("tags", "any"), "must be a string, a number or a boolean"),
        ({"tags": {"exists": 1}}, ("tags", "exists"), "must be true or false"),
        ({"lang": {"prefix": ""}}, ("lang", "prefix"), "must not be empty"),
        ({"lang": {"prefix": 1}}, ("lang", "prefix"), "must be a string"),
        ({"lang": {"not": {"not": "en"}}}, ("lang", "not"), "takes a value or one operator"),
        ({"year": {"not": {"gte": 1, "lt": 2}}}, ("year", "not"), "takes a value or one operator"),
        ({"year": {"not": {"gte": True}}}, ("year", "not", "gte"), "must be a number or a string"),
        ({"created_at": {"gte": "yesterday"}}, ("created_at", "gte"), "must be a date or a time in ISO 8601"),
        ({"created_at": {"gte": 2020}}, ("created_at", "gte"), "must be a date or a time in ISO 8601"),
        ({"created_at": {"exists": True}}, ("created_at", "exists"), "is no operator of this field"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named_by_field_and_operator(given: Any, path: tuple[str, ...], reason: str) -> None:
    with pytest.raises(FilterError) as error:
        read(given)
    assert (error.value.path, reason in str(error.value)) == (path, True), str(error.value)


def test_ids_and_keys_may_be_many() -> None:
    ids = [str(uuid.UUID(int=number)) for number in range(1000)]
    assert len(read({"document_id": {"any": ids}}).conditions) == 1
    assert len(read({"key": {"any": ids}}).conditions) == 1
    for given in ({"key": {"any": [*ids, "x"]}}, {"key": {"not": {"any": ids}}}):
        with pytest.raises(FilterError):
            read(given)
