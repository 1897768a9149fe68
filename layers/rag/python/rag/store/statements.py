"""Statements by name, out of `rag/sql/queries.sql`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files

_NAME = re.compile(r"^-- (\w+) --$", re.MULTILINE)
_TEXT = re.compile(r"\{(\w+)\}")
_WIDTH = "{width}"
_WHEN, _ELSE, _END = "-- when ", "-- else", "-- end"
_MARK = re.compile(rf"{_WHEN}\w+|{_ELSE}|{_END}")

NO_PARTS: frozenset[str] = frozenset()


@cache
def statements() -> dict[str, str]:
    """Name → SQL with every part of it; `{name}` stands for a text that several share and that is none by itself."""
    return {name: "\n".join(_lines(sql, lambda _: True, both=True)) for name, sql in _whole().items()}


@cache
def statement(name: str, width: int | None = None, parts: frozenset[str] = NO_PARTS) -> bytes:
    """The statement as psycopg takes it, with these of its optional parts.

    `width` is of the vectors that it casts, and no parameter can be. Bytes, because psycopg takes text only when it is
    a literal of the program.
    """
    sql = "\n".join(_lines(_whole()[name], parts.__contains__))
    return (sql if width is None else sql.replace(_WIDTH, f"{width:d}")).encode()


@cache
def _whole() -> dict[str, str]:
    text = files("rag").joinpath("sql/queries.sql").read_text(encoding="utf-8")
    _, *found = _NAME.split(text)
    plain = {name: _without_comments(sql) for name, sql in zip(found[::2], found[1::2], strict=True)}
    shared = {part for sql in plain.values() for part in _TEXT.findall(sql)}

    def whole(sql: str) -> str:
        return _TEXT.sub(lambda part: whole(plain[part[1]]) if part[1] in plain else part[0], sql)

    return {name: whole(sql) for name, sql in plain.items() if name not in shared}


def _lines(sql: str, wanted: Callable[[str], bool], *, both: bool = False) -> Iterator[str]:
    """The lines to be sent; with `both`, those of `else` as well."""
    kept: list[bool] = []
    for line in sql.splitlines():
        mark = line.strip()
        if mark.startswith(_WHEN):
            kept.append(wanted(mark.removeprefix(_WHEN)))
        elif mark == _ELSE:
            kept[-1] = both or not kept[-1]
        elif mark == _END:
            kept.pop()
        elif all(kept):
            yield line


def _without_comments(sql: str) -> str:
    """All lines but comments; marks of optional parts are none."""
    lines = sql.strip().splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("--") or _MARK.fullmatch(line.strip()))
