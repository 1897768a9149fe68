"""BM25 by sparse vectors: a chunk becomes weighted term ids, a question idf weights; their inner product is BM25.

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), with the idf of Lucene, which
is never negative.
"""

from __future__ import annotations

import math
import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from functools import cache, lru_cache
from hashlib import blake2b
from itertools import chain
from typing import TypeVar

import Stemmer

from rag.stopwords import STOP_WORDS

T = TypeVar("T")

K1 = 1.2
B = 0.75

# A constant, so that a row does not depend on what was indexed before it. Chunks are of one size by construction: with
# its own average instead, nDCG@10 of a development set is 0.007 lower to 0.003 higher.
AVERAGE_LENGTH = 100.0
DRIFT = 1.25
DRIFTED_CHUNKS = 64

DIMENSIONS = 1_000_000_000  # of the widest sparsevec that pgvector has
_LONGEST_TERM = 64
_LONGEST_REMEMBERED = 24
_MOST_REMEMBERED = 65_536  # terms, and twice as many ways to write them: with a capital, before a comma, …

# Scripts that write no spaces between words: kana, Han, Hangul; Thai, Lao, Myanmar, Khmer.
_UNSPACED = (
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
    "\u0e01-\u0e4e\u0e81-\u0ece\u1000-\u104f\u1780-\u17d3"
)
_LETTER = rf"[^\W_{_UNSPACED}]"
# Vowel signs and points are no \w of Python's; without them a word of Hindi or Tamil would fall apart.
_POINT = "\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a\u064b-\u065f\u0670"  # of Hebrew and Arabic
_MARK = f"[\u0300-\u036f\u0483-\u0487{_POINT}\u0900-\u0963\u0971-\u0df3]"
_WORD = rf"{_LETTER}+(?:{_MARK}+{_LETTER}*)*"
_JOINER = r"(?:[-\u2010./:@]|_+|(?<=\d),(?=\d))"
_TOKEN = rf"{_WORD}(?:{_JOINER}{_WORD})*(?:\+\+|\#)?|[{_UNSPACED}]+"
_ASCII_WORD = r"[a-z0-9]+"
_ASCII_TOKEN = rf"{_ASCII_WORD}(?:{_JOINER}{_ASCII_WORD})*(?:\+\+|\#)?"
_AROUND = ".,;:!?()[]\"'"  # no part of a token
_NO_ONE_TERM = 0
_INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff]")
# What people leave out when they type.
_ACCENT = re.compile(f"[\u0300-\u036f{_POINT}]")

# Languages whose accents are often left out, and whose stemmers read them (docs/decisions/0038).
_TYPED_BARE = frozenset({"french", "italian", "portuguese", "spanish"})

UNSTEMMED = frozenset({"simple", "chinese", "japanese", "korean", "thai"})
LANGUAGES = frozenset(Stemmer.algorithms()) - {"porter", "dutch_porter"} | UNSTEMMED


def analyse(text: str, language: str) -> Counter[int]:
    """Count the terms of a chunk; keys are term ids in 1 … 999,999,999.

    Words are stemmed by Snowball for `language` (one of `LANGUAGES`), then lose their accents. What is written
    together counts in its parts and as a whole without the joiners: `IL-2` meets `IL2`, `71,137` meets `71137` (worth
    0.004 nDCG@10 on SciFact). Runs of Chinese, Japanese, Korean, Thai, … count in pairs of characters. In languages
    whose accents are often left out, a word that is stemmed otherwise without them counts in both ways.
    """
    return _count(text, _terms(language, bare_too=language in _TYPED_BARE))


def _count(text: str, terms: _Terms) -> Counter[int]:
    if not text.isascii():
        text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    pieces = text.casefold().split()
    counts = Counter(map(terms.__getitem__, pieces))
    if counts.pop(_NO_ONE_TERM, 0):
        counts.update(chain.from_iterable(terms.every(piece) for piece in pieces if terms[piece] == _NO_ONE_TERM))
    return counts


def ask(text: str, language: str) -> Counter[int]:
    """Count the terms of a question: each word as it is typed, without stop words unless there is nothing else."""
    terms = _count(text, _terms(language, bare_too=False))
    telling = Counter({term: count for term, count in terms.items() if term not in _stop_terms(language)})
    return telling or terms


def weigh(counts: Mapping[int, int], average_length: float = AVERAGE_LENGTH) -> dict[int, float]:
    """Return the part of BM25 that the chunk decides: term id → saturated, length-normalised frequency in (0, 2.2)."""
    weights = saturation(counts.values(), average_length)
    return {term: weights[count] for term, count in counts.items()}


def saturation(frequencies: Collection[int], average_length: float = AVERAGE_LENGTH) -> dict[int, float]:
    """Return frequency of a term → its weight in a chunk, of whose terms these are the `frequencies`."""
    norm = K1 * (1 - B + B * sum(frequencies) / average_length)
    return {count: count * (K1 + 1) / (count + norm) for count in set(frequencies)}


def reweigh(weights: Mapping[int, float], length: int, before: float, after: float) -> dict[int, float]:
    """Return what `weigh` says with the average length `after` of a chunk of `length` terms weighed with `before`.

    Exact while no term stands in the chunk more than a thousand times: the index keeps weights in single precision.
    """
    norm = K1 * (1 - B + B * length / before)
    counts = {term: max(round(weight * norm / (K1 + 1 - weight)), 1) for term, weight in weights.items()}
    norm = K1 * (1 - B + B * length / after)
    return {term: count * (K1 + 1) / (count + norm) for term, count in counts.items()}


