"""The webhook: what is signed, and where it never leads to."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest
from pydantic import ValidationError

from rag.errors import UnavailableError
from rag.settings import Settings
from rag.webhook import Webhook, is_public, signature
from tests.integration.receiver import documented, receiving

# The example of the specification's reference implementation.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SIGNED = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

PRIVATE = [
    "10.0.0.1",
    "172.16.5.4",
    "192.168.1.1",
    "127.0.0.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",  # noqa: S104 (nobody is bound to it)
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fd00:ec2::254",
    "::ffff:169.254.169.254",
    "::ffff:10.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "ff02::1",
]


def test_a_message_is_signed_as_the_specification_says() -> None:
    assert signature(SECRET, *MESSAGE) == SIGNED


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
def test_a_public_address_is(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PRIVATE)
def test_nothing_private_is_ever_connected_to(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    reached: list[Any] = []
    monkeypatch.setattr(socket, "create_connection", lambda *given: reached.append(given))
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(UnavailableError, match="a place that a webhook may not be"):
        Webhook(f"https://{host}/hook", lambda: SECRET).post("id", b"{}")
    assert reached == []


def test_a_name_that_means_a_private_address_is_refused() -> None:
    with pytest.raises(UnavailableError, match="a place that a webhook may not be"):
        Webhook("https://localhost/hook", lambda: SECRET).post("id", b"{}")


def test_one_private_address_among_those_of_a_name_is_enough_to_refuse_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 443)) for one in ("93.184.215.14", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(UnavailableError, match="a place that a webhook may not be"):
        Webhook("https://rebound.example/hook", lambda: SECRET).post("id", b"{}")


def test_without_tls_only_a_laptop_reaches_itself() -> None:
    with receiving() as receiver:
        with pytest.raises(UnavailableError, match="https"):
            Webhook(receiver.url, lambda: SECRET).post("id", b"{}")
        assert receiver.requests == []
        Webhook(receiver.url, lambda: SECRET, local=True).post("id", b"{}")
        [request] = receiver.requests
    assert request.path == "/hook?of=rag"
    assert request.is_signed_with(SECRET)


def test_a_laptop_reaches_nobody_else_without_tls() -> None:
    with pytest.raises(UnavailableError, match="a place that a webhook may not be"):
        Webhook("http://10.0.0.1/hook", lambda: SECRET, local=True).post("id", b"{}")


def test_a_redirect_is_not_followed() -> None:
    with receiving() as receiver:
        receiver.status = 307
        with pytest.raises(UnavailableError, match="answered 307"):
            Webhook(receiver.url, lambda: SECRET, local=True).post("id", b"{}")
        assert len(receiver.requests) == 1


def test_the_documented_example_tells_genuine_requests_from_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    identity, timestamp, body = MESSAGE
    headers = {"webhook-id": identity, "webhook-timestamp": str(timestamp), "webhook-signature": f"v2,x {SIGNED}"}
    is_genuine = documented()["is_genuine"]
    assert not is_genuine(headers, body, SECRET), "it is years old"
    monkeypatch.setattr(documented()["time"], "time", lambda: timestamp + 60)
    assert is_genuine(headers, body, SECRET)
    assert not is_genuine(headers, body + b" ", SECRET)
    assert not is_genuine(headers | {"webhook-id": "another"}, body, SECRET)
    assert not is_genuine(headers, body, "whsec_c29tZXRoaW5nIGVsc2U=")


@pytest.mark.parametrize(("stage", "url"), [("prod", "https://hooks.example/rag"), ("local", "http://127.0.0.1:8000/")])
def test_a_webhook_has_an_address_with_tls_but_on_a_laptop(stage: str, url: str) -> None:
    assert Settings.from_environment({"RAG_STAGE": stage, "RAG_WEBHOOK_URL": url}).webhook_url == url


@pytest.mark.parametrize("url", ["http://hooks.example/rag", "https://", "ftp://hooks.example", "hooks.example"])
def test_any_other_address_is_no_webhook_of_a_stage(url: str) -> None:
    with pytest.raises(ValidationError, match="RAG_WEBHOOK_URL must begin with https"):
        Settings.from_environment({"RAG_STAGE": "prod", "RAG_WEBHOOK_URL": url})
