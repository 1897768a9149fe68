"""Answers as neutral text: nothing that Markdown or HTML would make active, and no address that nobody was shown.

The rule is that of docs/api.md, "Neutral text". It looks at one run of characters without white space after another, so
that a text which comes in pieces becomes the same however it is cut. What Markdown makes of a text: CommonMark 0.31.2,
GitHub Flavored Markdown 0.29 (autolinks), and linkify-it, which takes bare host names for links.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

LEFT_OUT = "…"

# What is not seen, or turns the direction of what is: control and format characters, but for the joiners that Persian,
# Indic scripts and emoji are written with; halves of surrogate pairs; the two marks that stand for a code span here.
_UNSEEN = re.compile(
    "[\x00-\x08\r\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ud800-\udfff\ue000\ue001\ufe00-\ufe0d\ufeff\uffa0\ufff0-\uffff"
    "\U000e0000-\U000e0fff]"
)
_LINE_ENDS = re.compile("[\x0b\x0c\x85\u2028\u2029]")
_OPEN, _CLOSE = "\ue000", "\ue001"

# Where no address goes on: white space, and the punctuation of scripts that are written without it.
_BREAK = r"\s\u3001-\u3003\u3008-\u3011\u3014-\u301b\uff01\uff0c\uff1a\uff1b\uff1f"
_RUN = re.compile(f"[^{_BREAK}]+")
_LAST_BREAK = re.compile(f"[{_BREAK}](?=[^{_BREAK}]*\\Z)")
# A part of a run that can be an address, or hold one.
_WORD = re.compile(r"[^<>\"`()\[\]{}|\\^]+")
_IDEOGRAPHS = "\u1100-\u11ff\u2e80-\u9fff\uac00-\ud7ff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
_ADDRESS = re.compile(
    r"(?:(?:[a-z][a-z0-9+.\-]{0,30}:)?//(?=\w)"
    r"|(?<![a-z0-9])(?:(?:javascript|vbscript|mailto|xmpp):(?=.)|data:(?=[\w.+\-]*[/,;])|www\.(?=.)))"
    f"[^{_IDEOGRAPHS}]*",
    re.IGNORECASE,
)
_MAIL = re.compile(r"@[\w\-]+(?:\.[\w\-]+)+")
_LOCAL = re.compile(r"[\w.+\-%&'*=?~!#$/]*")
_HOST = re.compile(r"[^!-,/:-@\[-`{-~]+")
_TOP_LEVEL = re.compile(
    r"(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|\.(?:[^\W\d_]{2}|com|net|org|edu|gov|mil|int|biz|info|pro|web|xxx|name|aero|asia|coop|museum|shop|app|dev|xyz|top"
    r"|zip|mov|site|online|cloud|live|link|click|xn--[a-z0-9\-]+))(?![^\W_])",
    re.IGNORECASE,
)
_TRAILING = ".,;:!?'\"*_~“”‘’"

_ACTIVE = re.compile(
    rf"(?:(?<![`\\])[`\\]+)?{_OPEN}(?P<code>[^{_CLOSE}]*){_CLOSE}`*"
    r"|(?P<tag><)(?=[A-Za-z/!?])|(?P<link>\])(?=[(:])|(?P<entity>&)(?=#?[A-Za-z0-9]{1,31};)|(?P<slash>/)(?=/)"
    r"|(?P<tick>`)|~{3,}"
)


class _Span(NamedTuple):
    """An address in a word; a bare name of a host is harmless to repeat, whoever wrote it."""

    start: int
    end: int
    bare: bool


class Disarmed:
    """A text that comes in pieces, as neutral text; together it is what `disarm` makes of the whole."""

    def __init__(self, sources: Sequence[str]) -> None:
        self._sources = sources
        self._held: list[str] = []

    def feed(self, piece: str) -> str:
        """Return what is certain by now: all but the run of characters that may go on."""
        clean = _clean(piece)
        last = _LAST_BREAK.search(clean)
        if last is None:
            self._held.append(clean)
            return ""
        whole = "".join([*self._held, clean[: last.end()]])
        self._held = [clean[last.end() :]]
        return _RUN.sub(self._neutral, whole)

    def end(self) -> str:
        """Return what was held back, when nothing follows."""
        held, self._held = "".join(self._held), []
        return _RUN.sub(self._neutral, held)

    @cached_property
    def _known(self) -> frozenset[str]:
        words = (word[0] for text in self._sources for word in _WORD.finditer(_clean(text)))
        parts = (part[0] for word in words for part in _RUN.finditer(word))
        return frozenset(part[span.start : span.end] for part in parts for span in _spans(part))

    def _neutral(self, run: re.Match[str]) -> str:
        return _ACTIVE.sub(_inactive, _WORD.sub(self._marked, run[0]))

    def _marked(self, found: re.Match[str]) -> str:
        """A word with its addresses between the marks of a code span, or left out."""
        word, written, done = found[0], "", 0
        for start, end, bare in _spans(word):
            address = word[start:end]
            shown = bare or address in self._known
            written += word[done:start] + (f"{_OPEN}{address}{_CLOSE}" if shown else LEFT_OUT)
            done = end
        return written + word[done:]


def disarm(text: str, sources: Sequence[str]) -> str:
    """Return the text as neutral text; of addresses, those are left out that stand in none of the sources."""
    disarmed = Disarmed(sources)
    return disarmed.feed(text) + disarmed.end()


def _clean(text: str) -> str:
    return _UNSEEN.sub("", _LINE_ENDS.sub("\n", text))


def _inactive(found: re.Match[str]) -> str:
    """A code span as such; of everything else that could begin something, what reads alike and begins nothing."""
    if found["code"] is not None:
        return f"`{found['code']}`"
    if found["tick"]:
        return "'"
    return f"{found[0]} " if found.lastgroup else "~~"


def _spans(word: str) -> Iterator[_Span]:
    done = 0
    for found in _ADDRESS.finditer(word):
        yield from _names(word, done, found.start())
        done = found.start() + len(found[0].rstrip(_TRAILING))
        yield _Span(found.start(), done, bare=False)
        done = found.end()
    yield from _names(word, done, len(word))


def _names(word: str, start: int, end: int) -> Iterator[_Span]:
    """Mail addresses and names of hosts in a part of a word that holds no other address."""
    done = start
    for mail in _MAIL.finditer(word, start, end):
        backwards = _LOCAL.match(word[done : mail.start()][::-1])
        assert backwards is not None  # noqa: S101 (it matches the empty beginning of every text)
        begin = mail.start() - backwards.end()
        yield from _hosts(word, done, begin)
        done = mail.start() + len(mail[0].rstrip(_TRAILING))
        yield _Span(begin, done, bare=False)
    yield from _hosts(word, done, end)


def _hosts(word: str, start: int, end: int) -> Iterator[_Span]:
    for name in _HOST.finditer(word, start, end):
        tops = list(_TOP_LEVEL.finditer(name[0]))
        if not tops:
            continue
        host_end = name.start() + tops[-1].end()
        if word[host_end : host_end + 1] in {"/", "?", "#"} and host_end + 1 < end:
            yield _Span(name.start(), name.start() + len(word[name.start() : end].rstrip(_TRAILING)), bare=False)
            return
        yield _Span(name.start(), host_end, bare=True)
