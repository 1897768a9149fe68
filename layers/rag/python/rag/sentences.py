"""Where sentences begin and end.

A line break always ends a sentence: the parsers have already joined the lines that only a page's width had broken, so
that a line is a paragraph, a list item, a heading or a table row. Inside a line a sentence ends at `.`, `!`, `?` or `…`
before white space, unless what follows goes on in lower case or what precedes is an abbreviation, an initial or a list
number; and at the full stops of scripts that write no space after them.

It gives up telling "in the U.S. The law" from "the U.S. Government": abbreviations never end a sentence, because a
sentence too long is still a true quotation and a sentence cut in two is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_LINE = re.compile(r"\S(?:[^\n]*\S)?")

_CLOSING = r"[\"'”’»›)\]）」』】》]*"
_STOP = re.compile(
    # The look-behind lets a run of marks match only from its first: without it "....…" would cost quadratic time.
    rf"(?<![.!?…])[.!?…]+{_CLOSING}(?:\[\d+\])*(?=\s)"  # Latin, Greek, Cyrillic, Hebrew …: white space must follow
    rf"|[؟۔।॥։።៕။]+{_CLOSING}(?=\s)"  # Arabic, Urdu, Devanagari, Armenian, Ethiopic, Khmer, Burmese
    rf"|[。！？｡]+{_CLOSING}"  # Chinese and Japanese: nothing need follow
)
_NEXT_LETTER = re.compile(r"\s+[\"'“‘«‹(\[¿¡]*([^\W\d_])?")
_LAST_WORD = re.compile(r"[^\s(\[\"'“‘«/—–-]*\Z")

_WORD_BEFORE_WIDTH = 16
_ABBREVIATIONS = frozenset(
    ("mr", "mrs", "ms", "dr", "prof", "rev", "hon", "st", "sr", "jr", "mme", "mlle", "gen", "col", "capt", "lt", "sgt",
     "gov", "sen", "rep", "pres", "dipl", "ing",  # people
     "no", "nos", "nr", "vol", "vols", "fig", "figs", "eq", "eqs", "sec", "ch", "chap", "art", "arts", "par", "p", "pp",
     "ed", "eds", "ref", "refs", "tab", "cf", "v", "vs", "viz", "approx", "al",  # references
     "dept", "univ", "inc", "ltd", "corp", "bros", "ave", "blvd",  # places
     "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec",
     "bzw", "vgl", "bspw", "evtl", "ggf", "inkl", "bzgl", "ca", "abb", "str", "tel",  # German
     "env", "sra", "dña", "ud", "uds", "pág", "págs", "núm", "sig", "dott", "blz")  # French, Spanish, Italian, Dutch
)  # fmt: skip


def sentences(text: str) -> list[tuple[int, int]]:
    """The `(start, end)` spans of the sentences of `text`, in order, without surrounding white space; linear time.

    Spans never overlap and together hold every character of `text` that is not white space.
    """
    return [span for line in _LINE.finditer(text) for span in _within_line(text, line.start(), line.end())]


def _within_line(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    line_start = start
    for stop in _STOP.finditer(text, start, end):
        if not _ends(text, stop, line_start):
            continue
        yield start, stop.end()
        start = stop.end()
        while start < end and text[start].isspace():
            start += 1
    if start < end:
        yield start, end


def _ends(text: str, stop: re.Match[str], line_start: int) -> bool:
    if text[stop.start()] not in ".!?…":
        return True
    following = _NEXT_LETTER.match(text, stop.end())
    if following and following[1] and following[1].islower():
        return False
    single_period = text[stop.start()] == "." and stop.end() - stop.start() == 1
    return not (single_period and _abbreviates(text, stop.start(), line_start))


def _abbreviates(text: str, period: int, line_start: int) -> bool:
    """Whether the period belongs to the word before it: "Dr.", "e.g.", "J.", and "12." that opens a line."""
    word_match = _LAST_WORD.search(text, max(line_start, period - _WORD_BEFORE_WIDTH), period)
    word = word_match[0] if word_match else ""
    if len(word) == period - line_start and (word.isdigit() or len(word) <= 1):
        return True
    initial = len(word) == 1 and word.isupper()
    return initial or "." in word or word.lower() in _ABBREVIATIONS
