"""Statements as they are sent."""

from __future__ import annotations

from rag.store.statements import statements


def test_a_text_that_several_statements_share_stands_whole_in_each_and_is_none_itself() -> None:
    assert "counted" not in statements()
    using = {name for name, sql in statements().items() if "from gone, unnest(lexemes)" in sql}
    assert using == {"delete_chunks", "finish_document"}


def test_nothing_but_sql_is_sent() -> None:
    assert [name for name, sql in statements().items() if "--" in sql or "{c" in sql] == []
