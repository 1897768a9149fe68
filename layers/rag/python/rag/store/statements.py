"""Statements by name, out of `rag/sql/queries.sql`."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_NAME = re.compile(r"^-- (\w+) --$", re.MULTILINE)
_PART = re.compile(r"\{(\w+)\}")
_WIDTH = "{width}"


@cache
def statements() -> dict[str, str]:
    """Name → SQL, comments left out; `{name}` stands for a text that several share and that is none by itself."""
    text = files("rag").joinpath("sql/queries.sql").read_text(encoding="utf-8")
    _, *parts = _NAME.split(text)
    plain = {name: _without_comments(sql) for name, sql in zip(parts[::2], parts[1::2], strict=True)}
    shared = {part for sql in plain.values() for part in _PART.findall(sql)}
    whole = {name: _PART.sub(lambda part: plain.get(part[1], part[0]), sql) for name, sql in plain.items()}
    return {name: sql for name, sql in whole.items() if name not in shared}


@cache
def statement(name: str, width: int | None = None) -> bytes:
    """The statement as psycopg takes it; `width` is of the vectors that it casts, and no parameter can be.

    Bytes, because it takes text only when it is a literal of the program.
    """
    sql = statements()[name]
    return (sql if width is None else sql.replace(_WIDTH, f"{width:d}")).encode()


def _without_comments(sql: str) -> str:
    lines = [line for line in sql.strip().splitlines() if not line.startswith("--")]
    return "\n".join(lines)
