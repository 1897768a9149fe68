"""Fewer of the same: no passage twice, a bound per document, and passages that say something new."""

from __future__ import annotations

import math
import sys
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from operator import mul
from typing import NamedTuple

from rag.types import Candidate, Vector

# Named after the setting that it carries over; the work grows with candidates × wanted.
MMR_MAX_CANDIDATES = 50

Ranked = Sequence[tuple[Candidate, float]]


class Diversified(NamedTuple):
    """What was chosen, each with the score that it had; `marginal` is what each that took part was chosen for."""

    chosen: list[tuple[Candidate, float]]
    marginal: dict[uuid.UUID, float]


def rivals(ranked: Ranked) -> list[uuid.UUID]:
    """Return the documents with the same text at the same score as another one has, each once."""
    return list(dict.fromkeys(ranked[place][0].document_id for places in _equals(ranked) for place in places))


def repeats_last(ranked: Ranked, keys: Mapping[uuid.UUID, str]) -> list[tuple[Candidate, float]]:
    """Put every chunk whose very words a better one has behind all others; none is lost.

    Of `rivals` the one whose key comes first counts as the better: which of equals is shown should not hang on ids that
    nobody sees.
    """
    ordered = list(ranked)
    if not _repeated(ranked):
        return ordered
    if keys:
        for places in _equals(ranked):
            by_key = sorted(places, key=lambda place: keys.get(ranked[place][0].document_id, ""))
            for place, better in zip(places, by_key, strict=True):
                ordered[place] = ranked[better]
    first: dict[bytes, tuple[Candidate, float]] = {}
    repeats = [pair for pair in ordered if first.setdefault(pair[0].content_hash, pair) is not pair]
    return [*first.values(), *repeats]


def _repeated(ranked: Ranked) -> bool:
    """Whether any text is there twice: seldom, and what follows then costs ten times as much."""
    return len({candidate.content_hash for candidate, _ in ranked}) < len(ranked)


def _equals(ranked: Ranked) -> list[list[int]]:
    """The places of chunks of several documents that have one text and one score, together."""
    if not _repeated(ranked):
        return []
    groups: dict[tuple[bytes, float], list[int]] = {}
    for place, (candidate, score) in enumerate(ranked):
        groups.setdefault((candidate.content_hash, score), []).append(place)
    return [places for places in groups.values() if len({ranked[place][0].document_id for place in places}) > 1]


def cap(ranked: Ranked, most: int) -> list[tuple[Candidate, float]]:
    """Keep at most `most` chunks of each document, its best ones, in the order given."""
    seen: Counter[uuid.UUID] = Counter()
    kept = []
    for candidate, score in ranked:
        seen[candidate.document_id] += 1
        if seen[candidate.document_id] <= most:
            kept.append((candidate, score))
    return kept


def diversify(ranked: Ranked, vectors: Mapping[uuid.UUID, Vector], *, weight: float, wanted: int) -> Diversified:
    """Choose `wanted` of the candidates, each for its score and for how little it resembles those before it.

    Maximal marginal relevance (Carbonell and Goldstein, 1998): the next is the one with the largest
    weight · score − (1 − weight) · largest cosine to one that was chosen, at least 0. `weight` 1 keeps the order given.
    Only the first 50 take part; should more be wanted, the others follow as they stood. One without a vector resembles
    none.
    """
    if weight >= 1:
        return Diversified(list(ranked[:wanted]), {})
    rest = list(ranked[:MMR_MAX_CANDIDATES])
    units = {candidate.chunk_id: _unit(vectors.get(candidate.chunk_id)) for candidate, _ in rest}
    likeness = [0.0] * len(rest)
    chosen: list[tuple[Candidate, float]] = []
    marginal: dict[uuid.UUID, float] = {}
    while rest and len(chosen) < wanted:
        margins = [weight * score - (1 - weight) * alike for (_, score), alike in zip(rest, likeness, strict=True)]
        # The first of equals: where likeness says nothing, the order given does.
        best = max(range(len(rest)), key=margins.__getitem__)
        chosen.append(rest.pop(best))
        likeness.pop(best)
        latest_id = chosen[-1][0].chunk_id
        marginal[latest_id] = margins[best]
        latest = units[latest_id]
        cosines = (_dot(units[candidate.chunk_id], latest) for candidate, _ in rest)
        likeness = [max(pair) for pair in zip(likeness, cosines, strict=True)]
    return Diversified([*chosen, *ranked[MMR_MAX_CANDIDATES:]][:wanted], marginal)


def _unit(vector: Vector | None) -> list[float]:
    values = list(vector or ())
    length = math.sqrt(_dot(values, values))
    return [value / length for value in values] if length > 0 else []


if sys.version_info >= (3, 12):
    _dot = math.sumprod
else:

    def _dot(one: Sequence[float], other: Sequence[float]) -> float:
        return float(sum(map(mul, one, other)))
