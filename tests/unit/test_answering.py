"""The search and answer pipelines, step by step, with fakes for the world."""

from __future__ import annotations

import base64
import dataclasses
import re
import uuid
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from rag import answering, lexical, prompting, searching
from rag.answering import MODEL_DECLINES, MODEL_DOWN, WITHHELD, Limits
from rag.deadline import Deadline
from rag.errors import DeclinedError, NotFoundError, UnavailableError
from rag.searching import Question
from rag.types import (
    JSON,
    Answer,
    Candidate,
    Completion,
    Condition,
    Filters,
    Hit,
    Mode,
    Retrieved,
    Scope,
    Style,
    Vector,
)

TENANT = uuid.UUID(int=7)
PASSAGES = ("Refunds are paid within nine working days.", "Parcels arrive after three days by rail.")
VECTOR = array("f", [1.0, 2.0])


@dataclass
class FakeLLM:
    """Says `says`; None where it is down."""

    says: str | None = "Refunds are paid within nine working days. [1]"
    vector: Vector | None = field(default_factory=lambda: VECTOR)
    embedding_model: str = "embedder"
    dimensions: int = 2
    chat_model: str = "chatter"
    error: Exception | None = None
    embedded: list[str] = field(default_factory=list)
    asked: list[Sequence[dict[str, str]]] = field(default_factory=list)

    def embed(self, texts: Sequence[str], deadline: Deadline) -> list[Vector]:
        self.embedded += texts
        if self.vector is None:
            raise UnavailableError("down")
        return [self.vector for _ in texts]

    def complete(
        self, messages: Sequence[dict[str, str]], deadline: Deadline, *, most_tokens: int | None = None
    ) -> Completion:
        self.asked.append(messages)
        if self.says is None:
            raise UnavailableError("down")
        if self.error is not None:
            raise self.error
        return Completion(self.says, self.chat_model, 10, 5)

    def stream(
        self,
        messages: Sequence[dict[str, str]],
        deadline: Deadline,
        say: Callable[[str], None],
        *,
        most_tokens: int | None = None,
    ) -> Completion:
        """Word by word; what is behind the last `|` is never said, because then it goes down."""
        text, broken, _ = (self.says or "").rpartition("|")
        for word in re.findall(r"\s*\S+", text or self.says or ""):
            say(word)
        if broken:
            raise UnavailableError("down")
        return self.complete(messages, deadline, most_tokens=most_tokens)


@dataclass
class FakeListener:
    """What it heard, in order; with `leaves_after` pieces it is gone."""

    heard: list[str] = field(default_factory=list)
    leaves_after: int = 1000

    def found(self, hits: Sequence[Hit]) -> None:
        self.heard.append(f"{len(hits)} hits")

    def said(self, piece: str) -> None:
        if len(self.heard) > self.leaves_after:
            raise InterruptedError
        if piece:
            self.heard.append(piece)


@dataclass
class FakeCache:
    """A dictionary; `landing` is what somebody else's flight brings."""

    entries: dict[str, JSON] = field(default_factory=dict)
    landing: JSON | None = None

    def embedding_key(self, tenant_id: uuid.UUID, model: str, dimensions: int, text: str) -> str:
        return repr((tenant_id, model, text))

    def answer_key(self, tenant_id: uuid.UUID, *parts: object) -> str:
        return repr((tenant_id, parts))

    def get(self, key: str) -> JSON | None:
        return self.entries.get(key)

    def set(self, key: str, value: JSON) -> None:
        self.entries[key] = value

    @contextmanager
    def flight(self, key: str, *, wait_seconds: float) -> Iterator[JSON | None]:
        yield self.landing


