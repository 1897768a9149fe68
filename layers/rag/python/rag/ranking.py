"""From two scores to one order, and whether the best is good enough to answer from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rag.types import Candidate, Hit, Mode

_DENSE_SHARE = 0.6
_LEXICAL_SHARE = 0.4

# Calibrated: see `relevant`.
_LEAST_MATCH = 0.3


def fuse(candidates: Sequence[Candidate], *, mode: Mode) -> list[tuple[Candidate, float]]:
    """Order candidates best first, with scores in [0, 1].

    hybrid: 0.6 · cosine + 0.4 · BM25 / best BM25 of the question; dense: cosine; lexical: BM25 / best BM25. Cosines below
    zero count as zero. Equal scores are ordered by chunk id, so that the same index gives the same order.
    """
    score = _scoring(mode, max((candidate.bm25 for candidate in candidates), default=0.0))
    return sorted(
        ((candidate, score(candidate)) for candidate in candidates), key=lambda pair: (-pair[1], pair[0].chunk_id)
    )


def match(hit: Hit, possible_bm25: float) -> float:
    """How well a hit fits the question by itself, in [0, 1]: 0.6 · cosine + 0.4 · share of the question's idf it meets."""
    met = min(hit.bm25 / possible_bm25, 1.0) if possible_bm25 > 0 else 0.0
    return _DENSE_SHARE * min(max(hit.cosine, 0.0), 1.0) + _LEXICAL_SHARE * met


def relevant(hits: Sequence[Hit], possible_bm25: float, *, min_score: float | None = None) -> bool:
    """Whether any hit is worth answering from."""
    least = _LEAST_MATCH if min_score is None else min_score
    return any(match(hit, possible_bm25) >= least for hit in hits)


def _scoring(mode: Mode, best_bm25: float) -> Callable[[Candidate], float]:
    def cosine(candidate: Candidate) -> float:
        return min(max(candidate.cosine, 0.0), 1.0)

    def bm25(candidate: Candidate) -> float:
        return candidate.bm25 / best_bm25 if best_bm25 > 0 else 0.0

    if mode == "dense":
        return cosine
    if mode == "lexical":
        return bm25
    return lambda candidate: _DENSE_SHARE * cosine(candidate) + _LEXICAL_SHARE * bm25(candidate)
