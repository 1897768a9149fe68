"""What the models are asked for one request or one document, counted, and refused beyond a budget."""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from rag.deadline import Deadline
from rag.errors import BudgetError, BusyError, UnavailableError
from rag.spending import Reservation, Settlement
from rag.tokens import estimate
from rag.types import Completion, Usage, Vector

# More than ever ask at once.
_THREADS = 32
# How long batches wait while one of them tries whether the model is back, before they are left to another run.
_PATIENCE_SECONDS = 20.0
_PAUSE_SECONDS = 0.5


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


class Places:
    """For the batches that are embedded at once in this process, whoever asks."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self._lock = threading.Lock()
        # Kept: to start one costs as much as it has to do for a short document.
        self.threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="embed")

    @property
    def free(self) -> bool:
        return self._taken < self._most

    def take(self) -> None:
        """Take one, free or not: everybody may have one batch under way."""
        with self._lock:
            self._taken += 1

    def leave(self) -> None:
        with self._lock:
            self._taken -= 1

    @contextmanager
    def one(self) -> Iterator[None]:
        self.take()
        try:
            yield
        finally:
            self.leave()


@dataclass(frozen=True, slots=True)
class _Batch:
    """One that is under way: what it takes at most, what is reserved for it, and what it has come to."""

    number: int
    texts: Sequence[str]
    most: Usage
    reserved: Reservation
    used: Usage
    answer: Future[list[Vector]]


class Metered:
    """The model for one request of a caller, or one document; `used` is what it has come to, whatever became of it.

    Where there is a budget, each call is counted before it is made, by what it takes at most, and corrected by what the
    model says that it took. One that fails costs its requests and no tokens; one that is broken off, as by a listener
    who leaves, what it was to take at most. BudgetError when tenant or caller have no room for it.
    """

    def __init__(
        self, llm: LLM, ledger: Ledger, tenant_id: uuid.UUID, principal: str, places: Places | None = None
    ) -> None:
        self._llm = llm
        self._ledger = ledger
        self._payer = (tenant_id, principal)
        self._places = places or Places(1)
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
        with self._places.one(), self._paid(self.embedding_model, _most_of(texts)) as call:
            return self._llm.embed(texts, deadline, call)

    def embed_each(
        self, batches: Iterable[Sequence[str]], deadline: Deadline
    ) -> Generator[tuple[int, list[Vector]], None, None]:
        """Yield the number of each batch, from 0, and its vectors, in their order.

        While one is under way the next is taken, and sent as well if there is a free place. Once one has failed no
        other is sent; its error is raised behind those that are under way by then, which are paid for. All of it is
        counted in the caller's thread.
        """
        under_way: deque[_Batch] = deque()
        failures: list[Exception] = []

        try:
            for number, texts in enumerate(batches):
                while under_way and (under_way[0].answer.done() or not self._places.free):
                    yield from self._oldest(under_way, failures, deadline)
                most, reserved = _most_of(texts), None
                while not failures and (reserved := self._room(most, wait=bool(under_way))) is None:
                    yield from self._oldest(under_way, failures, deadline)
                if reserved is None:
                    break
                used = Usage()
                self._places.take()
                answer = self._places.threads.submit(self._llm.embed, texts, deadline, used)
                under_way.append(_Batch(number, texts, most, reserved, used, answer))
            while under_way:
                yield from self._oldest(under_way, failures, deadline)
        finally:
            for batch in under_way:
                with suppress(Exception):
                    self._received(batch, batch.answer.result)
        if failures:
            raise failures[0]

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

    def _oldest(
        self, under_way: deque[_Batch], failures: list[Exception], deadline: Deadline
    ) -> Iterator[tuple[int, list[Vector]]]:
        batch = under_way.popleft()
        several = batch.number > 0 or len(under_way) > 0
        try:
            vectors = self._received(batch, lambda: self._answer(batch, deadline, patient=several))
        except Exception as error:  # noqa: BLE001 (it is raised behind the others)
            failures.append(error)
        else:
            yield batch.number, vectors

    def _answer(self, batch: _Batch, deadline: Deadline, *, patient: bool) -> list[Vector]:
        """What is not sent, because the model has asked another of several batches to wait, is sent a little later."""
        until = Deadline.after(min(deadline.remaining(), _PATIENCE_SECONDS))
        answer, spared = batch.answer.result, 0
        while True:
            try:
                return answer()
            except BusyError as error:
                pause = min(error.retry_after_seconds or 0.0, _PAUSE_SECONDS)
                if not patient or batch.used.spared == spared or until.remaining() < pause:
                    raise
            time.sleep(pause)
            answer, spared = partial(self._llm.embed, batch.texts, deadline, batch.used), batch.used.spared

    def _received(self, batch: _Batch, answer: Callable[[], list[Vector]]) -> list[Vector]:
        done = False
        try:
            vectors = answer()
            done = True
        finally:
            self._places.leave()
            self._settle(self.embedding_model, batch.most, batch.reserved, batch.used, done=done)
        return vectors

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except BudgetError:
            self.used.refused += 1
            raise

    def _room(self, most: Usage, *, wait: bool) -> Reservation | None:
        """Reserve for a batch; None where there is no room yet: what is under way may take less than its estimate."""
        if not wait:
            return self._reserve(self.embedding_model, most)
        try:
            return self._ledger.reserve(
                *self._payer, self.embedding_model, prompt_tokens=most.prompt_tokens, completion_tokens=0
            )
        except BudgetError:
            return None

    def _reserve(self, model: str, most: Usage) -> Reservation:
        with self._refusals():
            return self._ledger.reserve(
                *self._payer, model, prompt_tokens=most.prompt_tokens, completion_tokens=most.completion_tokens
            )

    @contextmanager
    def _paid(self, model: str, most: Usage) -> Iterator[Usage]:
        """Reserve `most` for a call, and settle what it came to."""
        reserved = self._reserve(model, most)
        call = Usage()
        done = False
        try:
            yield call
            done = True
        finally:
            self._settle(model, most, reserved, call, done=done)

    def _settle(self, model: str, most: Usage, reserved: Reservation, call: Usage, *, done: bool) -> None:
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


def _most_of(texts: Sequence[str]) -> Usage:
    return Usage(prompt_tokens=sum(map(estimate, texts)))
