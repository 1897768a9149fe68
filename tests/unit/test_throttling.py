"""Buckets give what they hold, then what comes back, and never more, whoever counts."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag import throttling
from rag.errors import RateLimitError
from rag.throttling import Bucket, Level, Throttle

TENANT = uuid.UUID(int=7)


class Away:
    """A cache that does not answer, and how often it was asked."""

    asked = 0

    def evaluate(self, script: str, keys: Sequence[str], arguments: Sequence[int]) -> list[int] | None:
        self.asked += 1
        return None


class Says(Away):
    def __init__(self, *answer: int) -> None:
        self.answer = [*answer]

    def evaluate(self, script: str, keys: Sequence[str], arguments: Sequence[int]) -> list[int] | None:
        super().evaluate(script, keys, arguments)
        return self.answer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds; the first item is now."""
    now = [1000.0]
    monkeypatch.setattr(throttling.time, "monotonic_ns", lambda: int(now[0] * 1e9))
    return now


def key(requests: int, window_seconds: int = 60) -> Bucket:
    return Bucket.of_key(TENANT, "key:aB3dE5gH", requests, window_seconds)


def tenant(requests: int) -> Bucket:
    return Bucket.of_tenant(TENANT, requests, 60)


@given(requests=st.integers(1, 500), window=st.integers(1, 3600))
def test_a_full_bucket_gives_what_it_holds_and_not_one_more(requests: int, window: int) -> None:
    level = Level(key(requests, window), 0)
    given_away = 0
    while level.wait_seconds == 0:
        level = level.less()
        given_away += 1
    assert given_away == requests
    assert level.remaining == 0
    assert 0 < level.wait_seconds <= window / requests + 1e-3


def test_what_was_taken_comes_back_one_by_one(clock: list[float]) -> None:
    throttle = Throttle(Away())
    assert [throttle.admit([key(3)]).admitted for _ in range(4)] == [True, True, True, False]
    clock[0] += 19.9
    assert not throttle.admit([key(3)]).admitted
    clock[0] += 0.2
    assert [throttle.admit([key(3)]).admitted for _ in range(2)] == [True, False]
    clock[0] += 3600
    assert [throttle.admit([key(3)]).admitted for _ in range(4)] == [True, True, True, False]


def test_where_one_bucket_is_empty_none_gives(clock: list[float]) -> None:
    throttle = Throttle(Away())
    buckets = [key(1), tenant(100)]
    throttle.admit(buckets)
    levels = throttle.admit(buckets).levels
    assert [level.remaining for level in levels] == [0, 99]
    assert [level.remaining for level in throttle.admit(buckets).levels] == [0, 99]


def test_a_refusal_says_whose_limit_it_was_and_when_a_request_fits(clock: list[float]) -> None:
    throttle = Throttle(Away())
    throttle.admit([key(10), tenant(1)])
    admission = throttle.admit([key(10), tenant(1)])
    with pytest.raises(RateLimitError, match="the tenant may make 1 requests in 60 s; try again in 60 s") as refused:
        admission.require()
    assert refused.value.violated == ["tenant"]
    assert refused.value.retry_after_seconds == 60
    assert dict(admission.fields) == {
        "ratelimit-policy": '"key";q=10;w=60, "tenant";q=1;w=60',
        "ratelimit": '"key";r=9;t=6, "tenant";r=0;t=60',
    }


def test_who_has_no_limit_is_admitted_and_told_none() -> None:
    cache = Away()
    admission = Throttle(cache).admit([])
    assert (admission.admitted, admission.fields, cache.asked) == (True, [], 0)


def test_what_is_known_to_be_empty_is_refused_without_asking_anybody(clock: list[float]) -> None:
    cache = Says(0, 60_000_000)
    throttle = Throttle(cache)
    assert [throttle.admit([key(2)]).admitted for _ in range(50)] == [False] * 50
    assert cache.asked == 1
    clock[0] += 31
    throttle.admit([key(2)])
    assert cache.asked == 2


def test_a_process_that_loses_the_cache_goes_on_where_it_was(clock: list[float]) -> None:
    cache = Says(1, 40_000_000)
    throttle = Throttle(cache)
    assert throttle.admit([key(3)]).levels[0].remaining == 1
    throttle._cache = Away()
    assert [throttle.admit([key(3)]).admitted for _ in range(2)] == [True, False]


def test_a_cache_that_forgets_gives_a_process_no_second_bucket(clock: list[float]) -> None:
    throttle = Throttle(Says(1, 20_000_000))
    assert [throttle.admit([key(3)]).admitted for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("answer", [(), (1,), (0, 0), (1, -5), (1, 10**18), (0, 1, 2)], ids=repr)
def test_an_answer_that_is_none_of_ours_changes_nothing_for_good(answer: tuple[int, ...], clock: list[float]) -> None:
    throttle = Throttle(Says(*answer))
    assert throttle.admit([key(10)]).admitted
    throttle._cache = Away()
    clock[0] += 60
    assert throttle.admit([key(10)]).levels[0].remaining == 9


def test_only_the_buckets_used_last_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttling, "MOST_KNOWN", 3)
    throttle = Throttle(Away())
    for number in range(10):
        throttle.admit([Bucket.of_key(TENANT, f"user:{number}", 5, 60)])
    assert len(throttle._full_at) == 3


def test_a_buckets_name_tells_the_tenant_and_nothing_of_the_caller() -> None:
    name = Bucket.of_key(TENANT, "user:ann@example.com", 5, 60).name
    assert str(TENANT) in name
    assert "ann" not in name
    assert name != Bucket.of_key(uuid.UUID(int=8), "user:ann@example.com", 5, 60).name