def average_length(current: float, *, lexeme_count: int, chunk_count: int) -> float:
    """Return what BM25 is to divide a chunk's length by: `current`, unless the collection has drifted away from it.

    It is twice the true average, and never more than 100, which ranks better than the true average itself
    (docs/decisions/0010). Drifted is what differs by more than a quarter, in 64 chunks or more.
    """
    if chunk_count < DRIFTED_CHUNKS:
        return current
    wanted = float(min(max(round(2 * lexeme_count / chunk_count), 1), AVERAGE_LENGTH))
    return wanted if max(wanted, current) > DRIFT * min(wanted, current) else current


def question(counts: Mapping[int, int], document_frequencies: Mapping[int, int], chunk_count: int) -> dict[int, float]:
    """Return the part of BM25 that the collection decides: term id → idf, times how often the question says it.

    Terms that no chunk has are kept: they score nothing, and `ranking` needs to know how much of the question is unmet.
    """
    return {term: count * idf(document_frequencies.get(term, 0), chunk_count) for term, count in counts.items()}


def possible(counts: Mapping[int, int], document_frequencies: Mapping[int, int], chunk_count: int) -> float:
    """Return the BM25 of an ordinary chunk that says each term of the question once: the measure of a full match."""
    return sum(question(counts, document_frequencies, chunk_count).values())


def idf(document_frequency: int, chunk_count: int) -> float:
    """Lucene's form; the frequency is capped, because statistics may lag behind a deletion."""
    frequency = min(document_frequency, chunk_count)
    return math.log(1 + (chunk_count - frequency + 0.5) / (frequency + 0.5))


class _Terms(dict[str, int]):
    """What stands between two blanks → its term, `_NO_ONE_TERM` where it has another number of them.

    No token reaches beyond a blank, and most pieces are seen again and again.
    """

    def __init__(self, language: str, *, bare_too: bool = False) -> None:
        super().__init__()
        self._language = language
        self._bare_too = bare_too
        self._every: dict[str, tuple[int, ...]] = {}

    def __missing__(self, piece: str) -> int:
        word = piece.strip(_AROUND)
        if word.isascii() and word.isalpha():  # as most are: the patterns would find the same
            term = _term(word, self._language)
        else:
            terms = self.every(piece)
            term = terms[0] if len(terms) == 1 else _NO_ONE_TERM
        _remember(self, piece, term, 2 * _MOST_REMEMBERED)
        return term

    def every(self, piece: str) -> tuple[int, ...]:
        known = self._every.get(piece)
        if known is not None:
            return known
        lexemes = chain.from_iterable(map(_lexemes, _tokens(piece)))
        if self._bare_too:
            terms = tuple(chain.from_iterable(_with_bare(lexeme, self._language) for lexeme in lexemes))
        else:
            terms = tuple(_term(lexeme, self._language) for lexeme in lexemes)
        if len(terms) != 1:
            _remember(self._every, piece, terms, _MOST_REMEMBERED)
        return terms


def _remember(known: dict[str, T], piece: str, value: T, most: int) -> None:
    # A run without blanks is hardly ever seen again, and may be long.
    if len(piece) <= _LONGEST_REMEMBERED:
        if len(known) >= most:
            known.clear()
        known[piece] = value


def _tokens(text: str) -> list[str]:
    return _patterns(ascii_only=text.isascii())[0].findall(text)


def _parts(token: str) -> list[str]:
    return _patterns(ascii_only=token.isascii())[1].findall(token)


@cache
def _patterns(*, ascii_only: bool) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Of a token and of its parts; those for every script take 20 ms to compile, which ASCII need not wait for."""
    return (
        (re.compile(_ASCII_TOKEN), re.compile(_ASCII_WORD)) if ascii_only else (re.compile(_TOKEN), re.compile(_WORD))
    )


@lru_cache(maxsize=len(LANGUAGES) + len(_TYPED_BARE))
def _terms(language: str, *, bare_too: bool) -> _Terms:
    return _Terms(language, bare_too=bare_too)


def _lexemes(token: str) -> Iterator[str]:
    if token.isalpha() and token.isascii():
        yield token
    elif parts := _parts(token):
        yield from parts
        if parts != [token]:
            yield "".join(parts) + token[len(token.rstrip("+#")) :]
    else:
        yield from (token[i : i + 2] for i in range(max(len(token) - 1, 1)))


@lru_cache(maxsize=_MOST_REMEMBERED)
def _term(lexeme: str, language: str) -> int:
    """A stable id: the same on every machine and in every version, because the index keeps it."""
    stem = _fold(_stem(lexeme[:_LONGEST_TERM], language))
    return int.from_bytes(blake2b(stem.encode(), digest_size=8).digest(), "big") % (DIMENSIONS - 1) + 1


def _with_bare(lexeme: str, language: str) -> tuple[int, ...]:
    term, bare = _term(lexeme, language), _term(_fold(lexeme), language)
    return (term,) if term == bare else (term, bare)


def _stem(word: str, language: str) -> str:
    return word if language in UNSTEMMED else str(_stemmers.of(language).stemWord(word))


class _Stemmers(threading.local):
    """Of one thread: a stemmer is none that several may use."""

    def __init__(self) -> None:
        self._made: dict[str, Stemmer.Stemmer] = {}

    def of(self, language: str) -> Stemmer.Stemmer:
        if language not in self._made:
            self._made[language] = Stemmer.Stemmer(language)
        return self._made[language]


_stemmers = _Stemmers()


def _fold(word: str) -> str:
    if word.isascii():
        return word
    return unicodedata.normalize("NFC", _ACCENT.sub("", unicodedata.normalize("NFD", word)))


@lru_cache
def _stop_terms(language: str) -> frozenset[int]:
    """Of every listed word as it is written and as it is typed without accents: stemmers may treat the two unlike."""
    words = STOP_WORDS.get(language, "").split()
    return frozenset(_term(form, language) for word in words for form in (word, _fold(word)))
