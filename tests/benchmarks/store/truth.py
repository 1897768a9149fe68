"""The exact answers, computed in this process, and how near a list of results comes to them."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray  # noqa: TC002 (beside its own numpy)

from rag import lexical, ranking
from rag.types import Candidate
from tests.benchmarks.store.corpus import LANGUAGE, Corpus, Question, document_of, tagged

TOP = 10
DEPTH = ranking.CANDIDATES_PER_LEG


@dataclass(frozen=True, slots=True)
class Truth:
    """The ten best chunks of one question: by cosine, by each fusion with BM25, and the same among the filtered."""

    dense: list[int]
    fused: list[int]
    reciprocal: list[int]
    dense_filtered: list[int]
    fused_filtered: list[int]


def truths(corpus: Corpus, chunks: int) -> list[Truth]:
    """For every question, over the first `chunks`."""
    inverted = _Inverted(corpus, chunks)
    allowed = np.array([number for number in range(chunks) if tagged(number)], dtype=np.int64)
    asking = np.stack([question.vector for question in corpus.questions])
    cosines = asking @ np.asarray(corpus.vectors[:chunks]).T
    return [
        _truth(question_cosines, inverted.scores(question.text), allowed)
        for question, question_cosines in zip(corpus.questions, cosines, strict=True)
    ]


def _truth(cosines: NDArray[np.float32], bm25: NDArray[np.float64], allowed: NDArray[np.int64]) -> Truth:
    both = _candidates(cosines, bm25, np.arange(len(cosines)))
    filtered = _candidates(cosines[allowed], bm25[allowed], allowed)
    return Truth(
        dense=best(cosines, TOP),
        fused=_order(ranking.fuse(both, mode="hybrid")),
        reciprocal=_order(ranking.reciprocal(both, mode="hybrid")),
        dense_filtered=[int(allowed[number]) for number in best(cosines[allowed], TOP)],
        fused_filtered=list(_order(ranking.fuse(filtered, mode="hybrid"))),
    )


def best(scores: NDArray[np.floating], count: int) -> list[int]:
    """The places of the highest scores, best first; equal ones in their order."""
    return [int(number) for number in np.argsort(-scores, kind="stable")[:count]]


def _candidates(cosines: NDArray[np.float32], bm25: NDArray[np.float64], numbers: NDArray[np.int64]) -> list[Candidate]:
    """The best places of each leg, as the chunks of these numbers."""
    found = [place for place in best(bm25, DEPTH) if bm25[place] > 0]
    return [
        Candidate(
            chunk_id=uuid.UUID(int=int(numbers[place])),
            document_id=uuid.UUID(int=document_of(int(numbers[place]))),
            content_hash=b"",
            cosine=float(cosines[place]),
            bm25=float(bm25[place]),
        )
        for place in dict.fromkeys([*best(cosines, DEPTH), *found])
    ]


def _order(ranked: Sequence[tuple[Candidate, float]]) -> list[int]:
    return [candidate.chunk_id.int for candidate, _ in ranked[:TOP]]


class _Inverted:
    """Exact BM25 by the product's own weights: for each term that is asked for, its chunks and their weights."""

    def __init__(self, corpus: Corpus, chunks: int) -> None:
        self._chunks = chunks
        wanted = {term for question in corpus.questions for term in lexical.ask(question.text, LANGUAGE)}
        postings: defaultdict[int, list[tuple[int, float]]] = defaultdict(list)
        for number, text in enumerate(corpus.texts[:chunks]):
            weights = lexical.weigh(lexical.analyse(text, LANGUAGE))
            for term in wanted & weights.keys():
                postings[term].append((number, weights[term]))
        self._postings = {term: _columns(rows) for term, rows in postings.items()}

    def scores(self, text: str) -> NDArray[np.float64]:
        """BM25 of every chunk."""
        counts = lexical.ask(text, LANGUAGE)
        frequencies = {term: len(self._postings[term][0]) for term in counts if term in self._postings}
        scores = np.zeros(self._chunks)
        for term, weight in lexical.question(counts, frequencies, self._chunks).items():
            if term in self._postings:
                numbers, weights = self._postings[term]
                scores[numbers] += weight * weights
        return scores


def _columns(rows: Sequence[tuple[int, float]]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    return np.array([number for number, _ in rows]), np.array([weight for _, weight in rows])


def overlap(found: Sequence[int], exact: Sequence[int]) -> float:
    """Which share of the exact list was found; recall@10 where the list is the ten nearest."""
    return len(set(found[:TOP]) & set(exact)) / len(exact) if exact else 1.0


def reciprocal_rank(found: Sequence[int], known: int) -> float:
    """1 / rank of the known chunk, 0 when it is not among the first ten."""
    return 1 / (found.index(known) + 1) if known in found[:TOP] else 0.0


def quality(
    kind: str, found: Mapping[int, Sequence[int]], exact: Sequence[Truth], asked: Sequence[Question]
) -> dict[str, float]:
    """Means over the questions that were answered: question number → chunk numbers, best first."""
    reference = {"dense": "dense", "hybrid": "fused", "dense 1 %": "dense_filtered", "hybrid 1 %": "fused_filtered"}[
        kind
    ]
    figures = {
        "recall" if reference.startswith("dense") else "overlap": _mean(
            overlap(numbers, getattr(exact[number], reference)) for number, numbers in found.items()
        ),
        "results": _mean(len(numbers) for numbers in found.values()),
        "short": float(sum(len(numbers) < TOP for numbers in found.values())),
    }
    if kind in {"dense", "hybrid"}:
        figures["mrr"] = _mean(reciprocal_rank(numbers, asked[number].known) for number, numbers in found.items())
        figures["hit"] = _mean(asked[number].known in numbers[:TOP] for number, numbers in found.items())
    if kind == "hybrid":
        figures["overlap_rrf"] = _mean(overlap(numbers, exact[number].reciprocal) for number, numbers in found.items())
    return figures


def _mean(values: Iterable[float]) -> float:
    every = list(values)
    return sum(every) / len(every) if every else 0.0
