"""Passages of whole sentences, small enough to embed and to quote, each on one page and under one heading.

Sentences are packed greedily up to `target` tokens; a sentence is cut only where it alone exceeds `maximum`. Passages
do not overlap: each is indexed together with its document's title and its heading, which is what a passage out of
context lacks. Of a table whole rows are packed, each of which names its columns; the rest of a row that is too long is
indexed with the row's first cell and the name of the column that was cut. Every step is linear in the text; tokens are
counted in batches, of as many sections as are held at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

from rag.sentences import sentences
from rag.types import Chunk

T = TypeVar("T")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rag.types import Parsed, Section

    CountTokens = Callable[[Sequence[str]], list[int]]

_CONTEXT_TOKENS = 64
_TINY_TOKENS = 30
_HEADING_TOKENS = 15
_HEADING_SEPARATOR = " › "
_CONTEXT_SEPARATOR = " — "
# No tokenizer is asked about more at once, and a "word" of a megabyte, one unknown token to some, fills no passage.
_UNIT_CHARACTERS = 1000
_CHUNK_CHARACTERS = 4000
# Held at once: large enough for one call to count the tokens of an ordinary document.
_GROUP_CHARACTERS = 1_000_000
# What few words are joined to; without it a large document of nothing but small sections would be one passage.
_JOINED_CHARACTERS = 30_000
_CELL_CHARACTERS = 80
_CELL_END = re.compile(r" \| |\n+")
_BOUNDARY = re.compile(r"[,;:|)\]、，；：]\s*|\s+")


@dataclass(frozen=True, slots=True)
class _Unit:
    """A sentence, or a piece of one too long; or of the row that begins at `row`."""

    start: int
    end: int
    tokens: int = 0
    row: int | None = None


@dataclass(frozen=True, slots=True)
class _Passage:
    """A section, or small neighbours on one page joined, with its units."""

    text: str
    page: int | None
    heading: str | None
    units: tuple[_Unit, ...]

    @property
    def tokens(self) -> int:
        return _tokens(self.units)


def split(parsed: Parsed, *, count_tokens: CountTokens, target: int = 150, maximum: int = 250) -> Iterator[Chunk]:
    """The chunks of a document in reading order, positions from 0, each of at most `maximum` tokens with its context.

    `content` is a literal slice of the text of its section, or of small neighbouring sections of one page joined by a
    blank line; together the chunks hold everything but white space. `count_tokens` maps texts to numbers of tokens.
    """
    context_tokens = min(_CONTEXT_TOKENS, maximum // 4)
    room = maximum - context_tokens
    context = _Context(parsed.title, count_tokens, context_tokens)
    groups = (_passages(group, count_tokens, room) for group in _grouped(parsed.sections, _size_of_section))
    passages = _joined(chain.from_iterable(groups), min(_TINY_TOKENS, target // 4))
    pieces = (piece for passage in passages for piece in _packed(passage, min(target, room), room))
    position = 0
    for some in _grouped(pieces, _size_of_piece):
        context.prepare(piece.heading for piece in some)
        for chunk in _bounded([_chunk(piece, context) for piece in some], count_tokens, maximum):
            yield replace(chunk, position=position)
            position += 1


def _grouped(items: Iterable[T], size_of: Callable[[T], int]) -> Iterator[list[T]]:
    """The items in lists of about `_GROUP_CHARACTERS`."""
    group: list[T] = []
    size = 0
    for item in items:
        group.append(item)
        size += size_of(item) + 1
        if size >= _GROUP_CHARACTERS:
            yield group
            group, size = [], 0
    if group:
        yield group


def _size_of_section(section: Section) -> int:
    return len(section.text)


def _size_of_piece(piece: _Passage) -> int:
    return piece.units[-1].end - piece.units[0].start


def _passages(sections: Sequence[Section], count_tokens: CountTokens, room: int) -> list[_Passage]:
    uncounted = [_units(section) for section in sections]
    texts = [
        section.text[unit.start : unit.end]
        for section, found in zip(sections, uncounted, strict=True)
        for unit in found
    ]
    counts = iter(count_tokens(texts))
    passages = []
    for section, found in zip(sections, uncounted, strict=True):
        units = [_Unit(unit.start, unit.end, next(counts), unit.row) for unit in found]
        if any(unit.tokens > room for unit in units):
            units = _fitted(section.text, units, count_tokens, room)
        passages.append(_Passage(section.text, section.page, section.heading, tuple(units)))
    return [passage for passage in passages if passage.units]


def _units(section: Section) -> list[_Unit]:
    if section.rows is None:
        return [unit for span in sentences(section.text) for unit in _pieces(section.text, *span)]
    return [
        unit for start, end in _rows(section.text, section.rows) for unit in _pieces(section.text, start, end, start)
    ]


def _rows(text: str, separator: str) -> Iterator[tuple[int, int]]:
    start = 0
    while start < len(text):
        end = text.find(separator, start) % (len(text) + 1)
        if text[start:end].strip():
            yield start, end
        start = end + len(separator)


def _pieces(text: str, start: int, end: int, row: int | None = None) -> Iterator[_Unit]:
    """A span cut at cells, clauses or words so that no piece is longer than `_UNIT_CHARACTERS`."""
    while end - start > _UNIT_CHARACTERS:
        cut = _last_cell(text, start, start + _UNIT_CHARACTERS) if row is not None else None
        cut = cut or _last_boundary(text, start + _UNIT_CHARACTERS // 2, start + _UNIT_CHARACTERS)
        yield _Unit(start, cut, row=row)
        start = cut
    yield _Unit(start, end, row=row)


def _fitted(text: str, units: list[_Unit], count_tokens: CountTokens, room: int) -> list[_Unit]:
    """The units, each that exceeds `room` halved until none does: a dozen rounds, each counts new halves only."""
    while any(unit.tokens > room and unit.end - unit.start > 1 for unit in units):
        halves = [half for unit in units if unit.tokens > room for half in _halved(text, unit)]
        counts = iter(count_tokens([text[half.start : half.end] for half in halves]))
        fitted = []
        for unit in units:
            parts = _halved(text, unit) if unit.tokens > room else []
            fitted += [replace(part, tokens=next(counts)) for part in parts] or [unit]
        units = fitted
    return units


def _halved(text: str, unit: _Unit) -> list[_Unit]:
    length = unit.end - unit.start
    if length < 2:
        return [unit]
    middle = unit.start + max(1, length // 2)
    cut = None
    if unit.row is not None:
        after = _CELL_END.search(text, middle, unit.end - 1)
        cut = _last_cell(text, unit.start, middle) or (after and after.end())
    cut = cut or _last_boundary(text, unit.start + length // 4, middle)
    return [_Unit(unit.start, cut, row=unit.row), _Unit(cut, unit.end, row=unit.row)]


def _last_cell(text: str, low: int, high: int) -> int | None:
    """Where the last cell begins that begins between `low` and `high`."""
    begins = [cell.end() for cell in _CELL_END.finditer(text, low, high)]
    return begins[-1] if begins else None


def _last_boundary(text: str, low: int, high: int) -> int:
    """The end of the last clause or word that ends between `low` and `high`; `high` where none does."""
    cut = high
    for boundary in _BOUNDARY.finditer(text, low, high):
        cut = boundary.end()
    return cut


def _joined(passages: Iterable[_Passage], tiny: int) -> Iterator[_Passage]:
    """Passages of a few words, such as a heading alone, joined to their neighbour on the same page."""
    last: _Passage | None = None
    for passage in passages:
        if last is None:
            last = passage
        elif _belong_together(last, passage, tiny):
            last = _merged(last, passage)
        else:
            yield last
            last = passage
    if last is not None:
        yield last


def _belong_together(last: _Passage, passage: _Passage, tiny: int) -> bool:
    small = min(last.tokens, passage.tokens) < tiny and len(last.text) < _JOINED_CHARACTERS
    return small and last.page == passage.page


def _merged(first: _Passage, second: _Passage) -> _Passage:
    text = f"{first.text}\n\n{second.text}"
    shift = len(text) - len(second.text)
    moved = tuple(_moved(unit, shift) for unit in second.units)
    heading = (first if first.tokens > second.tokens else second).heading
    return _Passage(text, first.page, heading, first.units + moved)


def _moved(unit: _Unit, shift: int) -> _Unit:
    row = None if unit.row is None else unit.row + shift
    return _Unit(unit.start + shift, unit.end + shift, unit.tokens, row)


def _packed(passage: _Passage, target: int, room: int) -> Iterator[_Passage]:
    """The passage in runs of whole units: up to `target` tokens, more where the rest would be a few words."""
    packs: list[list[_Unit]] = [[]]
    tokens = 0
    for unit in passage.units:
        fits = tokens + unit.tokens <= (target if tokens > target // 3 else room)
        if packs[-1] and not (fits and unit.end - packs[-1][0].start <= _CHUNK_CHARACTERS):
            packs.append(_heading_at_the_end(passage.text, packs[-1]))
            tokens = _tokens(packs[-1])
            if tokens + unit.tokens > room:
                packs.append([])
                tokens = 0
        packs[-1].append(unit)
        tokens += unit.tokens
    if len(packs) > 1 and tokens < target // 4 and tokens + _tokens(packs[-2]) <= room:
        packs[-2:] = [packs[-2] + packs[-1]]
    for pack in packs:
        yield replace(passage, units=tuple(pack), heading=_heading(passage, pack[0]))


def _heading(passage: _Passage, first: _Unit) -> str | None:
    """The passage's own, and for the rest of a row which row and which column it is of."""
    text, row = passage.text, first.row
    if row is None or first.start == row:
        return passage.heading
    cell = _last_cell(text, max(row, first.start - _CHUNK_CHARACTERS), first.start)
    parts = [passage.heading, _cell(text, row)]
    if cell is not None and cell != first.start:
        parts.append(_cell(text, cell).partition(": ")[0])
    return _HEADING_SEPARATOR.join(part for part in parts if part)


