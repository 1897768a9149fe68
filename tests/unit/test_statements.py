"""Statements as they are sent."""

from __future__ import annotations

from rag.store.statements import statements


def test_a_text_that_several_statements_share_stands_whole_in_each_and_is_none_itself() -> None:
    assert "attempt_of_document" not in statements()
    using = {name for name, sql in statements().items() if "record_attempt(" in sql}
    assert using == {"leave_document", "record_ingestion"}


def test_nothing_but_sql_is_sent() -> None:
    assert [name for name, sql in statements().items() if "--" in sql or "{c" in sql] == []
