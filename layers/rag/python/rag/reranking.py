"""A second look at the order of passages, by a model that reads them beside the question."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rag import prompting
from rag.completing import Cache, Chat, complete
from rag.deadline import Deadline
from rag.errors import ModelError
from rag.types import Hit

RERANK_SECONDS = 6.0
# Twenty passages of ordinary length; longer ones are cut.
RERANK_TOKENS = 3_000
# What a model can still compare; those behind keep their places.
RERANKED = 50
# `[12] > ` each.
_ANSWER_TOKENS = 400

_NUMBER = re.compile(r"\[\s*(\d{1,4})\s*\]")
# An order may be cut off where the model's tokens ended.
_ORDER = re.compile(rf"{_NUMBER.pattern}(?:\s*>\s*{_NUMBER.pattern})*(?:\s*>\s*(?:\[\s*\d*)?)?\s*\.?")


@dataclass(frozen=True, slots=True)
class Listwise:
    """The chat model is shown all passages at once and answers with their numbers in order.

    Sun et al., 2023, "Is ChatGPT good at search?", with one window for all.
    """

    llm: Chat
    cache: Cache
    count_tokens: Callable[[Sequence[str]], list[int]]

    def rerank(self, tenant_id: uuid.UUID, question: str, hits: Sequence[Hit], deadline: Deadline) -> list[Hit]:
        """Return the same hits, best first; UnavailableError when the model gives no order within six seconds."""
        hits, rest = hits[:RERANKED], hits[RERANKED:]
        if len(hits) < 2:
            return [*hits, *rest]
        messages = prompting.order(question, hits, budget_tokens=RERANK_TOKENS, count_tokens=self.count_tokens)
        completion, _ = complete(
            messages,
            key=self.cache.answer_key(tenant_id, "order", self.llm.chat_model, messages),
            llm=self.llm,
            cache=self.cache,
            deadline=Deadline.after(deadline.within(RERANK_SECONDS)),
            most_tokens=_ANSWER_TOKENS,
        )
        order = ordered(completion.text, len(hits))
        if order is None:
            msg = "the model did not answer with an order of the passages"
            raise ModelError(msg)
        return [*(hits[place] for place in order), *rest]


def ordered(text: str, count: int) -> list[int] | None:
    """Read `[2] > [3] > [1]` as the places 1, 2, 0 of `count` passages; None when no line of the text is such an order.

    Numbers that were not shown and repetitions are left out; what is not named follows in the order it had.
    """
    line = next((line.strip() for line in text.splitlines() if _ORDER.fullmatch(line.strip())), "")
    named = dict.fromkeys(int(number) - 1 for number in _NUMBER.findall(line))
    places = [place for place in named if 0 <= place < count]
    return [*places, *(place for place in range(count) if place not in named)] if places else None
