"""Statements with optional parts."""

from __future__ import annotations

import itertools

import pytest

from rag.store.statements import statement, statements

PARTS = ("dense", "lexical", "filtered", "within", "passages")
EVERY = [frozenset(some) for count in range(6) for some in itertools.combinations(PARTS, count)]


@pytest.mark.parametrize("name", ["exact_candidates", "indexed_candidates"])
@pytest.mark.parametrize("parts", EVERY, ids=lambda parts: " ".join(sorted(parts)) or "none")
def test_what_is_not_asked_for_is_not_sent(name: str, parts: frozenset[str]) -> None:
    sql = statement(name, 384, parts).decode()
    assert ("%(embedding)s" in sql) == ("dense" in parts)
    assert ("%(question)s" in sql) == ("lexical" in parts)
    assert ("wanted" in sql) == ("filtered" in parts)
    assert ("union all" in sql) == ({"dense", "lexical"} <= parts)
    assert (
        sql.count("c.position, c.content")
        == sql.count("join documents o")
        == ("passages" in parts) * len(parts & {"dense", "lexical"})
    )
    assert sql.count("(") == sql.count(")")
    assert "--" not in sql
    assert "{" not in sql


def test_every_part_is_there_to_be_looked_at() -> None:
    whole = statements()["exact_candidates"]
    assert "0::float8" in whole
    assert "%(within)s" in whole
