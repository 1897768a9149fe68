"""What the models are asked for one request or one document, counted, and refused beyond a budget."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

from rag.deadline import Deadline
from rag.errors import BudgetError, UnavailableError
from rag.spending import Reservation, Settlement
from rag.tokens import estimate
from rag.types import Completion, Usage, Vector


class LLM(Protocol):
    embedding_model: str
    dimensions: int
    chat_model: str
    answer_tokens: int

    def require_embedding(self) -> None: ...
    def embed(self, texts: Sequence[str], deadline: Deadline, used: Usage | None = None) -> list[Vector]: ...
    def complete(
        self,
        messages: Sequence[dict[str, str]],
        deadline: Deadline,
        *,
        most_tokens: int | None = None,
        used: Usage | None = None,
    ) -> Completion: ...
    def stream(
        self,
        messages: Sequence[dict[str, str]],
        deadline: Deadline,
        say: Callable[[str], None],
        *,
        most_tokens: int | None = None,
        used: Usage | None = None,
    ) -> Completion: ...


class Ledger(Protocol):
    def require(self, tenant_id: uuid.UUID, principal: str) -> None: ...
    def reserve(
        self, tenant_id: uuid.UUID, principal: str, model: str, *, prompt_tokens: int, completion_tokens: int
    ) -> Reservation: ...
    def settle(self, settlement: Settlement) -> None: ...


class Postponing:
    """The ledger for one request, whose last settlement waits until it is written with something else.

    What was paid for is not thrown away where it cannot be counted: the estimate stays, if there is one.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: Settlement | None = None

    def require(self, tenant_id: uuid.UUID, principal: str) -> None:
        self._ledger.require(tenant_id, principal)

    def reserve(
        self, tenant_id: uuid.UUID, principal: str, model: str, *, prompt_tokens: int, completion_tokens: int
    ) -> Reservation:
        self.settle_now()
        return self._ledger.reserve(
            tenant_id, principal, model, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens
        )

    def settle(self, settlement: Settlement) -> None:
        self.settle_now()
        self._waiting = settlement

    def settle_now(self) -> None:
        """Settle what waits, in a round trip of its own."""
        if (settlement := self.taken()) is not None:
            with suppress(UnavailableError):
                self._ledger.settle(settlement)

    def taken(self) -> Settlement | None:
        """Return what waits, for the caller to settle."""
        settlement, self._waiting = self._waiting, None
        return settlement


class Metered:
    """The model for one request of a caller, or one document; `used` is what it has come to, whatever became of it.

    Where there is a budget, each call is counted before it is made, by what it takes at most, and corrected by what the
    model says that it took. One that fails costs its requests and no tokens; one that is broken off, as by a listener
    who leaves, what it was to take at most. BudgetError when tenant or caller have no room for it.
    """

    def __init__(self, llm: LLM, ledger: Ledger, tenant_id: uuid.UUID, principal: str) -> None:
        self._llm = llm
        self._ledger = ledger
        self._payer = (tenant_id, principal)
        self.used = Usage()
        self.embedding_model = llm.embedding_model
        self.dimensions = llm.dimensions
        self.chat_model = llm.chat_model

    def require_embedding(self) -> None:
        """Raise what an `embed` would now, where that is known without asking anybody."""
        with self._refusals():
            self._ledger.require(*self._payer)
        self._llm.require_embedding()

    def embed(self, texts: Sequence[str], deadline: Deadline) -> list[Vector]:
        with self._paid(self.embedding_model, Usage(prompt_tokens=sum(map(estimate, texts)))) as call:
            return self._llm.embed(texts, deadline, call)

    def complete(
        self, messages: Sequence[dict[str, str]], deadline: Deadline, *, most_tokens: int | None = None
    ) -> Completion:
        with self._paid(self.chat_model, self._most(messages, most_tokens)) as call:
            return self._llm.complete(messages, deadline, most_tokens=most_tokens, used=call)

    def stream(
        self,
        messages: Sequence[dict[str, str]],
        deadline: Deadline,
        say: Callable[[str], None],
        *,
        most_tokens: int | None = None,
    ) -> Completion:
        with self._paid(self.chat_model, self._most(messages, most_tokens)) as call:
            return self._llm.stream(messages, deadline, say, most_tokens=most_tokens, used=call)

    def _most(self, messages: Sequence[dict[str, str]], most_tokens: int | None) -> Usage:
        asked = sum(estimate(message["content"]) for message in messages)
        answered = min(most_tokens or self._llm.answer_tokens, self._llm.answer_tokens)
        return Usage(prompt_tokens=asked, completion_tokens=answered)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except BudgetError:
            self.used.refused += 1
            raise

    @contextmanager
    def _paid(self, model: str, most: Usage) -> Iterator[Usage]:
        """Reserve `most` for a call, and settle what it came to."""
        with self._refusals():
            reserved = self._ledger.reserve(
                *self._payer, model, prompt_tokens=most.prompt_tokens, completion_tokens=most.completion_tokens
            )
        call = Usage()
        done = False
        try:
            yield call
            done = True
        finally:
            if call.tokens == 0 and (done or call.unfinished):  # the model does not say
                call.prompt_tokens, call.completion_tokens = most.prompt_tokens, most.completion_tokens
            self.used.add(call)
            # What was paid for is not thrown away; the estimate stays, if there is one.
            with suppress(UnavailableError):
                self._ledger.settle(
                    Settlement(
                        *self._payer,
                        model,
                        reserved.day,
                        requests=call.requests - reserved.requests,
                        prompt_tokens=call.prompt_tokens - reserved.prompt_tokens,
                        completion_tokens=call.completion_tokens - reserved.completion_tokens,
                    )
                )
