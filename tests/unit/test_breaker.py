"""A dependency that fails is left alone, tried now and then, and used again when it answers."""

from __future__ import annotations

import threading
import time

from rag.breaker import Breaker


def opened(*, failures: int = 3, pause_seconds: float = 0.1) -> Breaker:
    breaker = Breaker(failures=failures, pause_seconds=pause_seconds)
    for _ in range(failures):
        assert breaker.admits()
        breaker.failed()
    return breaker


def test_failures_in_a_row_open_it_and_a_success_between_them_does_not() -> None:
    breaker = Breaker(failures=3, pause_seconds=60)
    for _ in range(5):
        breaker.failed()
        breaker.failed()
        breaker.succeeded()
    assert breaker.admits()
    assert not opened(pause_seconds=60).admits()


def test_while_it_is_open_one_call_is_let_through_in_each_pause() -> None:
    breaker = opened()
    until = time.monotonic() + 0.45
    let_through = 0
    while time.monotonic() < until:
        if breaker.admits():
            let_through += 1
            breaker.failed()
        time.sleep(0.002)
    assert 3 <= let_through <= 4


def test_of_many_who_ask_at_once_one_tries() -> None:
    breaker = opened()
    time.sleep(0.11)
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


def test_one_success_closes_it_for_all() -> None:
    breaker = opened()
    time.sleep(0.11)
    assert breaker.admits()
    breaker.succeeded()
    assert [breaker.admits() for _ in range(5)] == [True] * 5
    assert breaker.wait_seconds == 0


def test_one_who_never_tells_how_it_ended_keeps_the_next_waiting_for_a_pause_only() -> None:
    breaker = opened()
    time.sleep(0.11)
    assert breaker.admits()
    assert not breaker.admits()
    time.sleep(0.11)
    assert breaker.admits()


def test_who_is_told_how_long_to_wait_waits_from_the_first_failure_on() -> None:
    breaker = Breaker(failures=5, pause_seconds=0.01)
    breaker.failed(wait_seconds=0.2)
    assert not breaker.admits()
    assert 0.1 < breaker.wait_seconds <= 0.2
    time.sleep(0.21)
    assert breaker.admits()
