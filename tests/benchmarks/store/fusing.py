"""How deep the peers' legs go, and the fusion that llama-index leaves to whoever calls its store."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

# Of each leg of a peer's hybrid search; their own defaults are 4 to 10.
LEG_DEPTH = 20

T = TypeVar("T", bound=Hashable)


def reciprocal(*legs: Sequence[T], k: int = 60) -> list[T]:
    """By reciprocal rank fusion, best first."""
    scores: dict[T, float] = {}
    for leg in legs:
        for rank, item in enumerate(leg, start=1):
            scores[item] = scores.get(item, 0.0) + 1 / (k + rank)
    return sorted(scores, key=lambda item: -scores[item])
