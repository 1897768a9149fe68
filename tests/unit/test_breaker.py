"""A dependency that fails is left alone, tried now and then, and used again when it answers."""

from __future__ import annotations

import threading

import pytest

from rag import breaker as module
from rag.breaker import Breaker


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds; the first item is now."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def opened(*, failures: int = 3, pause_seconds: float = 10) -> Breaker:
    breaker = Breaker(failures=failures, pause_seconds=pause_seconds)
    for _ in range(failures):
        assert breaker.admits()
        breaker.failed()
    return breaker


def test_failures_in_a_row_open_it_and_a_success_between_them_does_not(clock: list[float]) -> None:
    breaker = Breaker(failures=3, pause_seconds=60)
    for _ in range(5):
        breaker.failed()
        breaker.failed()
        breaker.succeeded()
    assert breaker.admits()
    assert not opened(pause_seconds=60).admits()


def test_while_it_is_open_one_call_is_let_through_in_each_pause(clock: list[float]) -> None:
    breaker = opened()
    let_through = []
    for second in range(45):
        if breaker.admits():
            let_through.append(second)
            breaker.failed()
        clock[0] += 1
    assert let_through == [10, 20, 30, 40]


def test_of_many_who_ask_at_once_one_tries(clock: list[float]) -> None:
    breaker = opened()
    clock[0] += 11
    barrier = threading.Barrier(8)
    admitted: list[bool] = []

    def ask() -> None:
        barrier.wait()
        admitted.append(breaker.admits())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(admitted) == [False] * 7 + [True]


def test_one_success_closes_it_for_all(clock: list[float]) -> None:
    breaker = opened()
    clock[0] += 11
    assert breaker.admits()
    breaker.succeeded()
    assert [breaker.admits() for _ in range(5)] == [True] * 5
    assert breaker.wait_seconds == 0


def test_one_who_never_tells_how_it_ended_keeps_the_next_waiting_for_a_pause_only(clock: list[float]) -> None:
    breaker = opened()
    clock[0] += 11
    assert breaker.admits()
    clock[0] += 9
    assert not breaker.admits()
    clock[0] += 2
    assert breaker.admits()


def test_who_is_told_how_long_to_wait_waits_from_the_first_failure_on(clock: list[float]) -> None:
    breaker = Breaker(failures=5, pause_seconds=1)
    breaker.failed(wait_seconds=20)
    assert not breaker.admits()
    assert breaker.wait_seconds == 20
    clock[0] += 19
    assert not breaker.admits()
    clock[0] += 2
    assert breaker.admits()
