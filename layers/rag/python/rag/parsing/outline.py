"""From blocks in reading order to sections under headings: what every structured format is turned into."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from rag.types import Section

if TYPE_CHECKING:
    from collections.abc import Iterable

HEADING_SEPARATOR = " › "
_HEADING_WIDTH = 200


@dataclass(frozen=True, slots=True)
class Block:
    """A heading (`level` 1-9, 1 the highest) or body text (`level` 0); `compact` ones follow line by line."""

    text: str
    level: int = 0
    compact: bool = False


def sections(blocks: Iterable[Block], *, page: int | None = None) -> list[Section]:
    """One section per heading, with the path of headings that leads to it ("A › B"); its own line opens the text."""
    found: list[Section] = []
    path: list[Block] = []
    body: list[Block] = []
    for block in blocks:
        if not block.text.strip():
            continue
        if block.level:
            found += _section(body, path, page)
            path = [*(above for above in path if above.level < block.level), block]
            body = []
        body.append(block)
    return found + _section(body, path, page)


def first_heading(blocks: Iterable[Block]) -> str | None:
    """The text of the first heading of the highest level there is."""
    headings = [block for block in blocks if block.level]
    return _one_line(min(headings, key=lambda block: block.level).text) if headings else None


def _section(body: list[Block], path: list[Block], page: int | None) -> list[Section]:
    if not body:
        return []
    heading = HEADING_SEPARATOR.join(_one_line(block.text) for block in path)
    return [Section(text=_joined(body), page=page, heading=heading or None)]


def _joined(body: list[Block]) -> str:
    text = body[0].text
    for before, block in pairwise(body):
        text_break = "\n" if before.compact and block.compact else "\n\n"
        text += text_break + block.text
    return text


def _one_line(heading: str) -> str:
    return " ".join(heading.split())[:_HEADING_WIDTH]
