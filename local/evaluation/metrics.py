"""The figures of retrieval, each for one question: ranked identities against judged relevance.

Definitions as in trec_eval; nDCG with linear gain (Järvelin and Kekäläinen, 2002).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def ndcg(ranked: Sequence[str], relevant: Mapping[str, int], depth: int) -> float:
    """Gain of the first `depth`, discounted by log2 of the rank, as a share of the best possible; in [0, 1]."""
    possible = _discounted(sorted((grade for grade in relevant.values() if grade > 0), reverse=True)[:depth])
    reached = _discounted([max(relevant.get(identity, 0), 0) for identity in ranked[:depth]])
    return reached / possible if possible else 0.0


def recall(ranked: Sequence[str], relevant: Mapping[str, int], depth: int) -> float:
    """The share of what is relevant that stands among the first `depth`."""
    wanted = {identity for identity, grade in relevant.items() if grade > 0}
    return len(wanted.intersection(ranked[:depth])) / len(wanted) if wanted else 0.0


def reciprocal_rank(ranked: Sequence[str], relevant: Mapping[str, int], depth: int) -> float:
    """One over the rank of the first relevant one among the first `depth`, else 0."""
    places = (place for place, identity in enumerate(ranked[:depth], 1) if relevant.get(identity, 0) > 0)
    return 1 / next(places, math.inf)


def summary(ranked: Mapping[str, Sequence[str]], judgements: Mapping[str, Mapping[str, int]]) -> dict[str, float]:
    """The means over all judged questions; one that was not ranked counts as zero."""
    rows = [(ranked.get(question, ()), relevant) for question, relevant in judgements.items()]
    return {
        "ndcg@10": _mean([ndcg(found, relevant, 10) for found, relevant in rows]),
        "recall@10": _mean([recall(found, relevant, 10) for found, relevant in rows]),
        "recall@100": _mean([recall(found, relevant, 100) for found, relevant in rows]),
        "mrr@10": _mean([reciprocal_rank(found, relevant, 10) for found, relevant in rows]),
    }


def share(hits: int, of: int) -> float | None:
    """A rate, to four digits; None where there was nothing to count."""
    return round(hits / of, 4) if of else None


def _discounted(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(place + 1) for place, gain in enumerate(gains, 1))


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)