@dataclass
class FakeStore:
    """Every passage is a candidate, with these scores; `met` is the share of the question's words that it has."""

    passages: Sequence[str] = PASSAGES
    cosine: float = 0.8
    met: float = 1.0
    seen: dict[str, Any] = field(default_factory=dict)

    def search(
        self,
        scope: Scope,
        collection: str,
        *,
        embedding: Vector | None,
        lexemes: Callable[[str], Mapping[int, int]],
        rank: Callable[[Sequence[Candidate], Any], Sequence[tuple[Candidate, float]]],
        mode: Mode,
        filters: Filters,
        depth: int,
        shown: int | None,
        reads_more: bool,
    ) -> Retrieved:
        if collection == "absent":
            raise NotFoundError("there is no collection 'absent'")
        counts = lexemes("english")
        frequencies = dict.fromkeys(counts, 1)
        weights = lexical.question(counts, frequencies, len(self.passages))
        self.seen = {
            "tenant": scope.tenant_id,
            "embedding": embedding,
            "mode": mode,
            "filters": filters,
            "weights": weights,
        }
        bm25 = self.met * sum(weights.values())
        found = {uuid.UUID(int=n + 1): passage for n, passage in enumerate(self.passages)}
        candidates = [
            Candidate(chunk, TENANT, chunk.bytes, self.cosine - n / 10, bm25) for n, chunk in enumerate(found)
        ]
        ranked = rank(candidates, self)
        hits = [hit(candidate, score, found[candidate.chunk_id]) for candidate, score in ranked]
        return Retrieved(hits, "english", frequencies, len(self.passages))


def hit(candidate: Candidate, score: float, content: str) -> Hit:
    return Hit(
        chunk_id=candidate.chunk_id,
        document_id=candidate.document_id,
        collection="default",
        key="faq.md",
        title="FAQ",
        page=None,
        heading=None,
        position=0,
        content=content,
        content_hash=content.encode(),
        score=score,
        cosine=candidate.cosine,
        bm25=candidate.bm25,
    )


@dataclass
class World:
    llm: FakeLLM = field(default_factory=FakeLLM)
    store: FakeStore = field(default_factory=FakeStore)
    cache: FakeCache = field(default_factory=FakeCache)

    def search(self, **asked: Any) -> searching.Found:
        question = Question(Scope(TENANT), asked.pop("text", "How are refunds paid?"), **asked)
        return searching.search(question, llm=self.llm, store=self.store, cache=self.cache, deadline=Deadline.after(10))

    def reply(
        self,
        *,
        seconds: float = 10,
        limits: Limits | None = None,
        style: Style = "short",
        listener: FakeListener | None = None,
        **asked: Any,
    ) -> answering.Reply:
        return answering.answer(
            Question(**{"scope": Scope(TENANT), "text": "How are refunds paid?", **asked}),
            llm=self.llm,
            store=self.store,
            cache=self.cache,
            count_tokens=lambda texts: [len(text) for text in texts],
            limits=limits or Limits(passages=10, context_tokens=10_000, min_score=None),
            deadline=Deadline.after(seconds),
            style=style,
            listener=listener,
        )

    def answer(self, **asked: Any) -> Answer:
        return self.reply(**asked).answer


@pytest.fixture
def world() -> World:
    return World()


def test_a_search_asks_both_legs_and_returns_the_best_first(world: World) -> None:
    filters = Filters((Condition("key", "prefix", "faq", of_document=True),))
    found = world.search(top_k=1, filters=filters)
    assert [one.content for one in found.hits] == [PASSAGES[0]]
    assert (world.store.seen["tenant"], world.store.seen["mode"]) == (TENANT, "hybrid")
    assert (world.store.seen["embedding"], world.store.seen["filters"]) == (VECTOR, filters)
    assert found.possible_bm25 == pytest.approx(sum(world.store.seen["weights"].values()))
    assert list(found.timings_ms) == ["embed", "search"]
    assert found.degraded is None


def test_a_lexical_search_needs_no_model(world: World) -> None:
    world.llm.vector = None
    found = world.search(mode="lexical")
    assert (world.llm.embedded, found.degraded, world.store.seen["embedding"]) == ([], None, None)


