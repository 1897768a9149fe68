"""From a question to passages: both legs in one snapshot, then fusion, diversity and a second look at the order."""

from __future__ import annotations

import base64
import math
import time
import uuid
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rag import lexical, ranking
from rag.deadline import Deadline
from rag.diversifying import MMR_MAX_CANDIDATES, Ranked, cap, diversify, repeats_last, rivals
from rag.errors import UnavailableError
from rag.explaining import Trace
from rag.types import JSON, Candidate, Filters, Fusion, Hit, Mode, Retrieved, Scope, Vector, Whereabouts

EMBED_SECONDS = 8.0
_FUSED_ELSEWHERE = 8
# A list so short may well be of one document.
_CROWD = 5


class Embedder(Protocol):
    embedding_model: str
    dimensions: int

    def embed(self, texts: Sequence[str], deadline: Deadline) -> list[Vector]: ...


class Cache(Protocol):
    def embedding_key(self, tenant_id: uuid.UUID, model: str, dimensions: int, text: str) -> str: ...
    def get(self, key: str) -> JSON | None: ...
    def set(self, key: str, value: JSON) -> None: ...


class Snapshot(Protocol):
    """What ranking may still read of the index that the candidates are of."""

    def vectors(self, chunks: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Vector]: ...
    def keys(self, documents: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, str]: ...
    def whereabouts(self, document: uuid.UUID) -> Whereabouts | None: ...


class Store(Protocol):
    def search(
        self,
        scope: Scope,
        collection: str,
        *,
        embedding: Vector | None,
        lexemes: Callable[[str], Mapping[int, int]],
        rank: Callable[[Sequence[Candidate], Snapshot], Ranked],
        mode: Mode,
        filters: Filters,
        depth: int,
        shown: int | None,
        reads_more: bool,
    ) -> Retrieved: ...


class Reranker(Protocol):
    def rerank(self, tenant_id: uuid.UUID, question: str, hits: Sequence[Hit], deadline: Deadline) -> list[Hit]: ...


@dataclass(frozen=True, slots=True)
class Stages:
    """How candidates become hits.

    fusion, with repeated text behind all other, then at most `per_document` of each document, then the `pool` best (as
    many as are wanted, at least); from these `diversity` (1 − λ of MMR) chooses as many as are wanted, and `rerank`
    puts what is there in order.
    """

    fusion: Fusion = "weighted"
    pool: int = 20
    diversity: float = 0.0
    per_document: int | None = None
    rerank: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, in what scope, of which part of its documents; `why_not` is a document to be told about.

    Every candidate is read where what became of each is `explained`.
    """

    scope: Scope
    text: str
    collection: str = "default"
    mode: Mode = "hybrid"
    filters: Filters = field(default_factory=Filters)
    top_k: int = 10
    stages: Stages = field(default_factory=Stages)
    why_not: uuid.UUID | None = None
    explained: bool = False

    @property
    def tenant_id(self) -> uuid.UUID:
        return self.scope.tenant_id


@dataclass(frozen=True, slots=True)
class Found:
    """Hits, best first; `possible_bm25` is what an ordinary chunk with all the question's lexemes would score.

    `reranked` is the reranker's whole order where there was one, of which `hits` is the beginning.
    """

    hits: list[Hit]
    language: str
    possible_bm25: float
    degraded: str | None
    timings_ms: dict[str, float]
    trace: Trace
    reranked: list[Hit] | None = None

    @property
    def crowded(self) -> bool:
        """Whether one document has the whole of a list."""
        return len(self.hits) >= _CROWD and len({hit.document_id for hit in self.hits}) == 1


def search(
    question: Question,
    *,
    llm: Embedder,
    store: Store,
    cache: Cache,
    deadline: Deadline,
    reranker: Reranker | None = None,
) -> Found:
    """Retrieve from both legs in one snapshot, fuse them, and choose and order what is returned.

    When the model cannot embed the question a hybrid search goes on with the lexical leg alone and says so; a dense one
    raises UnavailableError. A reranker that fails leaves the order as it was, and that is said. NotFoundError for an
    unknown collection.
    """
    timings = Stopwatch()
    degraded = None
    embedding = None
    mode = question.mode
    if mode != "lexical":
        try:
            with timings.measure("embed"):
                embedding = _embedding(question, llm=llm, cache=cache, deadline=deadline)
        except UnavailableError:
            if mode == "dense":
                raise
            mode, degraded = "lexical", "lexical_only"

    asked, selection = Asked(question.text), Selection(question, mode)
    with timings.measure("search"):
        hits, language, frequencies, chunk_count = store.search(
            question.scope,
            question.collection,
            embedding=embedding,
            lexemes=asked.lexemes,
            rank=selection.rank,
            mode=mode,
            filters=question.filters,
            depth=selection.depth,
            shown=selection.shown,
            reads_more=selection.reads_more,
        )
    reranked = None
    if question.stages.rerank and reranker is not None:
        try:
            with timings.measure("rerank"):
                reranked = reranker.rerank(question.tenant_id, question.text, hits, deadline)
        except UnavailableError:
            degraded = degraded or "not_reranked"
    found = (hits if reranked is None else reranked)[: question.top_k]
    possible = lexical.possible(asked.counts, frequencies, chunk_count)
    return Found(found, language, possible, degraded, timings.milliseconds, selection.trace, reranked)


class Asked:
    """A question's lexemes, as the store finds out the language; `counts` are the last."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.counts: Counter[int] = Counter()

    def lexemes(self, language: str) -> Counter[int]:
        self.counts = lexical.ask(self._text, language)
        return self.counts


