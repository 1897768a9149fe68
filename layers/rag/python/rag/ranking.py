"""From two scores to one order, and whether what was found is worth answering from."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Literal

from rag.types import Candidate, Hit, Mode

Leg = Literal["dense", "lexical"]

# Chosen on the development sets (docs/decisions/0008): the dense leg's share where several chunks match the words
# equally well, how much of it goes to the lexical leg when one chunk alone does, and what a second chunk of the same
# document adds.
_DENSE_SHARE = 0.62
_LEAD_COUNTS = 0.3
_SECOND_COUNTS = 0.05

# As many chunks as each leg puts forward, at least.
CANDIDATES_PER_LEG = 50

_RRF_K = 60

# Embedding model → the `relevance` that an answer needs.
# all-MiniLM-L6-v2 is calibrated on six development sets: their own questions are to be answered, those of another set
# are not. 0.30 keeps 99.0 % of the first and turns away 85 % of the second; 0.28 is 99.9 % and 80 %, 0.32 is 98.8 % and
# 89 %. One leg alone turns away 67 % (cosine) or 83 % (BM25) where it keeps 99 %.
LEAST_RELEVANCE = {"all-MiniLM-L6-v2": 0.30, "sentence-transformers/all-MiniLM-L6-v2": 0.30, "all-minilm": 0.30}
# Of a model that nobody has calibrated it is not known how near its cosines of unrelated texts come to each other. This
# turns away only what neither leg sees anything in; the rest is the chat model's to decline.
UNCALIBRATED_RELEVANCE = 0.15


def fuse(
    candidates: Sequence[Candidate], *, mode: Mode, depth: int = CANDIDATES_PER_LEG
) -> list[tuple[Candidate, float]]:
    """Order candidates best first, with scores in [0, 1] that compare hits of one question, not questions.

    hybrid: w · cosine + (1 - w) · BM25 / best BM25 of the question, where w = 0.62 · (1 - 0.3 · lead) and `lead` is by
    which share the best BM25 exceeds the second: a chunk that alone has the question's words is seldom wrong. To this
    each chunk gets a twentieth of what the second best chunk of its document has: a document that fits in two places is
    more likely meant. dense: cosine; lexical: BM25 / best BM25. A cosine below zero counts as zero. Equal scores are
    ordered by cosine, BM25 and chunk id, so the same index gives the same order.

    `depth` is how many chunks each leg put forward. Those that are among the first 50 of neither come after all others,
    so that a longer list begins like a shorter one.
    """
    scores = _scores(mode, candidates)
    if mode != "hybrid":
        return _sorted(candidates, scores)
    if depth <= CANDIDATES_PER_LEG:
        return _sorted(candidates, _seconded(candidates, scores))
    near = _near(candidates)
    leads = [candidate.chunk_id in near for candidate in candidates]
    follows = [not leading for leading in leads]
    ahead = list(compress(candidates, leads))
    fused = _sorted(ahead, _seconded(ahead, list(compress(scores, leads))))
    last = fused[-1][1] if fused else 0.0
    behind = _sorted(list(compress(candidates, follows)), list(compress(scores, follows)))
    return [*fused, *((candidate, min(score, last)) for candidate, score in behind)]


def reciprocal(
    candidates: Sequence[Candidate], *, mode: Mode, depth: int = CANDIDATES_PER_LEG
) -> list[tuple[Candidate, float]]:
    """Order candidates by reciprocal rank fusion (Cormack et al., 2009; k = 60), best first, with scores in [0, 1].

    The sum of 1 / (60 + rank) over the legs that a candidate is in, divided by what being first in each gives. Equal
    sums are ordered by the scores of the legs and by chunk id.
    """
    legs = [leg for leg in leg_ranks(candidates, mode=mode, depth=depth).values() if leg is not None]
    most = len(legs) / (_RRF_K + 1)

    def score(chunk: uuid.UUID) -> float:
        return _unit(sum(1 / (_RRF_K + leg[chunk]) for leg in legs if chunk in leg) / most)

    return _sorted(candidates, [score(candidate.chunk_id) for candidate in candidates])


def leg_ranks(
    candidates: Sequence[Candidate], *, mode: Mode, depth: int = CANDIDATES_PER_LEG
) -> dict[Leg, dict[uuid.UUID, int] | None]:
    """By leg, the rank from 1 of each of the `depth` chunks that it put forward; None for a leg that was not asked.

    Every candidate has both scores, and a leg's best are among them. A chunk without any of the question's words is in
    no lexical order.
    """
    dense = ((candidate.cosine, candidate.chunk_id) for candidate in candidates)
    found = ((candidate.bm25, candidate.chunk_id) for candidate in candidates if candidate.bm25 > 0)
    return {
        "dense": _ranks(dense, depth) if mode != "lexical" else None,
        "lexical": _ranks(found, depth) if mode != "dense" else None,
    }


def relevance(hits: Sequence[Hit], possible_bm25: float) -> float:
    """How well the best hits fit the question, in [0, 1]; unlike scores of hits it compares between questions.

    The mean of the best cosine and of the best share of the question's idf that a hit meets, where `possible_bm25` is
    what `lexical.possible` says. A leg that found nothing, or was not asked, is left out of the mean.
    """
    cosine = max((_unit(hit.cosine) for hit in hits), default=0.0)
    met = max((_unit(hit.bm25 / possible_bm25) for hit in hits), default=0.0) if possible_bm25 > 0 else 0.0
    legs = [leg for leg in (cosine, met) if leg > 0]
    return sum(legs) / len(legs) if legs else 0.0


def least_relevance(embedding_model: str) -> float:
    """The `relevance` that an answer needs where `RAG_MIN_SCORE` says nothing."""
    return LEAST_RELEVANCE.get(embedding_model, UNCALIBRATED_RELEVANCE)


def relevant(hits: Sequence[Hit], possible_bm25: float, *, least: float) -> bool:
    """Whether to answer from the hits: when there are any, and their `relevance` is at least `least`."""
    return bool(hits) and relevance(hits, possible_bm25) >= least


def _near(candidates: Sequence[Candidate]) -> set[uuid.UUID]:
    """The chunks that are among the best of a leg."""
    legs = leg_ranks(candidates, mode="hybrid", depth=CANDIDATES_PER_LEG)
    return {chunk for leg in legs.values() if leg for chunk in leg}


# Lists and not calls for each candidate: a question has a hundred.
def _scores(mode: Mode, candidates: Sequence[Candidate]) -> list[float]:
    if mode == "dense":
        return [_unit(candidate.cosine) for candidate in candidates]
    found = [candidate.bm25 for candidate in candidates]
    best, second = [*sorted(found, reverse=True)[:2], 0.0, 0.0][:2]
    whole = best if best > 0 else 1.0
    if mode == "lexical":
        return [bm25 / whole for bm25 in found]
    lead = 1 - second / best if best > 0 else 0.0
    dense = _DENSE_SHARE * (1 - _LEAD_COUNTS * lead)
    lexical = 1 - dense
    return [
        dense * (cosine if 0.0 <= cosine <= 1.0 else 0.0 if cosine < 0.0 else 1.0) + lexical * (bm25 / whole)
        for _, _, _, cosine, bm25 in candidates
    ]


def _seconded(candidates: Sequence[Candidate], scores: Sequence[float]) -> list[float]:
    """The scores, and to each what the second best chunk of its document adds."""
    # By their numbers: to hash an id is a call of Python.
    documents = [candidate.document_id.int for candidate in candidates]
    seen: set[int] = set()
    seconding: dict[int, float] = {}
    for place in sorted(range(len(scores)), key=scores.__getitem__, reverse=True):
        document = documents[place]
        if document not in seen:
            seen.add(document)
        elif document not in seconding:
            seconding[document] = scores[place]
    return [
        (score + _SECOND_COUNTS * second) / (1 + _SECOND_COUNTS)
        for score, second in zip(scores, [seconding.get(document, 0.0) for document in documents], strict=True)
    ]


def _sorted(candidates: Sequence[Candidate], scores: Sequence[float]) -> list[tuple[Candidate, float]]:
    # Tuples that compare as they are: no key is computed for each.
    ordered = sorted(
        [(-score, -one.cosine, -one.bm25, one.chunk_id, one) for one, score in zip(candidates, scores, strict=True)]
    )
    return [(candidate, -negated) for negated, _, _, _, candidate in ordered]


def _ranks(scores: Iterable[tuple[float, uuid.UUID]], depth: int) -> dict[uuid.UUID, int]:
    best = sorted(scores, key=lambda pair: (-pair[0], pair[1]))[:depth]
    return {chunk: rank for rank, (_, chunk) in enumerate(best, start=1)}


def _unit(value: float) -> float:
    return value if 0.0 <= value <= 1.0 else min(max(value, 0.0), 1.0)
