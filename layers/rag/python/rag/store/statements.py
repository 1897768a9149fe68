"""Statements by name, out of `rag/sql/queries.sql`."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_NAME = re.compile(r"^-- (\w+) --$", re.MULTILINE)
_TEXT = re.compile(r"\{(\w+)\}")


@cache
def statements() -> dict[str, str]:
    """Name → SQL; `{name}` stands for a text that several share and that is none by itself."""
    text = files("rag").joinpath("sql/queries.sql").read_text(encoding="utf-8")
    _, *found = _NAME.split(text)
    plain = {name: _without_comments(sql) for name, sql in zip(found[::2], found[1::2], strict=True)}
    shared = {part for sql in plain.values() for part in _TEXT.findall(sql)}

    def whole(sql: str) -> str:
        return _TEXT.sub(lambda part: whole(plain[part[1]]) if part[1] in plain else part[0], sql)

    return {name: whole(sql) for name, sql in plain.items() if name not in shared}


@cache
def statement(name: str) -> bytes:
    """The statement as psycopg takes it: bytes, because it takes text only when that is a literal of the program."""
    return statements()[name].encode()


def _without_comments(sql: str) -> str:
    return "\n".join(line for line in sql.strip().splitlines() if not line.lstrip().startswith("--"))
