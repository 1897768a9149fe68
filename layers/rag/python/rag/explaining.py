"""Why a search returned what it did: where each chunk stood after every stage, and where a document fell out."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rag import ranking
from rag.diversifying import Diversified, Ranked
from rag.types import Answer, Candidate, Fusion, Hit, Mode, Status, Whereabouts

Stage = Literal[
    "not_found",
    "other_collection",
    "not_ready",
    "filters",
    "candidates",
    "fusion",
    "repeat",
    "diversity",
    "rerank",
    "threshold",
    "prompt",
    "model",
    "citation",
    "none",
]

_FATES: dict[Stage, str] = {
    "not_found": "There is no such document.",
    "other_collection": "It is in another collection than the one that was searched.",
    "not_ready": "It has no passages yet, or none any more: see its status.",
    "filters": "The filters keep it out.",
    "candidates": "None of its passages is among the best of either leg; compare its best with the last that was.",
    "fusion": "Its best passage stands too low after fusion; a larger top_k reaches further.",
    "repeat": "A better passage, perhaps of another document, has the very same words.",
    "diversity": "Passages before it say much the same.",
    "rerank": "The reranker put others before it.",
    "threshold": "It was found, but nothing found was relevant enough to answer from.",
    "prompt": "It was found, but there was no room for it in what the model was shown.",
    "model": "It was shown to the model, which gave no answer.",
    "citation": "It was shown to the model, and the answer does not cite it.",
    "none": "It did not fall out.",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chunk stands in one leg, or fused: no rank where it was not among the leg's best."""

    rank: int | None
    score: float


@dataclass(frozen=True, slots=True)
class Chosen:
    """Where MMR put a chunk, and for what marginal relevance; None behind those that took part."""

    rank: int
    score: float | None


@dataclass(frozen=True, slots=True)
class Path:
    """One chunk's rank, from 1, after each stage; None after a stage that was not run, or that it did not survive."""

    chunk_id: uuid.UUID
    document_id: uuid.UUID
    dense: Place | None
    lexical: Place | None
    fused: Place | None
    distinct: int | None
    capped: int | None
    diversified: Chosen | None
    reranked: int | None
    returned: int | None


