"""Statements as they are sent."""

from __future__ import annotations

from rag.store.statements import statements


def test_a_text_that_several_statements_share_stands_whole_in_each_and_is_none_itself() -> None:
    assert "wanted" not in statements()
    using = {name for name, sql in statements().items() if "%(filtered)s and tenant_id" in sql}
    assert using == {"filtered_chunks", "filtered_candidates", "whereabouts"}


def test_nothing_but_sql_is_sent() -> None:
    assert [name for name, sql in statements().items() if "--" in sql or "{w" in sql] == []