class Selection:
    """Chooses among the candidates inside the store's snapshot; `trace` is what each stage left."""

    def __init__(self, question: Question, mode: Mode) -> None:
        self._question = question
        self._mode = mode
        self.depth = _depth(question, mode)
        self.shown = _shown(question, mode)
        self.reads_more = question.stages.diversity > 0 or question.why_not is not None
        self.trace = Trace(mode, question.stages.fusion, (), (), (), self.depth, 0)

    def rank(self, candidates: Sequence[Candidate], snapshot: Snapshot) -> Ranked:
        stages, wanted = self._question.stages, self._question.top_k
        timings = Stopwatch()
        with timings.measure("fuse"):
            fused = self._fused(candidates)
            distinct = repeats_last(fused, snapshot.keys(equals) if (equals := rivals(fused)) else {})
            capped = cap(distinct, stages.per_document) if stages.per_document else None
        pool = (distinct if capped is None else capped)[: max(stages.pool, wanted)]
        diversified = None
        if stages.diversity > 0:
            with timings.measure("diversify"):
                vectors = snapshot.vectors([candidate.chunk_id for candidate, _ in pool[:MMR_MAX_CANDIDATES]])
                diversified = diversify(pool, vectors, weight=1 - stages.diversity, wanted=wanted)
        self.trace = Trace(
            mode=self._mode,
            fusion=stages.fusion,
            candidates=candidates,
            fused=fused,
            distinct=distinct,
            depth=self.depth,
            pool=len(pool),
            capped=capped,
            diversified=diversified,
            asked_about=self._question.why_not,
            whereabouts=snapshot.whereabouts(self._question.why_not) if self._question.why_not else None,
            timings_ms=timings.milliseconds,
        )
        if diversified is not None:
            return diversified.chosen
        return pool if stages.rerank else pool[:wanted]

    def _fused(self, candidates: Sequence[Candidate]) -> Ranked:
        if self._question.stages.fusion == "rrf":
            return ranking.reciprocal(candidates, mode=self._mode, depth=self.depth)
        return ranking.fuse(candidates, mode=self._mode, depth=self.depth)


def _depth(question: Question, mode: Mode) -> int:
    """How many chunks each leg puts forward.

    Where one leg alone makes the order and no stage chooses from it, twice what is wanted is enough: it leaves room for
    repeated text, which goes to the end.
    """
    stages = question.stages
    chosen = stages.per_document or stages.diversity or stages.rerank
    if mode != "hybrid" and not chosen:
        return 2 * question.top_k
    return max(ranking.CANDIDATES_PER_LEG, question.top_k)


def _shown(question: Question, mode: Mode) -> int | None:
    """Of how many candidates the passages are read at once; of all where a stage chooses, or is to be explained.

    Fused, a chunk stands some places elsewhere than its scores alone would put it.
    """
    stages = question.stages
    if stages.per_document or stages.diversity or stages.rerank or stages.fusion == "rrf" or question.explained:
        return None
    return question.top_k + (_FUSED_ELSEWHERE if mode == "hybrid" else 0)


class Stopwatch:
    """Milliseconds by stage, in the order they ran."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.milliseconds[stage] = round((time.perf_counter() - started) * 1000, 2)


def _embedding(question: Question, *, llm: Embedder, cache: Cache, deadline: Deadline) -> Vector:
    key = cache.embedding_key(question.tenant_id, llm.embedding_model, llm.dimensions, question.text)
    stored = cache.get(key)
    if stored is not None:
        kept = _stored_vector(stored, llm.dimensions)
        if kept is not None:
            return kept
    # A model that hangs must leave time for the other leg.
    [vector] = llm.embed([question.text], Deadline.after(deadline.within(EMBED_SECONDS)))
    cache.set(key, {"float32": base64.b64encode(vector.tobytes()).decode()})
    return vector


def _stored_vector(stored: JSON, dimensions: int) -> Vector | None:
    """The cache is not trusted: what does not read as a vector is a miss."""
    vector = array("f")
    try:
        vector.frombytes(base64.b64decode(stored["float32"], validate=True))
    except (KeyError, TypeError, ValueError):
        return None
    norm = math.fsum(value * value for value in vector)
    return vector if len(vector) == dimensions and math.isfinite(norm) and norm > 0 else None
