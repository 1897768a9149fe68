"""Calls to models are counted before they are made, corrected after, and refused beyond the budget."""

from __future__ import annotations

import threading
import uuid
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import pytest

from rag.deadline import Deadline
from rag.errors import BudgetError, UnavailableError
from rag.metering import Metered, Places, Postponing
from rag.spending import Reservation, Settlement
from rag.types import Completion, Usage, Vector

TENANT = uuid.UUID(int=7)
KEY = "key:aB3dE5gH"
TODAY = date(2026, 11, 21)
ASKED = [{"role": "user", "content": "How are refunds paid?"}]


@dataclass
class FakeLLM:
    """Takes `requests` for each call; `tokens` (in, out) is what it says that one took."""

    requests: int = 1
    tokens: tuple[int, int] = (11, 3)
    down: bool = False
    embedding_model: str = "embedder"
    dimensions: int = 2
    chat_model: str = "chatter"
    answer_tokens: int = 50

    def require_embedding(self) -> None:
        return

    def embed(self, texts: Sequence[str], deadline: Deadline, used: Usage | None = None) -> list[Vector]:
        self._use(used, self.tokens[0], 0)
        return [array("f", [1.0, 0.0]) for _ in texts]

    def complete(
        self,
        messages: Sequence[dict[str, str]],
        deadline: Deadline,
        *,
        most_tokens: int | None = None,
        used: Usage | None = None,
    ) -> Completion:
        self._use(used, *self.tokens)
        return Completion("Yes.", "chatter", *self.tokens)

    def stream(
        self,
        messages: Sequence[dict[str, str]],
        deadline: Deadline,
        say: Callable[[str], None],
        *,
        most_tokens: int | None = None,
        used: Usage | None = None,
    ) -> Completion:
        say("Yes.")
        return self.complete(messages, deadline, most_tokens=most_tokens, used=used)

    def _use(self, used: Usage | None, asked: int, answered: int) -> None:
        assert used is not None
        used.requests += self.requests
        if self.down:
            used.errors += self.requests
            raise UnavailableError("down")
        used.prompt_tokens += asked
        used.completion_tokens += answered


class BrokenOff(FakeLLM):
    """Whose listener leaves."""

    def _use(self, used: Usage | None, asked: int, answered: int) -> None:
        assert used is not None
        used.requests += 1
        used.unfinished += 1
        raise InterruptedError


@dataclass
class FakeLedger:
    """A sum per model, and what was in it while a call was made; with `full`, no room; `unlimited`, no budget."""

    sums: dict[str, list[int]] = field(default_factory=dict)
    reserved: list[tuple[int, int]] = field(default_factory=list)
    full: bool = False
    unlimited: bool = False
    away: bool = False

    def require(self, tenant_id: uuid.UUID, principal: str) -> None:
        assert (tenant_id, principal) == (TENANT, KEY)
        if self.full:
            raise BudgetError("used up", datetime(2026, 11, 22, tzinfo=UTC), retry_after_seconds=60)

    def reserve(
        self, tenant_id: uuid.UUID, principal: str, model: str, *, prompt_tokens: int, completion_tokens: int
    ) -> Reservation:
        self.require(tenant_id, principal)
        if self.unlimited:
            return Reservation()
        self.reserved.append((prompt_tokens, completion_tokens))
        self._add(model, 1, prompt_tokens, completion_tokens)
        return Reservation(TODAY, 1, prompt_tokens, completion_tokens)

    def settle(self, settlement: Settlement) -> None:
        day: date | None = None if self.unlimited else TODAY
        assert (settlement.tenant_id, settlement.principal, settlement.day) == (TENANT, KEY, day)
        if self.away:
            raise UnavailableError("the database is not available")
        self._add(settlement.model, settlement.requests, settlement.prompt_tokens, settlement.completion_tokens)

    def _add(self, model: str, *numbers: int) -> None:
        before = self.sums.get(model, [0, 0, 0])
        self.sums[model] = [old + new for old, new in zip(before, numbers, strict=True)]


def soon() -> Deadline:
    return Deadline.after(10)


