"""Rows of cells as lines of text: each line can be read, found and cited without the lines above it."""

from __future__ import annotations

import csv
import re
from itertools import chain, islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_SEPARATOR = " | "
_HEADER_SEARCHED_ROWS = 10
_HEADER_CELL_WIDTH = 80
_DELIMITERS = ",;\t|"
_NUMBER = re.compile(r"[-+(]?[$€£¥]?\s?[\d.,'\s]*\d[\d.,'\s]*\)?\s?[%€$£¥]?\Z")
_SAMPLE_ROWS = 50


def lines(rows: Iterable[Sequence[str]], *, likely_headed: bool = False) -> Iterator[str]:
    """One line per row that holds anything: "name: value | name: value" under a header row, "value | value" elsewhere.

    The header is looked for in the first rows. Two columns of words may as well be pairs of name and value as have a
    header: `likely_headed` settles it.
    """
    filled = (cells for row in rows if any(cells := [" ".join(cell.split()) for cell in row]))
    sample = list(islice(filled, _SAMPLE_ROWS))
    header_at = _header_row(sample)
    if header_at is None or not (likely_headed or _three_columns_or_figures(sample[header_at:])):
        yield from (_plain(row) for row in chain(sample, filled))
        return
    yield from (_plain(row) for row in sample[: header_at + 1])
    yield from (_named(row, sample[header_at]) for row in chain(sample[header_at + 1 :], filled))


def delimited_rows(lines: Iterable[str], delimiter: str | None = None) -> Iterator[list[str]]:
    """The rows of CSV in lines with their line breaks; without `delimiter`, by the one that splits them most evenly."""
    csv.field_size_limit(2**31 - 1)
    lines = iter(lines)
    sample = list(islice(lines, _SAMPLE_ROWS))
    return _rows(chain(sample, lines), delimiter or _likely_delimiter(sample))


def _rows(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=True)


def _likely_delimiter(sample: list[str]) -> str:
    return max(_DELIMITERS, key=lambda delimiter: _evenness(sample, delimiter))


def _evenness(sample: list[str], delimiter: str) -> float:
    """Columns of the first row, as far as the other rows have as many."""
    widths = [len(row) for row in _rows(sample, delimiter) if row]
    if not widths or widths[0] == 1:
        return 0.0
    return widths[0] * sum(width == widths[0] for width in widths) / len(widths)


def _header_row(rows: list[list[str]]) -> int | None:
    """The first row that names every column there is: distinct short words, no numbers; above it only captions."""
    widths = [sum(map(bool, row)) for row in rows]
    columns = max((index + 1 for row in rows for index, cell in enumerate(row) if cell), default=0)
    for index, row in enumerate(rows[:_HEADER_SEARCHED_ROWS]):
        if index + 1 == len(rows) or columns < 2:
            return None
        if widths[index] >= columns - 1 and widths[index] > 1:
            return index if _names_columns(row) else None
        if widths[index] > 1:
            return None
    return None


def _three_columns_or_figures(rows: list[list[str]]) -> bool:
    if sum(map(bool, rows[0])) > 2:
        return True
    return all(_NUMBER.match(next(reversed([cell for cell in row if cell]))) for row in rows[1:])


def _names_columns(row: list[str]) -> bool:
    names = [cell for cell in row if cell]
    short = all(len(name) <= _HEADER_CELL_WIDTH and not _NUMBER.match(name) for name in names)
    return short and len(set(names)) == len(names)


def _plain(row: list[str]) -> str:
    return _SEPARATOR.join(cell for cell in row if cell)


def _named(row: list[str], header: list[str]) -> str:
    names = [*header, *[""] * (len(row) - len(header))]
    return _SEPARATOR.join(f"{name}: {cell}" if name else cell for name, cell in zip(names, row, strict=False) if cell)
