"""Fewer of the same: no passage twice, a bound per document, and passages that say something new."""

from __future__ import annotations

import math
import sys
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from operator import mul

from rag.types import Candidate, Vector

# Named after the setting that it carries over; the work grows with candidates × wanted.
MMR_MAX_CANDIDATES = 50

Ranked = Sequence[tuple[Candidate, float]]


def repeats_last(ranked: Ranked) -> list[tuple[Candidate, float]]:
    """Put every chunk whose very words a better one has behind all others; none is lost."""
    first: dict[bytes, tuple[Candidate, float]] = {}
    repeats = [pair for pair in ranked if first.setdefault(pair[0].content_hash, pair) is not pair]
    return [*first.values(), *repeats]


def cap(ranked: Ranked, most: int) -> list[tuple[Candidate, float]]:
    """Keep at most `most` chunks of each document, its best ones, in the order given."""
    seen: Counter[uuid.UUID] = Counter()
    kept = []
    for candidate, score in ranked:
        seen[candidate.document_id] += 1
        if seen[candidate.document_id] <= most:
            kept.append((candidate, score))
    return kept


def diversify(
    ranked: Ranked, vectors: Mapping[uuid.UUID, Vector], *, weight: float, wanted: int
) -> list[tuple[Candidate, float]]:
    """Choose `wanted` of the candidates, each for its score and for how little it resembles those before it.

    Maximal marginal relevance (Carbonell and Goldstein, 1998): the next is the one with the largest
    weight · score − (1 − weight) · largest cosine to one that was chosen, at least 0. `weight` 1 keeps the order given.
    Only the first 50 take part; should more be wanted, the others follow as they stood. One without a vector resembles
    none.
    """
    if weight >= 1:
        return list(ranked[:wanted])
    rest = list(ranked[:MMR_MAX_CANDIDATES])
    units = {candidate.chunk_id: _unit(vectors.get(candidate.chunk_id)) for candidate, _ in rest}
    likeness = [0.0] * len(rest)
    chosen: list[tuple[Candidate, float]] = []
    while rest and len(chosen) < wanted:
        # The first of equals: where likeness says nothing, the order given does.
        best = max(range(len(rest)), key=lambda n: weight * rest[n][1] - (1 - weight) * likeness[n])
        chosen.append(rest.pop(best))
        likeness.pop(best)
        latest = units[chosen[-1][0].chunk_id]
        cosines = (_dot(units[candidate.chunk_id], latest) for candidate, _ in rest)
        likeness = [max(pair) for pair in zip(likeness, cosines, strict=True)]
    return [*chosen, *ranked[MMR_MAX_CANDIDATES:]][:wanted]


def _unit(vector: Vector | None) -> list[float]:
    values = list(vector or ())
    length = math.sqrt(_dot(values, values))
    return [value / length for value in values] if length > 0 else []


if sys.version_info >= (3, 12):
    _dot = math.sumprod
else:

    def _dot(one: Sequence[float], other: Sequence[float]) -> float:
        return float(sum(map(mul, one, other)))
