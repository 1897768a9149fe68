"""Whether an answer tells what only the model was told: its rules, as they stand or in a simple disguise."""

from __future__ import annotations

import base64
import codecs
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache

# Some nine words in the rules' own order. Nobody arrives at them by answering a question: the sentence that the model
# is to say when nothing answers has 35 letters.
TOLD = 45
# What is encoded was meant to be; a line of it as mail carries it holds fewer.
ENCODED = 30
# So much of the rules is said before one can know where it leads, and is heard by who listens meanwhile.
_HEARD = 20

_BASE64 = re.compile(r"[A-Za-z0-9+/_\-]{44,}")
_HEX = re.compile(r"[0-9A-Fa-f]{64,}")
_LAST_RUN = re.compile(r"(?<![A-Za-z0-9+/=_\-])[A-Za-z0-9+/=_\-]*\Z")


class WithheldError(Exception):
    """The model says what only it was told."""


class Guarded:
    """A text that comes in pieces, held back where it may become what only the model was told."""

    def __init__(self, rules: str, passages: Sequence[str] = ()) -> None:
        self._rules = _disguises(rules)
        self._passages = passages
        self._held = ""
        self._before = ""

    def feed(self, piece: str) -> str:
        """Return what may be said; WithheldError when it has become part of the rules."""
        self._held += piece
        letters = self._before + _letters(self._held)
        if self._told(letters, TOLD) or any(self._told(text, ENCODED) for text in _decoded(self._held)):
            raise WithheldError
        keep = self._kept(letters)
        certain, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        self._before = (self._before + _letters(certain))[-TOLD:]
        return certain

    def end(self) -> str:
        """Return what was held back, when nothing follows."""
        held, self._held = self._held, ""
        return held

    def _told(self, letters: str, length: int) -> bool:
        starts = range(len(letters) - length + 1)
        told = (letters[start : start + length] for start in starts)
        return any(part in self._rules and part not in self._shown for part in told)

    @cached_property
    def _shown(self) -> str:
        return "\n".join(map(_letters, self._passages))

    def _kept(self, letters: str) -> int:
        """How many characters at the end of what is held may go on as the rules do, or as something encoded.

        Any word may: what is heard comes by whole words anyway.
        """
        longest = 0
        while longest < len(letters) and letters[-longest - 1 :] in self._rules:
            longest += 1
        kept = 0 if longest < _HEARD else _tail(self._held, longest)
        encoded = _LAST_RUN.search(self._held)
        return max(kept, len(encoded[0]) if encoded else 0)


def withheld(text: str, rules: str, passages: Sequence[str] = ()) -> bool:
    """Whether the text holds some nine words of the rules in a row, which do not stand in the passages.

    Case, punctuation and width of letters do not matter, nor whether they are reversed, shifted by 13 (ROT13), or in
    Base64 or hexadecimal digits.
    """
    try:
        Guarded(rules, passages).feed(text)
    except WithheldError:
        return True
    return False


@lru_cache(maxsize=16)
def _disguises(rules: str) -> str:
    letters = _letters(rules)
    return "\n".join([letters, letters[::-1], codecs.encode(letters, "rot13")])


def _letters(text: str) -> str:
    return "".join(filter(str.isalpha, unicodedata.normalize("NFKC", text).casefold()))


def _decoded(text: str) -> Iterator[str]:
    for run in _BASE64.findall(text):
        standard = run.replace("-", "+").replace("_", "/")
        for start in range(4):
            part = standard[start : start + (len(standard) - start) // 4 * 4]
            yield _letters(base64.b64decode(part).decode("utf-8", "ignore"))
    for run in _HEX.findall(text):
        for start in range(2):
            part = run[start : start + (len(run) - start) // 2 * 2]
            yield _letters(bytes.fromhex(part).decode("utf-8", "ignore"))


def _tail(text: str, letters: int) -> int:
    """How many characters at the end of the text hold so many letters, or all of them."""
    for count in range(1, len(text) + 1):
        letters -= sum(map(str.isalpha, unicodedata.normalize("NFKC", text[-count]).casefold()))
        if letters <= 0:
            return count
    return len(text)