def test_a_question_is_embedded_once(world: World) -> None:
    for _ in range(3):
        world.search()
    assert world.llm.embedded == ["How are refunds paid?"]
    assert world.store.seen["embedding"] == VECTOR


def packed(vector: Vector) -> str:
    return base64.b64encode(vector.tobytes()).decode()


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"float32": 5},
        {"float32": "not base64!"},
        {"float32": "QUJD"},
        {"float32": ""},
        {"float32": packed(array("f", [1.0, float("nan")]))},
        {"float32": packed(array("f", [float("inf"), 1.0]))},
        {"float32": packed(array("f", [0.0, 0.0]))},
        {"float32": packed(array("f", [1.0, 2.0, 3.0]))},
    ],
    ids=["nothing", "number", "no base64", "torn", "empty", "not a number", "infinite", "zero", "too wide"],
)
def test_a_cached_embedding_that_is_no_vector_is_a_miss(world: World, entry: JSON) -> None:
    key = world.cache.embedding_key(TENANT, "embedder", 2, "How are refunds paid?")
    world.cache.entries[key] = entry
    assert world.search().degraded is None
    assert world.store.seen["embedding"] == VECTOR
    assert world.cache.entries[key] == {"float32": packed(VECTOR)}


def test_when_questions_cannot_be_embedded_a_hybrid_search_goes_on_by_words_and_says_so(world: World) -> None:
    world.llm.vector = None
    assert world.search().degraded == "lexical_only"
    assert (world.store.seen["mode"], world.store.seen["embedding"]) == ("lexical", None)
    with pytest.raises(UnavailableError):
        world.search(mode="dense")


def test_an_answer_cites_what_it_was_shown_literally(world: World) -> None:
    answer = world.answer()
    assert (answer.text, answer.model) == ("Refunds are paid within nine working days. [1]", "chatter")
    [citation] = answer.citations
    assert (citation.n, citation.quote, citation.hit.content) == (1, PASSAGES[0], PASSAGES[0])
    assert (answer.cached, answer.degraded) == (False, None)
    assert answer.usage == {"prompt_tokens": 10, "completion_tokens": 5}
    assert list(answer.timings_ms) == ["embed", "search", "model", "cite"]


def test_only_the_passages_that_fit_are_shown_and_all_hits_are_returned(world: World) -> None:
    world.llm.says = "Parcels arrive after three days by rail. [2]"
    answer = world.answer(limits=Limits(passages=1, context_tokens=10_000, min_score=None))
    [messages] = world.llm.asked
    assert PASSAGES[0] in messages[-1]["content"]
    assert PASSAGES[1] not in messages[-1]["content"]
    assert len(answer.hits) == 2
    assert (answer.citations, answer.degraded) == ((), "ungrounded")


def test_what_nothing_fits_is_not_answered_and_the_model_not_asked(world: World) -> None:
    world.store = FakeStore(cosine=0.1, met=0.05)
    answer = world.answer()
    assert (answer.text, answer.citations, answer.model) == (prompting.NO_ANSWER, (), None)
    assert (world.llm.asked, len(answer.hits), answer.cached) == ([], 2, False)


def test_an_empty_collection_answers_nothing(world: World) -> None:
    world.store = FakeStore(passages=())
    assert world.answer().text == prompting.NO_ANSWER
    assert world.llm.asked == []


def test_the_relevance_that_is_needed_can_be_set(world: World) -> None:
    strict = Limits(passages=10, context_tokens=10_000, min_score=0.95)
    assert world.answer(limits=strict).text == prompting.NO_ANSWER
    assert world.answer(limits=dataclasses.replace(strict, min_score=0.0)).model == "chatter"


def test_a_model_that_declines_is_taken_at_its_word(world: World) -> None:
    world.llm.says = f'"{prompting.NO_ANSWER}" [1]'.replace(" [1]", "")
    answer = world.answer()
    assert (answer.text, answer.citations, answer.degraded) == (prompting.NO_ANSWER, (), None)


