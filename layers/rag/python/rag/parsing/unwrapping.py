"""Joining the lines that only the width of a page had broken, so that sentences are whole and table rows stay rows.

A line break was forced by the width exactly when the first word of the next line would not have fitted. In proportional
type that can only be estimated, from the number of characters that the page's long lines have.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_HYPHEN_BREAK = "\x02"  # what pdfium writes where a hyphen ended a line; it leaves the line break out
_BROKEN_WORD = re.compile(rf"(\w+){_HYPHEN_BREAK}\s*(\w+)(\S*) ?")
_WORD = re.compile(rf"(?<![\w{_HYPHEN_BREAK}-])\w+(?:-\w+)*(?![\w{_HYPHEN_BREAK}-])")
_DIGIT_RUN = re.compile(r"\d+")
_LIST_ITEM = re.compile(r"(?:[-*+•▪◦‣○●■□–—·]|\(?(?:\d{1,3}|[a-zA-Z]|[ivxIVX]{1,5})[.)])\s")
_FIGURE = re.compile(r"[-+(]?[$€£]?\d[\d.,:/%)-]*\Z")
_DASH_END = re.compile(r"(?<=\w)[-–/]\Z")
_SENTENCE_END = re.compile(r"[.!?:;。！？؟][\"'”’)\]]{0,3}\Z")

_NEVER_FIRST = re.compile(r"[,.;:!?)\]}»](?:\s|\Z)")

_PDF_SLACK = 0.8  # proportional type: lines of equal width differ by a fifth in characters
_TEXT_SLACK = 0.95
_MIN_WIDTH, _MAX_WIDTH = 20, 140
_TABLE_FIGURES = 3
_SAMPLE_CHARACTERS = 1_000_000
_SLAB_CHARACTERS = 1_000_000


def unwrap_pages(pages: list[str]) -> list[str]:
    """The pages of one PDF, each paragraph on one line, and words that a hyphen had broken whole again."""
    known = frozenset(word.casefold() for page in pages for word in _WORD.findall(page))
    mended = [_mend_words(_stripped(page), known) for page in pages]
    return [_unwrap(page, _usual_width(page), _PDF_SLACK) for page in mended]


def unwrap_text(text: str) -> str:
    """Plain text, unwrapped where it was wrapped at a fixed width (most long lines end near the same column)."""
    return "\n".join(unwrap_slabs(slabs(text.replace("\r\n", "\n").replace("\r", "\n"))))


def slabs(text: str) -> Iterator[str]:
    """The text cut at blank lines: all lines of a large one at once would take several times its memory."""
    start = 0
    while (end := text.find("\n\n", start + _SLAB_CHARACTERS)) >= 0:
        yield text[start:end]
        start = end + 1
    yield text[start:]


def slabs_of_lines(lines: Iterable[str]) -> Iterator[str]:
    """The slabs of a text that comes in lines with their line breaks; one without blank lines is twice as long."""
    slab: list[str] = []
    characters = 0
    for line in lines:
        blank = line == "\n" and characters >= _SLAB_CHARACTERS
        if blank or characters >= 2 * _SLAB_CHARACTERS:
            yield "".join(slab).removesuffix("\n")
            slab, characters = [], 0
        slab.append(line)
        characters += len(line)
    yield "".join(slab)


def unwrap_slabs(pieces: Iterable[str]) -> Iterator[str]:
    """As `unwrap_text`, of a text that comes in pieces of whole lines: the first shows where lines were broken."""
    width = None
    for piece in pieces:
        if width is None:
            width = _usual_width(piece[:_SAMPLE_CHARACTERS])
        yield _unwrap(piece, width, _TEXT_SLACK)


def _unwrap(text: str, width: int, slack: float) -> str:
    if not _MIN_WIDTH <= width <= _MAX_WIDTH:
        return text
    full = width * slack
    lines = text.split("\n")
    pieces = lines[:1]
    last, last_is_row = lines[0].strip(), _is_row(lines[0])
    for line in lines[1:]:
        following, is_row = line.strip(), _is_row(line)
        glue = None
        if last and following and not (is_row and last_is_row):
            glue = _glue(last, following, full)
        pieces.append(f"\n{line.rstrip()}" if glue is None else glue + following)
        last, last_is_row = following, is_row
    return "".join(pieces)


def _usual_width(text: str) -> int:
    """The 90th percentile of the lengths of lines: what fits on one."""
    lengths = sorted(len(line.strip()) for line in text.split("\n") if line and not line.isspace())
    return lengths[len(lengths) * 9 // 10] if lengths else 0


def _glue(line: str, following: str, full: float) -> str | None:
    """What joins two lines of one paragraph; None where the line ends for a reason of its own."""
    if _LIST_ITEM.match(following):
        return None
    if _DASH_END.search(line[-2:]) or _NEVER_FIRST.match(following):
        return ""
    return " " if _wrapped(line, following, full) else None


def _wrapped(line: str, following: str, full: float) -> bool:
    first_word = following.find(" ") % (len(following) + 1)
    if len(line) + 1 + first_word <= full:
        return following[0].islower() and len(line) > _MIN_WIDTH and not _SENTENCE_END.search(line[-4:])
    return len(line) >= full or not _SENTENCE_END.search(line[-4:])


def _is_row(line: str) -> bool:
    """A table's row: figures make up much of it."""
    if len(_DIGIT_RUN.findall(line)) < _TABLE_FIGURES:
        return False
    words = line.split()
    figures = sum(_FIGURE.match(word) is not None for word in words)
    return figures >= _TABLE_FIGURES and figures * 2 > len(words)


def _stripped(page: str) -> str:
    return "\n".join(line.strip() for line in page.split("\n"))


def _mend_words(page: str, known: frozenset[str]) -> str:
    """Broken words whole again, each at the end of the line it began on, so that lines keep the lengths they had."""
    mended = _BROKEN_WORD.sub(lambda found: f"{_mended(found[1], found[2], known)}{found[3]}\n", page)
    return mended.replace(_HYPHEN_BREAK, "-")


def _mended(left: str, right: str, known: frozenset[str]) -> str:
    """With its hyphen where the document writes it so elsewhere, or writes both halves but never the whole."""
    whole, compound = (left + right).casefold(), f"{left}-{right}".casefold()
    if whole in known and compound not in known:
        return left + right
    halves_are_words = {left.casefold(), right.casefold()} <= known and min(len(left), len(right)) > 2
    natural = right[0].isupper() or right[0].isdigit() or left[-1].isdigit()
    return f"{left}-{right}" if natural or compound in known or halves_are_words else left + right