def test_a_call_is_counted_by_its_estimate_and_then_by_what_the_model_says() -> None:
    ledger = FakeLedger()
    model = Metered(FakeLLM(requests=2), ledger, TENANT, KEY)
    model.complete(ASKED, soon(), most_tokens=20)
    model.stream(ASKED, soon(), lambda _: None, most_tokens=2_000)
    model.embed(["Refunds are paid.", "Parcels arrive."], soon())
    assert ledger.reserved == [(5, 20), (5, 50), (7, 0)]
    assert ledger.sums == {"chatter": [4, 22, 6], "embedder": [2, 11, 0]}
    assert (model.used.requests, model.used.prompt_tokens, model.used.completion_tokens) == (6, 33, 6)


@pytest.mark.parametrize("unlimited", [False, True])
def test_where_the_model_does_not_say_the_estimate_counts(*, unlimited: bool) -> None:
    ledger = FakeLedger(unlimited=unlimited)
    model = Metered(FakeLLM(tokens=(0, 0)), ledger, TENANT, KEY)
    model.complete(ASKED, soon(), most_tokens=20)
    assert ledger.sums == {"chatter": [1, 5, 20]}
    assert model.used.tokens == 25


def test_of_who_has_no_budget_nothing_is_reserved_and_all_is_counted() -> None:
    ledger = FakeLedger(unlimited=True)
    model = Metered(FakeLLM(requests=2), ledger, TENANT, KEY)
    model.complete(ASKED, soon(), most_tokens=20)
    model.embed(["Refunds are paid.", "Parcels arrive."], soon())
    assert ledger.reserved == []
    assert ledger.sums == {"chatter": [2, 11, 3], "embedder": [2, 11, 0]}


@pytest.mark.parametrize("unlimited", [False, True])
def test_a_call_that_fails_costs_its_requests_and_no_tokens(*, unlimited: bool) -> None:
    ledger = FakeLedger(unlimited=unlimited)
    model = Metered(FakeLLM(requests=3, down=True), ledger, TENANT, KEY)
    with pytest.raises(UnavailableError):
        model.embed(["Refunds are paid."], soon())
    assert ledger.sums == {"embedder": [3, 0, 0]}
    assert (model.used.requests, model.used.errors, model.used.tokens) == (3, 3, 0)


@pytest.mark.parametrize("unlimited", [False, True])
def test_a_stream_that_is_broken_off_costs_what_it_was_to_take_at_most(*, unlimited: bool) -> None:
    ledger = FakeLedger(unlimited=unlimited)
    model = Metered(BrokenOff(), ledger, TENANT, KEY)
    with pytest.raises(InterruptedError):
        model.stream(ASKED, soon(), lambda _: None, most_tokens=20)
    assert ledger.sums == {"chatter": [1, 5, 20]}
    assert model.used == Usage(requests=1, unfinished=1, prompt_tokens=5, completion_tokens=20)


def test_a_call_beyond_the_budget_is_not_made() -> None:
    model = Metered(FakeLLM(), FakeLedger(full=True), TENANT, KEY)
    for call in (model.require_embedding, lambda: model.embed(["x"], soon()), lambda: model.complete(ASKED, soon())):
        with pytest.raises(BudgetError):
            call()
    assert model.used == Usage(refused=3)


def test_what_was_paid_for_is_kept_when_it_cannot_be_counted() -> None:
    ledger = FakeLedger(away=True)
    assert Metered(FakeLLM(), ledger, TENANT, KEY).complete(ASKED, soon(), most_tokens=20).text == "Yes."
    assert ledger.sums == {"chatter": [1, 5, 20]}


def test_what_the_last_call_came_to_waits_to_be_settled_with_something_else() -> None:
    ledger = FakeLedger()
    postponing = Postponing(ledger)
    model = Metered(FakeLLM(), postponing, TENANT, KEY)
    model.embed(["Refunds are paid."], soon())
    model.complete(ASKED, soon(), most_tokens=20)
    assert ledger.sums == {"embedder": [1, 11, 0], "chatter": [1, 5, 20]}
    assert postponing.taken() == Settlement(TENANT, KEY, "chatter", TODAY, 0, 6, -17)
    assert postponing.taken() is None
    model.complete(ASKED, soon(), most_tokens=20)
    postponing.settle_now()
    assert ledger.sums["chatter"] == [2, 16, 23]


def test_what_waits_and_cannot_be_settled_stops_no_other_call() -> None:
    ledger = FakeLedger(away=True)
    model = Metered(FakeLLM(), Postponing(ledger), TENANT, KEY)
    model.embed(["Refunds are paid."], soon())
    assert model.complete(ASKED, soon(), most_tokens=20).text == "Yes."