def test_an_answer_without_a_citation_says_that_it_is_ungrounded(world: World) -> None:
    world.llm.says = "It depends."
    answer = world.answer()
    assert (answer.text, answer.degraded) == ("It depends.", "ungrounded")


def test_an_invented_citation_is_dropped_and_said(world: World) -> None:
    world.llm.says = "Refunds are paid within nine working days. [1] The moon is made of cheese. [2][9]"
    answer = world.answer()
    assert [citation.hit.content for citation in answer.citations] == [PASSAGES[0]]
    assert answer.degraded == "ungrounded"
    assert "[2]" not in answer.text
    assert "[9]" not in answer.text


def test_when_the_model_is_down_the_passages_come_without_an_answer(world: World) -> None:
    world.llm.says = None
    answer = world.answer()
    assert (answer.text, answer.degraded, answer.model) == (MODEL_DOWN, "retrieval_only", None)
    assert [one.content for one in answer.hits] == list(PASSAGES)
    assert not [key for key, value in world.cache.entries.items() if "text" in value]


def test_a_model_that_declines_to_answer_leaves_the_passages_and_that_is_said(world: World) -> None:
    world.llm.error = DeclinedError("the model declines to answer")
    answer = world.answer()
    assert (answer.text, answer.degraded, answer.citations) == (MODEL_DECLINES, "retrieval_only", ())
    assert world.cache.entries.keys() == {repr((TENANT, "embedder", "How are refunds paid?"))}


def test_when_time_is_up_after_the_search_the_passages_come_without_an_answer(world: World) -> None:
    answer = world.answer(seconds=-1)
    assert (answer.degraded, len(answer.hits), world.llm.asked) == ("retrieval_only", 2, [])


def test_the_same_question_on_the_same_passages_is_asked_once(world: World) -> None:
    first = world.answer()
    again = world.answer(text="  How  are refunds paid? ")
    assert [first.cached, again.cached] == [False, True]
    assert (again.text, again.citations, again.usage) == (first.text, first.citations, first.usage)
    assert len(world.llm.asked) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"scope": Scope(uuid.UUID(int=8))},
        {"text": "How are refunds paid in March?"},
        {"text": "how are refunds paid?"},
        {"top_k": 1},
    ],
    ids=["tenant", "question", "case", "passages"],
)
def test_anything_that_changes_the_answer_asks_the_model_again(world: World, change: dict[str, Any]) -> None:
    world.answer()
    assert world.answer(**change).cached is False
    assert len(world.llm.asked) == 2


def test_a_changed_passage_a_changed_model_and_changed_rules_ask_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.answer()
    world.store = FakeStore(passages=("Refunds are paid within two working days.", PASSAGES[1]))
    assert world.answer().cached is False
    world.llm.chat_model = "another"
    assert world.answer().cached is False
    monkeypatch.setattr(prompting, "PROMPT_VERSION", "2")
    assert world.answer().cached is False
    assert world.answer().cached is True


@pytest.mark.parametrize(
    "entry",
    [{}, {"text": "Hello"}, {"text": 5, "model": "m", "prompt_tokens": 1, "completion_tokens": 1}],
    ids=["nothing", "half", "wrong type"],
)
def test_a_cached_answer_of_another_shape_is_a_miss(world: World, entry: JSON) -> None:
    world.answer()
    [key] = [key for key, value in world.cache.entries.items() if "text" in value]
    world.cache.entries[key] = entry
    assert world.answer().cached is False
    assert len(world.llm.asked) == 2


def test_citations_of_a_cached_answer_are_verified_again(world: World) -> None:
    world.answer()
    [key] = [key for key, value in world.cache.entries.items() if "text" in value]
    world.cache.entries[key] |= {"text": "The moon is made of cheese. [1]"}
    answer = world.answer()
    assert (answer.cached, answer.citations, answer.degraded) == (True, (), "ungrounded")


def test_what_somebody_else_asked_at_the_same_time_is_not_asked_again(world: World) -> None:
    said = Completion("Refunds are paid within nine working days. [1]", "chatter", 10, 5)
    world.cache.landing = dataclasses.asdict(said)
    answer = world.answer()
    assert (answer.cached, len(answer.citations), world.llm.asked) == (True, 1, [])


