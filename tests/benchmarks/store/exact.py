"""The exact answers over as many chunks as one likes, a block at a time, and how near the product's come to them."""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rag import lexical, ranking
from rag.types import Candidate, Mode
from tests.benchmarks.store.bulk import identity, number
from tests.benchmarks.store.corpus import LANGUAGE, Question
from tests.benchmarks.store.synthetic import Synthetic

TOP = 10
DEPTH = ranking.CANDIDATES_PER_LEG
BLOCK = 20_000
# Equal to the limits of single precision: either may come first.
EQUAL = 1e-6

Numbers: TypeAlias = NDArray[np.int64]
Scores: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Answer:
    """Of one question, with scores, best first: the 100 best chunks of each leg, the ten best of both fused."""

    dense: dict[int, float]
    lexical: dict[int, float]
    hybrid: dict[int, float]
    known: int

    def found(self, mode: Mode, listed: Sequence[int]) -> dict[str, float]:
        """The share of the exact ten that is in the list, nDCG of the known chunk there and in the exact list.

        A chunk that is not among the exact ten and scores as high as the tenth counts as one of them. `short` is 1 when
        there are fewer than there could be.
        """
        exact = {"dense": self.dense, "lexical": self.lexical, "hybrid": self.hybrid}[mode]
        best = list(exact)[:TOP]
        least = exact[best[-1]] - EQUAL * abs(exact[best[-1]]) if best else 0.0
        hits = sum(exact.get(chunk, -math.inf) >= least for chunk in listed[:TOP])
        return {
            "overlap": hits / len(best) if best else 1.0,
            "ndcg": _gain(listed, self.known),
            "ndcg_exact": _gain(best, self.known),
            "short": float(len(listed) < len(best)),
        }


class Exact:
    """Knows the vectors of all chunks, and of each chunk that is shown to it what the questions ask for."""

    def __init__(self, corpus: Synthetic, questions: Iterable[Question]) -> None:
        self._corpus = corpus
        self._wanted = {term for question in questions for term in lexical.ask(question.text, LANGUAGE)}
        self._postings: defaultdict[int, tuple[array[int], array[float]]] = defaultdict(
            lambda: (array("q"), array("f"))
        )

    def observe(self, chunk: int, weights: Mapping[int, float]) -> None:
        """See a chunk's BM25 weights."""
        for term in self._wanted & weights.keys():
            chunks, values = self._postings[term]
            chunks.append(chunk)
            values.append(weights[term])

    def answers(
        self, questions: Sequence[Question], place: range, document: Mapping[int, int], within: Numbers | None = None
    ) -> list[Answer]:
        """Of the collection that has the chunks in `place`; of these only those `within`, ascending, if given.

        `document` is chunk → number of its document.
        """
        among = np.arange(place.start, place.stop) if within is None else within
        asking = np.stack([question.vector for question in questions]).astype(np.float16).astype(np.float32)
        nearest = self._nearest(asking, place, within)
        return [
            self._answer(question, vector, near, place, among, document)
            for question, vector, near in zip(questions, asking, nearest, strict=True)
        ]

    def _answer(
        self,
        question: Question,
        vector: NDArray[np.float32],
        near: tuple[Numbers, Scores],
        place: range,
        among: Numbers,
        document: Mapping[int, int],
    ) -> Answer:
        bm25 = self._bm25(question, place)
        of_those = bm25[among - place.start]
        matching = [n for n in _best(of_those, DEPTH) if of_those[n] > 0]
        keyword = {int(among[n]): float(of_those[n]) for n in matching}
        dense = {int(n): float(score) for n, score in zip(*near, strict=True)}
        both = list(dict.fromkeys([*dense, *keyword]))
        cosines = self._cosines(vector[None, :], self._corpus.vectors[both])[0]
        candidates = [
            Candidate(identity(n), identity(document[n]), b"", float(cosine), float(bm25[n - place.start]))
            for n, cosine in zip(both, cosines, strict=True)
        ]
        fused = ranking.fuse(candidates, mode="hybrid")[:TOP]
        return Answer(dense, keyword, {number(one.chunk_id): score for one, score in fused}, question.known)

    def _nearest(
        self, asking: NDArray[np.float32], place: range, within: Numbers | None
    ) -> list[tuple[Numbers, Scores]]:
        """Numbers and cosines of the 100 nearest of each question."""
        count = len(place) if within is None else len(within)
        kept = np.empty((len(asking), 0), np.int64), np.empty((len(asking), 0), np.float32)
        for start in range(0, count, BLOCK):
            stop = min(start + BLOCK, count)
            chunks = np.arange(place.start + start, place.start + stop) if within is None else within[start:stop]
            rows = slice(int(chunks[0]), int(chunks[-1]) + 1) if within is None else chunks
            cosines = self._cosines(asking, self._corpus.vectors[rows])
            numbers = np.hstack([kept[0], np.broadcast_to(chunks, cosines.shape)])
            scores = np.hstack([kept[1], cosines])
            order = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]
            kept = np.take_along_axis(numbers, order, 1), np.take_along_axis(scores, order, 1)
        return list(zip(*kept, strict=True))

    @staticmethod
    def _cosines(asking: NDArray[np.float32], halves: NDArray[np.float16]) -> NDArray[np.float32]:
        rows = halves.astype(np.float32)
        cosines: NDArray[np.float32] = asking @ rows.T
        cosines /= np.linalg.norm(rows, axis=1)
        cosines /= np.linalg.norm(asking, axis=1)[:, None]
        return cosines

    def _bm25(self, question: Question, place: range) -> Scores:
        """Of every chunk in place."""
        counts = lexical.ask(question.text, LANGUAGE)
        postings = {term: self._in(place, term) for term in counts if term in self._postings}
        frequencies = {term: len(chunks) for term, (chunks, _) in postings.items()}
        scores = np.zeros(len(place))
        for term, weight in lexical.question(counts, frequencies, len(place)).items():
            if term in postings:
                chunks, weights = postings[term]
                scores[chunks - place.start] += weight * weights
        return scores

    def _in(self, place: range, term: int) -> tuple[Numbers, NDArray[np.float32]]:
        chunks, weights = (np.array(column) for column in self._postings[term])
        inside = (chunks >= place.start) & (chunks < place.stop)
        return chunks[inside], weights[inside]


def _best(scores: Scores, count: int) -> list[int]:
    """The places of the highest scores, best first; equal ones in their order."""
    if len(scores) > 10 * count:
        least = np.partition(scores, -count)[-count]
        places = np.flatnonzero(scores >= least)
        return [int(n) for n in places[np.argsort(-scores[places], kind="stable")][:count]]
    return [int(n) for n in np.argsort(-scores, kind="stable")[:count]]


def _gain(listed: Sequence[int], known: int) -> float:
    """nDCG@10 where one chunk is relevant."""
    return 1 / math.log2(listed.index(known) + 2) if known in listed[:TOP] else 0.0