# No call takes as long, unless one waits for another that never comes.
HANGS_SECONDS = 30


class Meeting(FakeLLM):
    """Answers nobody before so many have asked; whose text is `bad` fails."""

    def __init__(self, parties: int = 1) -> None:
        super().__init__()
        self.barrier = threading.Barrier(parties)
        self.asked: list[str] = []
        self.lock, self.now, self.most = threading.Lock(), 0, 0

    def embed(self, texts: Sequence[str], deadline: Deadline, used: Usage | None = None) -> list[Vector]:
        with self.lock:
            self.asked += texts
            self.now += 1
            self.most = max(self.most, self.now)
        self.barrier.wait(HANGS_SECONDS)
        with self.lock:
            self.now -= 1
        assert used is not None
        used.requests = 1
        if texts == ["bad"]:
            used.errors = 1
            raise UnavailableError("down")
        used.prompt_tokens = len(texts)
        return [array("f", [float(len(text)), 1.0]) for text in texts]


def test_as_many_batches_are_under_way_at_once_as_there_are_places() -> None:
    llm, ledger = Meeting(parties=3), FakeLedger()
    model = Metered(llm, ledger, TENANT, KEY, Places(3))
    batches = [["a"], ["bb", "bb"], ["ccc"], ["dddd"], ["eeeee"], ["ffffff"]]
    answers = list(model.embed_each(batches, soon()))
    assert [(number, [vector[0] for vector in vectors]) for number, vectors in answers] == [
        (number, [float(len(text)) for text in batch]) for number, batch in enumerate(batches)
    ]
    assert llm.most == 3
    assert (model.used.requests, model.used.prompt_tokens) == (6, 7)
    assert ledger.sums == {"embedder": [6, 7, 0]}


def test_places_are_everybodys_and_one_batch_needs_none() -> None:
    places, llm = Places(1), Meeting()
    places.take()
    model = Metered(llm, FakeLedger(), TENANT, KEY, places)
    assert [number for number, _ in model.embed_each([["a"], ["b"], ["c"]], soon())] == [0, 1, 2]
    assert (llm.asked, llm.most) == (["a", "b", "c"], 1)
    assert not places.free
    places.leave()
    assert places.free


def test_what_is_under_way_when_a_batch_fails_is_had_and_no_other_is_sent() -> None:
    llm, ledger, places = Meeting(parties=3), FakeLedger(), Places(3)
    model = Metered(llm, ledger, TENANT, KEY, places)
    answers = model.embed_each([["bad"], ["b"], ["c"], ["d"], ["e"], ["f"]], soon())
    assert [next(answers)[0], next(answers)[0]] == [1, 2]
    with pytest.raises(UnavailableError, match="down"):
        next(answers)
    assert sorted(llm.asked) == ["b", "bad", "c"]
    assert (model.used.requests, model.used.errors, model.used.prompt_tokens) == (3, 1, 2)
    assert ledger.sums == {"embedder": [3, 2, 0]}
    assert places.free


def test_a_batch_waits_for_the_room_that_others_leave_in_the_budget() -> None:
    class Narrow(FakeLedger):
        def reserve(self, *args: Any, prompt_tokens: int, **given: Any) -> Reservation:
            self.full = self.sums.get("embedder", [0, 0, 0])[1] + prompt_tokens > 60
            return super().reserve(*args, prompt_tokens=prompt_tokens, **given)

    # Each is estimated at 25 tokens, and takes one.
    ledger, llm = Narrow(), Meeting()
    model = Metered(llm, ledger, TENANT, KEY, Places(4))
    assert len(list(model.embed_each([["word " * 20]] * 8, soon()))) == 8
    assert (ledger.sums["embedder"], model.used.refused) == ([8, 8, 0], 0)
    with pytest.raises(BudgetError):
        list(model.embed_each([["word " * 20], ["word " * 80]], soon()))
    assert (ledger.sums["embedder"], model.used.refused) == ([9, 9, 0], 1)


def test_what_nobody_waits_for_any_more_is_counted() -> None:
    llm, ledger, places = Meeting(parties=2), FakeLedger(), Places(2)
    model = Metered(llm, ledger, TENANT, KEY, places)
    answers = model.embed_each([["a"], ["b"]], soon())
    next(answers)
    answers.close()
    assert model.used.requests == 2
    assert ledger.sums == {"embedder": [2, 2, 0]}
    assert places.free