def test_a_lexical_answer_says_that_it_had_no_vectors(world: World) -> None:
    world.llm.vector = None
    assert world.answer().degraded == "lexical_only"


def test_an_unknown_collection_is_said_before_the_model_is_asked(world: World) -> None:
    with pytest.raises(NotFoundError):
        world.answer(collection="absent")
    assert world.llm.asked == []


def test_a_listener_hears_the_hits_then_the_words_without_markers_and_the_answer_is_the_same(world: World) -> None:
    world.llm.says = "Refunds are paid [1] within nine working days. [1]"
    listener, again = FakeListener(), FakeListener()
    answer = world.answer(listener=listener)
    assert listener.heard[0] == "2 hits"
    assert "".join(listener.heard[1:]) == "Refunds are paid within nine working days."
    assert len(listener.heard) > 5
    repeated = world.answer(listener=again)
    assert again.heard == ["2 hits", "Refunds are paid within nine working ", "days."]
    assert (answer.cached, repeated.cached) == (False, True)
    assert dataclasses.replace(repeated, cached=False, timings_ms={}) == dataclasses.replace(answer, timings_ms={})
    assert world.answer().text == answer.text


def test_a_listener_hears_what_somebody_else_was_told(world: World) -> None:
    world.cache.landing = {"text": "Nine days. [1]", "model": "chatter", "prompt_tokens": 1, "completion_tokens": 1}
    listener = FakeListener()
    assert world.answer(listener=listener).cached
    assert listener.heard == ["2 hits", "Nine ", "days."]


def test_a_model_that_tells_its_rules_is_not_heard_and_not_answered_with(world: World) -> None:
    rules = prompting.prompt("x", (), budget_tokens=1, count_tokens=lambda _: []).rules
    world.llm.says = f"Gladly: {rules}"
    listener = FakeListener()
    answer = world.answer(listener=listener)
    assert (answer.text, answer.degraded, answer.citations, answer.model) == (WITHHELD, "retrieval_only", (), None)
    assert "You answer questions from" not in "".join(listener.heard)
    assert world.answer().text == WITHHELD
    assert world.answer().text == WITHHELD  # also when it comes out of the cache


def test_an_answer_is_neutral_text_and_keeps_the_addresses_that_passages_hold(world: World) -> None:
    world.store.passages = ["Refunds are described at https://docs.example.com/refunds and in faq.md."]
    world.llm.says = (
        "Refunds are described at https://docs.example.com/refunds and ![x](https://evil.example/?q=1). [1]"
    )
    listener = FakeListener()
    answer = world.answer(listener=listener)
    assert answer.text == "Refunds are described at `https://docs.example.com/refunds` and ![x] (…). [1]"
    assert "".join(listener.heard[1:]) == answer.text.removesuffix(" [1]")


def test_a_stream_that_breaks_leaves_passages_and_is_not_cached(world: World) -> None:
    world.llm.says = "Refunds are |paid."
    listener = FakeListener()
    answer = world.answer(listener=listener)
    assert listener.heard == ["2 hits", "Refunds "]
    assert (answer.text, answer.degraded, answer.citations) == (MODEL_DOWN, "retrieval_only", ())
    world.llm.says = "Refunds are paid within nine working days. [1]"
    assert not world.answer().cached


def test_a_listener_who_leaves_ends_the_work_and_nothing_is_cached(world: World) -> None:
    with pytest.raises(InterruptedError):
        world.answer(listener=FakeListener(leaves_after=2))
    assert not world.answer().cached


def test_who_asks_what_nothing_answers_hears_the_hits_and_no_words(world: World) -> None:
    world.store.cosine = world.store.met = 0.0
    listener = FakeListener()
    assert world.answer(listener=listener).text == prompting.NO_ANSWER
    assert listener.heard == ["2 hits"]
