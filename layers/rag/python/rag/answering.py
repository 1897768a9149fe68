"""From a question to passages, and from passages to an answer that cites them."""

from __future__ import annotations

import base64
import math
import time
import unicodedata
import uuid
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Protocol

from rag import citing, lexical, prompting, ranking
from rag.deadline import Deadline
from rag.errors import UnavailableError
from rag.types import JSON, Answer, Candidate, Completion, Filters, Hit, Mode, Vector

CountTokens = Callable[[Sequence[str]], list[int]]

EMBED_SECONDS = 8.0
# Candidates of each leg that fusion chooses from, whatever number of hits is wanted.
LEAST_DEPTH = 100

MODEL_DOWN = "The model is not available just now. These are the passages that were found."


class LLM(Protocol):
    embedding_model: str
    dimensions: int
    chat_model: str

    def embed(self, texts: Sequence[str], deadline: Deadline) -> list[Vector]: ...
    def complete(self, messages: Sequence[dict[str, str]], deadline: Deadline) -> Completion: ...


class Cache(Protocol):
    def embedding_key(self, model: str, dimensions: int, text: str) -> str: ...
    def answer_key(self, *parts: object) -> str: ...
    def get(self, key: str) -> JSON | None: ...
    def set(self, key: str, value: JSON) -> None: ...
    def flight(self, key: str, *, wait_seconds: float) -> AbstractContextManager[JSON | None]: ...


class Store(Protocol):
    def search(
        self,
        tenant_id: uuid.UUID,
        collection: str,
        *,
        embedding: Vector | None,
        lexemes: Callable[[str], Sequence[int]],
        weigh: Callable[[Mapping[int, int], int], Mapping[int, float]],
        rank: Callable[[Sequence[Candidate]], Sequence[tuple[Candidate, float]]],
        mode: Mode,
        filters: Filters,
        depth: int,
    ) -> tuple[list[Hit], str]: ...


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, of which part of a tenant's documents."""

    tenant_id: uuid.UUID
    text: str
    collection: str = "default"
    mode: Mode = "hybrid"
    filters: Filters = field(default_factory=Filters)
    top_k: int = 10


@dataclass(frozen=True, slots=True)
class Found:
    """Hits, best first; `possible_bm25` is what an ordinary chunk with all the question's lexemes would score."""

    hits: list[Hit]
    language: str
    possible_bm25: float
    degraded: str | None
    timings_ms: dict[str, float]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of what was found an answer is made from; `min_score` None leaves abstention as calibrated."""

    passages: int
    context_tokens: int
    min_score: float | None


def search(question: Question, *, llm: LLM, store: Store, cache: Cache, deadline: Deadline) -> Found:
    """Retrieve from both legs in one snapshot and fuse them.

    When the model cannot embed the question a hybrid search goes on with the lexical leg alone and says so; a dense one
    raises UnavailableError. NotFoundError for an unknown collection.
    """
    timings = Stopwatch()
    degraded = None
    embedding = None
    mode = question.mode
    if mode != "lexical":
        try:
            with timings.measure("embed"):
                embedding = _embedding(question.text, llm=llm, cache=cache, deadline=deadline)
        except UnavailableError:
            if mode == "dense":
                raise
            mode, degraded = "lexical", "lexical_only"

    asked = Asked(question.text)
    with timings.measure("search"):
        hits, language = store.search(
            question.tenant_id,
            question.collection,
            embedding=embedding,
            lexemes=asked.lexemes,
            weigh=asked.weigh,
            rank=lambda candidates: ranking.fuse(candidates, mode=mode)[: question.top_k],
            mode=mode,
            filters=question.filters,
            depth=max(question.top_k, LEAST_DEPTH),
        )
    return Found(hits, language, asked.possible_bm25, degraded, timings.milliseconds)


def answer(
    question: Question,
    *,
    llm: LLM,
    store: Store,
    cache: Cache,
    count_tokens: CountTokens,
    limits: Limits,
    deadline: Deadline,
) -> Answer:
    """Answer from what a search finds now; only the model's words are cached, under the very passages it was shown."""
    timings = Stopwatch()
    found = search(question, llm=llm, store=store, cache=cache, deadline=deadline)
    timings.milliseconds.update(found.timings_ms)
    hits = tuple(found.hits)
    if not ranking.relevant(hits, found.possible_bm25, min_score=limits.min_score):
        return Answer(prompting.NO_ANSWER, (), hits, None, degraded=found.degraded, timings_ms=timings.milliseconds)

    prompt = prompting.prompt(
        question.text, hits[: limits.passages], budget_tokens=limits.context_tokens, count_tokens=count_tokens
    )
    try:
        with timings.measure("model"):
            completion, cached = _completion(question, prompt, llm=llm, cache=cache, deadline=deadline)
    except UnavailableError:
        return Answer(MODEL_DOWN, (), hits, None, degraded="retrieval_only", timings_ms=timings.milliseconds)

    with timings.measure("cite"):
        cited = citing.cite(completion.text, prompt.passages, language=found.language)
    declined = prompting.declines(completion.text)
    ungrounded = bool(cited.dropped) or not (cited.citations or declined)
    return Answer(
        text=prompting.NO_ANSWER if declined else cited.text,
        citations=() if declined else cited.citations,
        hits=hits,
        model=completion.model,
        cached=cached,
        degraded="ungrounded" if ungrounded else found.degraded,
        usage={"prompt_tokens": completion.prompt_tokens, "completion_tokens": completion.completion_tokens},
        timings_ms=timings.milliseconds,
    )