@dataclass(frozen=True, slots=True)
class WhyNot:
    """The stage at which a document fell out, with the path of the chunk of it that came furthest."""

    document_id: uuid.UUID
    stage: Stage
    detail: str
    status: Status | None
    error_code: str | None
    best: Path | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """`left` counts the chunks after each stage; `last` is the lowest score that still counted: in each leg, and fused.

    `relevance` is what abstention compares with `least_relevance`; None where nothing was to be answered.
    """

    mode: Mode
    fusion: Fusion
    left: dict[str, int]
    last: dict[str, float]
    hits: list[Path]
    timings_ms: dict[str, float]
    relevance: float | None = None
    least_relevance: float | None = None
    shown: int | None = None
    why_not: WhyNot | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """What each stage of one search left, best first; kept by reference, so that it costs nothing unless it is read.

    `depth` is how many chunks each leg put forward, `pool` how many of the best were left to choose from after fusion
    and cap.
    """

    mode: Mode
    fusion: Fusion
    candidates: Sequence[Candidate]
    fused: Ranked
    distinct: Ranked
    depth: int
    pool: int
    capped: Ranked | None = None
    diversified: Diversified | None = None
    asked_about: uuid.UUID | None = None
    whereabouts: Whereabouts | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of the hits when a question was answered from them."""

    answer: Answer
    relevance: float
    least_relevance: float
    shown: Sequence[Hit]


def explain(
    trace: Trace, hits: Sequence[Hit], *, reranked: Sequence[Hit] | None = None, answered: Answered | None = None
) -> Explanation:
    """Tell the path of every hit and, if the search was asked about a document, where that fell out.

    `reranked` is the reranker's whole order, of which `hits` is the beginning.
    """
    paths = _Paths(trace, hits, reranked)
    orders = {name: order for name, order in paths.orders.items() if order is not None}
    return Explanation(
        mode=trace.mode,
        fusion=trace.fusion,
        left={name: len(order) for name, order in orders.items()},
        last=paths.last,
        hits=[paths.path(hit.chunk_id) for hit in hits],
        timings_ms=trace.timings_ms,
        relevance=round(answered.relevance, 6) if answered else None,
        least_relevance=answered.least_relevance if answered else None,
        shown=len(answered.shown) if answered else None,
        why_not=_why_not(trace, paths, answered) if trace.asked_about else None,
    )


class _Paths:
    """The ranks of every chunk after every stage."""

    def __init__(self, trace: Trace, hits: Sequence[Hit], reranked: Sequence[Hit] | None) -> None:
        legs = ranking.leg_ranks(trace.candidates, mode=trace.mode, depth=trace.depth)
        self.orders: dict[str, Mapping[uuid.UUID, int] | None] = {
            "dense": legs["dense"],
            "lexical": legs["lexical"],
            "fused": _order(trace.fused),
            "distinct": _order(trace.distinct),
            "capped": _order(trace.capped),
            "diversified": _order(trace.diversified.chosen if trace.diversified else None),
            "reranked": None if reranked is None else _numbered([hit.chunk_id for hit in reranked]),
            "returned": _numbered([hit.chunk_id for hit in hits]),
        }
        self._pool = (trace.distinct if trace.capped is None else trace.capped)[: trace.pool]
        self._scores = {candidate.chunk_id: score for candidate, score in trace.fused}
        self._marginal = trace.diversified.marginal if trace.diversified else {}
        self._candidates = {candidate.chunk_id: candidate for candidate in trace.candidates}
        self._candidates |= {
            candidate.chunk_id: candidate for candidate in (trace.whereabouts.best if trace.whereabouts else ())
        }

    @property
    def last(self) -> dict[str, float]:
        scores = {
            "dense": [self._candidates[chunk].cosine for chunk in self.orders["dense"] or ()],
            "lexical": [self._candidates[chunk].bm25 for chunk in self.orders["lexical"] or ()],
            "fused": [score for _, score in self._pool],
        }
        return {name: round(min(those), 6) for name, those in scores.items() if those}

    def path(self, chunk: uuid.UUID) -> Path:
        candidate = self._candidates[chunk]
        return Path(
            chunk_id=chunk,
            document_id=candidate.document_id,
            dense=self._place("dense", chunk, candidate.cosine),
            lexical=self._place("lexical", chunk, candidate.bm25),
            fused=self._place("fused", chunk, self._scores[chunk]) if chunk in self._scores else None,
            distinct=self._rank("distinct", chunk),
            capped=self._rank("capped", chunk),
            diversified=self._chosen(chunk),
            reranked=self._rank("reranked", chunk),
            returned=self._rank("returned", chunk),
        )

    def furthest(self, document: uuid.UUID) -> uuid.UUID | None:
        """The chunk of a document that stands highest in the last stage that any of them reached."""
        mine = [chunk for chunk, candidate in self._candidates.items() if candidate.document_id == document]
        for name in ("returned", "reranked", "diversified", "capped", "distinct"):
            order = self.orders[name] or {}
            if reached := [chunk for chunk in mine if chunk in order]:
                return min(reached, key=order.__getitem__)
        return mine[0] if mine else None

    def _rank(self, name: str, chunk: uuid.UUID) -> int | None:
        return (self.orders[name] or {}).get(chunk)

    def _chosen(self, chunk: uuid.UUID) -> Chosen | None:
        rank, score = self._rank("diversified", chunk), self._marginal.get(chunk)
        return None if rank is None else Chosen(rank, None if score is None else round(score, 6))

    def _place(self, name: str, chunk: uuid.UUID, score: float) -> Place | None:
        order = self.orders[name]
        return None if order is None else Place(order.get(chunk), round(score, 6))


def _why_not(trace: Trace, paths: _Paths, answered: Answered | None) -> WhyNot:
    document = trace.asked_about
    assert document is not None  # noqa: S101 (why there is something to tell)
    found = trace.whereabouts
    chunk = paths.furthest(document) if found else None
    path = paths.path(chunk) if chunk else None
    stage = (
        _fate_in_index(found, path)
        or _fate_in_ranking(trace, path, len(paths.orders["returned"] or ()))
        or _fate_in_answer(document, answered)
    )
    return WhyNot(
        document_id=document,
        stage=stage,
        detail=_FATES[stage],
        status=found.status if found else None,
        error_code=found.error_code if found else None,
        best=path,
    )


def _fate_in_index(found: Whereabouts | None, path: Path | None) -> Stage | None:
    if found is None:
        return "not_found"
    if not found.in_collection:
        return "other_collection"
    if path is None:
        return "not_ready"
    return None if found.in_filters else "filters"


def _fate_in_ranking(trace: Trace, path: Path | None, returned: int) -> Stage | None:
    if path is None or path.returned is not None:
        return None
    if path.fused is None:
        return "candidates"
    if path.reranked is not None:
        return "rerank"
    reach = returned if trace.diversified is None else trace.pool
    outside = (path.capped or path.distinct or 0) > reach
    if outside and (path.fused.rank or 0) <= reach:
        return "repeat"
    return "fusion" if outside else "diversity"


def _fate_in_answer(document: uuid.UUID, answered: Answered | None) -> Stage:
    if answered is None or any(citation.hit.document_id == document for citation in answered.answer.citations):
        return "none"
    if answered.relevance < answered.least_relevance:
        return "threshold"
    if not any(hit.document_id == document for hit in answered.shown):
        return "prompt"
    return "citation" if answered.answer.model else "model"


def _order(ranked: Ranked | None) -> dict[uuid.UUID, int] | None:
    return None if ranked is None else _numbered([candidate.chunk_id for candidate, _ in ranked])


def _numbered(chunks: Sequence[uuid.UUID]) -> dict[uuid.UUID, int]:
    return {chunk: rank for rank, chunk in enumerate(chunks, start=1)}
