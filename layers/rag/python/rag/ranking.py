"""From two scores to one order, and whether what was found is worth answering from."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

from rag.types import Candidate, Hit, Mode

# Chosen on five development sets (docs/decisions/0008): the dense leg's share where several chunks match the words
# equally well, and how much of it goes to the lexical leg when one chunk alone does.
_DENSE_SHARE = 0.64
_LEAD_COUNTS = 0.5

# Calibrated on six development sets: their own questions are to be answered, those of another set are not. 0.30 keeps
# 99.0 % of the first and turns away 85 % of the second; 0.28 is 99.9 % and 80 %, 0.32 is 98.8 % and 89 %. One leg alone
# turns away 67 % (cosine) or 83 % (BM25) where it keeps 99 %. Cosines are of all-MiniLM-L6-v2.
LEAST_RELEVANCE = 0.30


def fuse(candidates: Sequence[Candidate], *, mode: Mode) -> list[tuple[Candidate, float]]:
    """Order candidates best first, with scores in [0, 1] that compare hits of one question, not questions.

    hybrid: w · cosine + (1 - w) · BM25 / best BM25 of the question, where w = 0.64 · (1 - lead / 2) and `lead` is by
    which share the best BM25 exceeds the second: a chunk that alone has the question's words is seldom wrong. dense:
    cosine; lexical: BM25 / best BM25. A cosine below zero counts as zero. Equal scores are ordered by chunk id, so the
    same index gives the same order.
    """
    score = _scoring(mode, candidates)
    scored = [(candidate, score(candidate)) for candidate in candidates]
    return sorted(scored, key=lambda pair: (-pair[1], pair[0].chunk_id))


def relevance(hits: Sequence[Hit], possible_bm25: float) -> float:
    """How well the best hits fit the question, in [0, 1]; unlike scores of hits it compares between questions.

    The mean of the best cosine and of the best share of the question's idf that a hit meets, where `possible_bm25` is
    what `lexical.possible` says. A leg that found nothing, or was not asked, is left out of the mean.
    """
    cosine = max((_unit(hit.cosine) for hit in hits), default=0.0)
    met = max((_unit(hit.bm25 / possible_bm25) for hit in hits), default=0.0) if possible_bm25 > 0 else 0.0
    legs = [leg for leg in (cosine, met) if leg > 0]
    return sum(legs) / len(legs) if legs else 0.0


def relevant(hits: Sequence[Hit], possible_bm25: float, *, min_score: float | None = None) -> bool:
    """Whether to answer from the hits: a `relevance` of at least `min_score`, or as calibrated where that is None."""
    return bool(hits) and relevance(hits, possible_bm25) >= (LEAST_RELEVANCE if min_score is None else min_score)


def _scoring(mode: Mode, candidates: Sequence[Candidate]) -> Callable[[Candidate], float]:
    best, second = ([*heapq.nlargest(2, (candidate.bm25 for candidate in candidates)), 0.0, 0.0])[:2]

    def share(candidate: Candidate) -> float:
        return candidate.bm25 / best if best > 0 else 0.0

    if mode == "dense":
        return lambda candidate: _unit(candidate.cosine)
    if mode == "lexical":
        return share
    lead = 1 - second / best if best > 0 else 0.0
    dense = _DENSE_SHARE * (1 - _LEAD_COUNTS * lead)
    return lambda candidate: dense * _unit(candidate.cosine) + (1 - dense) * share(candidate)


def _unit(value: float) -> float:
    return min(max(value, 0.0), 1.0)