def _cell(text: str, start: int) -> str:
    """The beginning of the cell that begins there."""
    end = _CELL_END.search(text, start)
    return " ".join(text[start : end.start() if end else len(text)][:_CELL_CHARACTERS].split())


def _heading_at_the_end(text: str, pack: list[_Unit]) -> list[_Unit]:
    """Takes a short last line without a full stop away from the pack: it announces what follows."""
    last = pack[-1]
    if last.row is not None:
        return []
    short = len(pack) > 1 and last.tokens <= _HEADING_TOKENS
    own_line = text[pack[-2].end : last.start].count("\n") > 0 if short else False
    return [pack.pop()] if own_line and text[last.end - 1].isalnum() and text[last.end : last.end + 1] == "\n" else []


def _tokens(units: Iterable[_Unit]) -> int:
    return sum(unit.tokens for unit in units)


class _Context:
    """Title and heading for a chunk, each shortened to its half of the tokens, without what the chunk says itself."""

    def __init__(self, title: str | None, count_tokens: CountTokens, tokens: int) -> None:
        self._title = title
        self._count_tokens = count_tokens
        self._tokens = max(0, tokens // 2 - 1)
        self._short: dict[str, str] = {}

    def prepare(self, headings: Iterable[str | None]) -> None:
        """Shorten those of the next chunks, all at once."""
        texts = sorted({text for text in (self._title, *headings) if text})
        self._short = dict(zip(texts, _shortened(texts, self._count_tokens, self._tokens), strict=True))

    def of(self, heading: str | None, content: str) -> str:
        parts = [self._short[part] for part in dict.fromkeys((self._title, heading)) if part]
        return _CONTEXT_SEPARATOR.join(part for part in parts if part and part not in content)


def _shortened(texts: list[str], count_tokens: CountTokens, tokens: int) -> list[str]:
    """The texts without their outermost headings, then without their last words, until each has at most `tokens`."""
    texts = [text[-_UNIT_CHARACTERS:] for text in texts]
    while True:
        counts = count_tokens(texts)
        if all(count <= tokens for count in counts):
            return texts
        texts = [text if count <= tokens else _shorter(text) for text, count in zip(texts, counts, strict=True)]


def _shorter(text: str) -> str:
    _, separator, inner = text.partition(_HEADING_SEPARATOR)
    if separator:
        return inner
    words = text.split()
    return " ".join(words[: len(words) * 3 // 4]) if len(words) > 1 else text[: len(text) // 2]


def _chunk(piece: _Passage, context: _Context) -> Chunk:
    content = piece.text[piece.units[0].start : piece.units[-1].end].strip()
    return Chunk(0, content, 0, piece.page, piece.heading, context.of(piece.heading, content))


def _bounded(chunks: list[Chunk], count_tokens: CountTokens, maximum: int) -> list[Chunk]:
    """The chunks with their exact tokens; where joining units made tokens that the sum did not foresee, in two."""
    bounded = []
    for chunk, tokens in zip(chunks, count_tokens([chunk.text for chunk in chunks]), strict=True):
        if tokens <= maximum or len(chunk.content) < 2:
            bounded.append(replace(chunk, tokens=tokens))
        else:
            low, high = len(chunk.content) // 4, max(1, len(chunk.content) // 2)
            middle = chunk.content.rfind("\n", low, high) + 1 or _last_boundary(chunk.content, low, high)
            halves = [chunk.content[:middle].strip(), chunk.content[middle:].strip()]
            bounded += _bounded([replace(chunk, content=half) for half in halves if half], count_tokens, maximum)
    return bounded
