"""An issuer's keys: asked for seldom, turned over at once, kept while it is down, and never anybody else's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from rag import jwks
from rag.errors import UnavailableError
from rag.jwks import KeySet
from rag.oidc import Issuer as Named
from tests.issuer import AUDIENCE, KEYS_PATH, Issuer, ec_key, public, rsa_key, serving


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with serving(Issuer()) as served:
        yield served


@pytest.fixture
def clock() -> Clock:
    return Clock()


def keys_of(issuer: Issuer, clock: Clock, **named: Any) -> KeySet:
    return KeySet(Named(issuer=issuer.url, audiences=(AUDIENCE,), **named), clock)


def test_keys_are_found_by_discovery_and_asked_for_once(issuer: Issuer, clock: Clock) -> None:
    keys = keys_of(issuer, clock)
    assert [keys.key("one", "RS256") is not None for _ in range(100)] == [True] * 100
    assert keys.key("curve", "ES256")
    assert issuer.fetches == ["/.well-known/openid-configuration", KEYS_PATH]


def test_where_they_are_may_be_said(issuer: Issuer, clock: Clock) -> None:
    assert keys_of(issuer, clock, jwks_uri=issuer.url + KEYS_PATH).key("one", "RS256")
    assert issuer.fetches == [KEYS_PATH]


def test_a_key_is_for_the_algorithm_of_its_kind_only(issuer: Issuer, clock: Clock) -> None:
    keys = keys_of(issuer, clock)
    assert keys.key("one", "ES256") is None
    assert keys.key("curve", "RS256") is None


def test_a_new_key_is_taken_up_at_once_and_an_old_one_dropped_in_time(issuer: Issuer, clock: Clock) -> None:
    keys = keys_of(issuer, clock)
    assert keys.key("one", "RS256")
    issuer.published = [public("two", rsa_key(1))]
    clock.now += jwks.REFETCH_SECONDS
    assert keys.key("two", "RS256")
    assert keys.key("one", "RS256") is None
    issuer.published = [public("three", rsa_key(1))]
    clock.now += jwks.FRESH_SECONDS
    assert keys.key("two", "RS256") is None


def test_a_thousand_unknown_keys_cause_one_request_a_minute(issuer: Issuer, clock: Clock) -> None:
    keys = keys_of(issuer, clock, jwks_uri=issuer.url + KEYS_PATH)
    for number in range(1000):
        clock.now += 0.12
        assert keys.key(f"unknown-{number}", "RS256") is None
    assert len(issuer.fetches) == 2


def test_threads_that_come_at_once_cause_one_request(issuer: Issuer, clock: Clock) -> None:
    keys = keys_of(issuer, clock, jwks_uri=issuer.url + KEYS_PATH)
    issuer.pause_seconds = 0.2
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(keys.key("one", "RS256"))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([key for key in found if key]) == 20
    assert len(issuer.fetches) == 1


def test_while_the_issuer_is_down_its_last_keys_hold_for_hours_and_not_for_ever(issuer: Issuer, clock: Clock) -> None:
    keys = keys_of(issuer, clock)
    assert keys.key("one", "RS256")
    issuer.down = True
    clock.now += jwks.STALE_SECONDS - 10
    assert keys.key("one", "RS256")
    asked = len(issuer.fetches)
    assert keys.key("one", "RS256")  # it is not asked again for each token
    assert len(issuer.fetches) == asked
    clock.now += 11
    with pytest.raises(UnavailableError, match="cannot be read"):
        keys.key("one", "RS256")
    issuer.down = False
    clock.now += jwks.RETRY_SECONDS
    assert keys.key("one", "RS256")


def test_an_issuer_that_never_answered_is_asked_again_soon(issuer: Issuer, clock: Clock) -> None:
    keys = keys_of(issuer, clock)
    issuer.down = True
    for _ in range(50):
        with pytest.raises(UnavailableError):
            keys.key("one", "RS256")
    assert len(issuer.fetches) == 1
    issuer.down = False
    clock.now += jwks.RETRY_SECONDS
    assert keys.key("one", "RS256")


NOT_KEYS: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"<html>",
    "a list": b"[]",
    "no keys": b"{}",
    "an empty set": b'{"keys": []}',
    "deep": b"[" * 100_000,
    "too much": b'{"keys": [], "x": "' + b"x" * jwks.MOST_BYTES + b'"}',
}


@pytest.mark.parametrize("body", NOT_KEYS.values(), ids=NOT_KEYS)
def test_what_is_no_key_set_is_an_issuer_that_is_down(issuer: Issuer, clock: Clock, body: bytes) -> None:
    issuer.body = body
    with pytest.raises(UnavailableError):
        keys_of(issuer, clock).key("one", "RS256")


UNUSABLE: dict[str, Any] = {
    "symmetric": {"kty": "oct", "k": "c2VjcmV0", "kid": "one", "alg": "HS256"},
    "for encryption": public("one", rsa_key(), use="enc"),
    "for another algorithm": public("one", rsa_key(), alg="RS512"),
    "short": public("one", rsa_key(0, 1024)),
    "without an id": public("one", rsa_key(), kid=None),
    "an id that is a list": public("one", rsa_key(), kid=["one"]),
    "no number": public("one", rsa_key(), n=7),
    "off its curve": public("one", ec_key(), x=public("one", ec_key())["y"]),
    "of another curve": public("one", ec_key(), crv="P-384"),
    "of a kind that is a list": public("one", rsa_key(), kty=["RSA"]),
    "not a key": "one",
}


@pytest.mark.parametrize("key", UNUSABLE.values(), ids=UNUSABLE)
def test_keys_that_nothing_may_be_verified_with_are_passed_over(issuer: Issuer, clock: Clock, key: Any) -> None:
    issuer.published = [key, public("sound", rsa_key())]
    keys = keys_of(issuer, clock)
    assert keys.key("sound", "RS256")
    assert [keys.key("one", algorithm) for algorithm in ("RS256", "ES256")] == [None, None]


@pytest.mark.parametrize("said", [{"issuer": "https://another.example"}, {"jwks_uri": 7}, {"jwks_uri": "nowhere"}])
def test_a_description_of_another_issuer_or_of_no_keys_is_refused(
    issuer: Issuer, clock: Clock, said: dict[str, Any]
) -> None:
    issuer.described = said
    with pytest.raises(UnavailableError):
        keys_of(issuer, clock).key("one", "RS256")


def test_nobody_waits_for_an_issuer_that_hangs(issuer: Issuer, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "TIMEOUT_SECONDS", 0.5)
    issuer.pause_seconds = 30.0
    with pytest.raises(UnavailableError):
        keys_of(issuer, clock).key("one", "RS256")
    assert issuer.fetches in ([], ["/.well-known/openid-configuration"])
