"""A chat model that is none: it answers with the sentences of the passages that stand closest to the question.

It reads the prompt of `rag.prompting` and obeys its rules as far as quoting can: nothing but what the passages say, a
marker after each sentence, the agreed phrase when nothing fits. It cannot combine, count, translate or rephrase.
"""

from __future__ import annotations

import json
import math
import re
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from typing import Any

from rag.lexical import analyse, ask, idf
from rag.prompting import NO_ANSWER
from rag.sentences import sentences

STAND_IN = (
    "I am an extractive stand-in and not a language model: I can only quote the passages of a question that the "
    "platform's own prompt puts to me."
)

# Bound an answer's work to some 0.6 s of one core.
_MOST_CANDIDATES = 40
_MOST_TOKENS = 2_000
_MOST_SENTENCES = 3

# Chosen by eye on questions over some forty real documents.
_OVERLAP_SHARE = 0.4
_RANK_PENALTY = 0.01
_QUESTION_PENALTY = 0.2
_LEAST_SCORE = 0.4
_BEHIND_BEST = 0.1
_SAME_CONTENT = 0.85

_QUESTION = re.compile(r"Question: (\".*\")")
# Reference numbers of a paper would be taken for markers of passages.
_REFERENCES = re.compile(r"\s*\[\d+(?:\s*[,–-]\s*\d+)*\]")
_NUMBER = re.compile(r"\d+")
_WORD = re.compile(r"[^\W_]{2,}")


@dataclass(frozen=True, slots=True)
class Passage:
    """What the prompt calls [n]; `about` is its title and heading."""

    n: int
    text: str
    about: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and its passages, best first."""

    question: str
    passages: tuple[Passage, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence of passage `n`; `overlap` is how much of the question's telling words it has, 0 to 1."""

    n: int
    text: str
    overlap: float


def read(messages: Sequence[tuple[str, str]]) -> Asked | None:
    """What the last user message asks, or None when it does not follow the prompt's form."""
    said = next((text for role, text in reversed(messages) if role == "user"), "")
    lines = said.split("\n")
    question = _QUESTION.fullmatch(lines[-1])
    if not question or not any(line == "Passages (JSON lines):" for line in lines):
        return None
    try:
        return Asked(json.loads(question[1]), tuple(filter(None, map(_passage, lines))))
    except ValueError:
        return None


def candidates(asked: Asked, *, count_tokens: Callable[[Sequence[str]], list[int]]) -> list[Candidate]:
    """At most 40 sentences of at most 2000 tokens together, by the rarer words that they share with the question.

    Among equals the order of the passages decides. A sentence that says nothing but words of the question is left out.
    """
    asking = set(analyse(asked.question, "english"))
    found = [(n, text, set(analyse(text, "english"))) for n, text in _distinct(asked.passages)]
    found = [(n, text, terms) for n, text, terms in found if terms - asking]
    weights = _weights(asked.question, [terms for _, _, terms in found])
    whole = sum(weights.values()) or 1.0
    weighed = [
        Candidate(n, text, sum(weights[term] for term in weights.keys() & terms) / whole) for n, text, terms in found
    ]
    best = sorted(weighed, key=lambda candidate: -candidate.overlap)[:_MOST_CANDIDATES]
    tokens = accumulate(count_tokens([candidate.text for candidate in best]))
    return [candidate for candidate, total in zip(best, tokens, strict=True) if total <= _MOST_TOKENS]


def compose(asked: Asked, chosen: Sequence[Candidate], question: bytes, vectors: Sequence[bytes]) -> str:
    """The answer: up to three sentences, best first, each with its marker; or NO_ANSWER.

    `question` and `vectors` are embeddings of length 1 as float32, of the question and of each candidate.
    """
    asking = array("f", question)
    embedded = [array("f", vector) for vector in vectors]
    scores = [
        _score(asked, candidate, _dot(asking, vector)) for candidate, vector in zip(chosen, embedded, strict=True)
    ]
    best = max(scores, default=0.0)
    if best < _LEAST_SCORE or _names_a_strange_number(asked):
        return NO_ANSWER
    kept: list[int] = []
    for index in sorted(range(len(chosen)), key=lambda index: -scores[index]):
        if scores[index] < max(_LEAST_SCORE, best - _BEHIND_BEST) or len(kept) == _MOST_SENTENCES:
            break
        if all(_dot(embedded[index], embedded[other]) < _SAME_CONTENT for other in kept):
            kept.append(index)
    return "\n".join(f"{chosen[index].text} [{chosen[index].n}]" for index in kept)


def _passage(line: str) -> Passage | None:
    if not line.startswith("{"):
        return None
    passage: dict[str, Any] = json.loads(line)
    n, text = passage.get("n"), passage.get("text")
    about = f"{passage.get('title') or ''} {passage.get('heading') or ''}"
    return Passage(n, text, about) if isinstance(n, int) and isinstance(text, str) else None


def _names_a_strange_number(asked: Asked) -> bool:
    """Whether the question holds a year or another number of which no passage says anything."""
    known = {number for passage in asked.passages for number in _NUMBER.findall(f"{passage.about} {passage.text}")}
    return not known.issuperset(_NUMBER.findall(asked.question))


def _distinct(passages: Sequence[Passage]) -> list[tuple[int, str]]:
    """Every sentence once, from the first passage that has it; what has fewer than two words answers nothing."""
    first: dict[str, int] = {}
    for passage in passages:
        for start, end in sentences(passage.text):
            text = _REFERENCES.sub("", passage.text[start:end]).strip()
            if len(_WORD.findall(text)) >= 2:
                first.setdefault(text, passage.n)
    return [(n, text) for text, n in first.items()]


def _weights(question: str, sentences_terms: Sequence[set[int]]) -> dict[int, float]:
    """Each term of the question by how rare it is among the sentences."""
    frequencies = Counter(term for terms in sentences_terms for term in terms)
    return {term: idf(frequencies[term], len(sentences_terms)) for term in ask(question, "english")}


def _score(asked: Asked, candidate: Candidate, cosine: float) -> float:
    rank = next(index for index, passage in enumerate(asked.passages) if passage.n == candidate.n)
    score = (1 - _OVERLAP_SHARE) * cosine + _OVERLAP_SHARE * candidate.overlap - _RANK_PENALTY * rank
    return score - _QUESTION_PENALTY if candidate.text.endswith("?") else score


def _dot(one: array[float], other: array[float]) -> float:
    return math.fsum(map(mul, one, other))