class Asked:
    """A question's lexemes and their weights, as the store finds out language and frequencies."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._counts: Counter[int] = Counter()
        self.possible_bm25 = 0.0

    def lexemes(self, language: str) -> list[int]:
        self._counts = lexical.ask(self._text, language)
        return list(self._counts)

    def weigh(self, frequencies: Mapping[int, int], chunk_count: int) -> dict[int, float]:
        self.possible_bm25 = lexical.possible(self._counts, frequencies, chunk_count)
        return lexical.question(self._counts, frequencies, chunk_count)


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


def _embedding(text: str, *, llm: LLM, cache: Cache, deadline: Deadline) -> Vector:
    key = cache.embedding_key(llm.embedding_model, llm.dimensions, text)
    stored = cache.get(key)
    if stored is not None:
        kept = _stored_vector(stored, llm.dimensions)
        if kept is not None:
            return kept
    # A model that hangs must leave time for the other leg.
    [vector] = llm.embed([text], Deadline.after(deadline.within(EMBED_SECONDS)))
    cache.set(key, {"float32": base64.b64encode(vector.tobytes()).decode()})
    return vector


def _completion(
    question: Question, prompt: prompting.Prompt, *, llm: LLM, cache: Cache, deadline: Deadline
) -> tuple[Completion, bool]:
    """What the model says to these passages, and whether it had said so before."""
    shown = [
        [str(hit.chunk_id), hit.content_hash.hex(), hit.title or hit.key, hit.heading, hit.page]
        for hit in prompt.passages
    ]
    key = cache.answer_key(
        str(question.tenant_id), llm.chat_model, prompting.PROMPT_VERSION, _normalised(question.text), shown
    )
    said = _stored_completion(cache.get(key))
    if said is not None:
        return said, True
    with cache.flight(key, wait_seconds=deadline.within(25) / 2) as landed:
        said = _stored_completion(landed)
        if said is not None:
            return said, True
        completion = llm.complete(prompt.messages, deadline)
        cache.set(key, asdict(completion))
        return completion, False


def _stored_vector(stored: JSON, dimensions: int) -> Vector | None:
    """The cache is not trusted: what does not read as a vector is a miss."""
    vector = array("f")
    try:
        vector.frombytes(base64.b64decode(stored["float32"], validate=True))
    except (KeyError, TypeError, ValueError):
        return None
    norm = math.fsum(value * value for value in vector)
    return vector if len(vector) == dimensions and math.isfinite(norm) and norm > 0 else None


def _stored_completion(stored: JSON | None) -> Completion | None:
    """Nor for answers, whose citations are verified again each time."""
    match stored:
        case {"text": str(text), "model": str(model), "prompt_tokens": int(asked), "completion_tokens": int(said)}:
            return Completion(text, model, asked, said)
        case _:
            return None


def _normalised(question: str) -> str:
    return " ".join(unicodedata.normalize("NFC", question).split())
