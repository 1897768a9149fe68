"""Statements by name, out of `rag/sql/queries.sql`."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_NAME = re.compile(r"^-- (\w+) --$", re.MULTILINE)


@cache
def statements() -> dict[str, bytes]:
    """Name → SQL, comments left out; bytes, because psycopg takes text only when it is a literal of the program."""
    text = files("rag").joinpath("sql/queries.sql").read_text(encoding="utf-8")
    _, *parts = _NAME.split(text)
    return {name: _without_comments(sql) for name, sql in zip(parts[::2], parts[1::2], strict=True)}


def statement(name: str) -> bytes:
    return statements()[name]


def _without_comments(sql: str) -> bytes:
    lines = [line for line in sql.strip().splitlines() if not line.startswith("--")]
    return "\n".join(lines).encode()
