"""From passages to an answer that cites them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rag import citing, completing, disarming, prompting, ranking, searching, withholding
from rag.completing import Chat, Say
from rag.deadline import Deadline
from rag.errors import DeclinedError, UnavailableError
from rag.explaining import Answered, Explanation, explain
from rag.prompting import CountTokens
from rag.searching import Embedder, Found, Question, Reranker, Stopwatch, Store
from rag.types import Answer, Completion, Hit, Style
from rag.withholding import WithheldError

MODEL_DOWN = "The model is not available just now. These are the passages that were found."
MODEL_DECLINES = "The model declines to answer this. These are the passages that were found."
WITHHELD = "The model repeated its own instructions, so its answer is withheld. These are the passages that were found."


class LLM(Embedder, Chat, Protocol): ...


class Listener(Protocol):
    """Who hears of an answer while it is made; what a listener raises ends the work.

    What is said is the model's as neutral text, without markers and not yet checked: only the answer itself cites.
    """

    def found(self, hits: Sequence[Hit]) -> None: ...
    def said(self, piece: str) -> None: ...


class Cache(searching.Cache, completing.Cache, Protocol): ...


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of what was found an answer is made from; `min_score` None leaves abstention as calibrated."""

    passages: int
    context_tokens: int
    min_score: float | None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, what was found for it, the relevance that it needed, and the passages that the model was shown.

    `withheld` is whether the model told its rules, `neutralised` whether it wrote an address that nobody had shown it.
    """

    answer: Answer
    found: Found
    least_relevance: float
    shown: tuple[Hit, ...] = ()
    withheld: bool = False
    neutralised: bool = False

    def explain(self) -> Explanation:
        relevance = ranking.relevance(self.found.hits, self.found.possible_bm25)
        answered = Answered(self.answer, relevance, self.least_relevance, self.shown)
        return explain(self.found.trace, self.found.hits, reranked=self.found.reranked, answered=answered)


def answer(
    question: Question,
    *,
    llm: LLM,
    store: Store,
    cache: Cache,
    count_tokens: CountTokens,
    limits: Limits,
    deadline: Deadline,
    reranker: Reranker | None = None,
    style: Style = "short",
    listener: Listener | None = None,
) -> Reply:
    """Answer from what a search finds now; only the model's words are cached, under the very passages it was shown."""
    timings = Stopwatch()
    found = searching.search(question, llm=llm, store=store, cache=cache, deadline=deadline, reranker=reranker)
    timings.milliseconds.update(found.timings_ms)
    if listener is not None:
        listener.found(found.hits)
    least = ranking.least_relevance(llm.embedding_model) if limits.min_score is None else limits.min_score
    if not ranking.relevant(found.hits, found.possible_bm25, least=least):
        return Reply(_without_model(prompting.NO_ANSWER, found, found.degraded, timings), found, least)

    prompt = prompting.prompt(
        question.text,
        found.hits[: max(limits.passages, prompting.MANNERS[style].passages)],
        budget_tokens=limits.context_tokens,
        count_tokens=count_tokens,
        style=style,
    )
    try:
        with timings.measure("model"):
            completion, cached = _completion(question, prompt, style, listener, llm=llm, cache=cache, deadline=deadline)
    except UnavailableError as error:
        words = MODEL_DECLINES if isinstance(error, DeclinedError) else MODEL_DOWN
        return Reply(_without_model(words, found, "retrieval_only", timings), found, least, prompt.passages)
    except WithheldError:
        told = _without_model(WITHHELD, found, "retrieval_only", timings)
        return Reply(told, found, least, prompt.passages, withheld=True)

    with timings.measure("cite"):
        cited = citing.cite(completion.text, prompt.passages, language=found.language)
    declined = prompting.declines(completion.text)
    ungrounded = bool(cited.dropped) or not (cited.citations or declined)
    neutral = disarming.disarm(cited.text, _sources(question, prompt))
    said = Answer(
        text=prompting.NO_ANSWER if declined else neutral,
        citations=() if declined else cited.citations,
        hits=tuple(found.hits),
        model=completion.model,
        cached=cached,
        degraded="ungrounded" if ungrounded else found.degraded,
        usage={"prompt_tokens": completion.prompt_tokens, "completion_tokens": completion.completion_tokens},
        timings_ms=timings.milliseconds,
    )
    neutralised = neutral.count(disarming.LEFT_OUT) > cited.text.count(disarming.LEFT_OUT)
    return Reply(said, found, least, prompt.passages, neutralised=neutralised)


def _without_model(text: str, found: Found, degraded: str | None, timings: Stopwatch) -> Answer:
    return Answer(text, (), tuple(found.hits), None, degraded=degraded, timings_ms=timings.milliseconds)


def _completion(
    question: Question,
    prompt: prompting.Prompt,
    style: Style,
    listener: Listener | None,
    *,
    llm: LLM,
    cache: Cache,
    deadline: Deadline,
) -> tuple[Completion, bool]:
    shown = [
        [str(hit.chunk_id), hit.content_hash.hex(), hit.title or hit.key, hit.heading, hit.page]
        for hit in prompt.passages
    ]
    asked = [style, " ".join(unicodedata.normalize("NFC", question.text).split())]
    heard = _Heard(question, prompt)
    say: Say | None = None if listener is None else lambda piece: listener.said(heard.feed(piece))
    completion, cached = completing.complete(
        prompt.messages,
        key=cache.answer_key(question.tenant_id, llm.chat_model, prompting.PROMPT_VERSION, asked, shown),
        llm=llm,
        cache=cache,
        deadline=deadline,
        most_tokens=prompting.MANNERS[style].most_tokens,
        say=say,
    )
    if withholding.withheld(completion.text, prompt.rules, _texts(prompt)):
        raise WithheldError
    if listener is not None:
        listener.said(heard.end())
    return completion, cached


class _Heard:
    """What is heard of a model's words while they come."""

    def __init__(self, question: Question, prompt: prompting.Prompt) -> None:
        self._unmarked = citing.Unmarked()
        self._guarded = withholding.Guarded(prompt.rules, _texts(prompt))
        self._disarmed = disarming.Disarmed(_sources(question, prompt))

    def feed(self, piece: str) -> str:
        return self._disarmed.feed(self._guarded.feed(self._unmarked.feed(piece)))

    def end(self) -> str:
        rest = self._guarded.feed(self._unmarked.end()) + self._guarded.end()
        return self._disarmed.feed(rest) + self._disarmed.end()


def _texts(prompt: prompting.Prompt) -> list[str]:
    return [hit.content for hit in prompt.passages]


def _sources(question: Question, prompt: prompting.Prompt) -> list[str]:
    """Where an address may stand that an answer repeats: in what the model was shown, and in what it was asked."""
    about = [text for hit in prompt.passages for text in (hit.title, hit.heading, hit.key) if text]
    return [question.text, *about, *_texts(prompt)]
