"""Which web pages may read the API's answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from functions.query.api import app
from rag import wiring

PAGE = "https://app.example.org"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv("RAG_CORS_ORIGINS", f'["{PAGE}"]')
    wiring.settings.cache_clear()
    yield TestClient(app)
    wiring.settings.cache_clear()


def test_a_page_of_a_named_origin_may_read_answers_and_their_ids(client: TestClient) -> None:
    headers = client.get("/docs", headers={"origin": PAGE}).headers
    assert headers["access-control-allow-origin"] == PAGE
    assert "x-request-id" in headers["access-control-expose-headers"]
    assert "origin" in headers["vary"].lower()


def test_a_page_of_another_origin_may_not(client: TestClient) -> None:
    headers = client.get("/docs", headers={"origin": "https://elsewhere.example.org"}).headers
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example.com",
        "null",
        "https://sub.app.example.org",
        "https://appxexample.org",
        "https://app.example.org.evil.com",
        "https://app.example.org:8443",
        "http://app.example.org",
        "HTTPS://APP.EXAMPLE.ORG",
        f"{PAGE}/",
        f"{PAGE}, https://evil.example.com",
        "*",
        "",
    ],
)
def test_what_only_looks_like_a_named_origin_is_none(client: TestClient, origin: str) -> None:
    asked = {"origin": origin, "access-control-request-method": "POST", "access-control-request-headers": "x-api-key"}
    for reply in (client.get("/docs", headers=asked), client.options("/v1/search", headers=asked)):
        assert "access-control-allow-origin" not in reply.headers
        assert "access-control-allow-credentials" not in reply.headers


def test_a_page_of_a_named_origin_may_send_its_key(client: TestClient) -> None:
    asked = {"origin": PAGE, "access-control-request-method": "POST", "access-control-request-headers": "x-api-key"}
    reply = client.options("/v1/search", headers=asked)
    assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (204, PAGE)
    assert "x-api-key" in reply.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in reply.headers


@pytest.mark.parametrize(("method", "header"), [("TRACE", "x-api-key"), ("POST", "x-tenant-id")])
def test_a_page_may_not_do_what_the_api_has_not(client: TestClient, method: str, header: str) -> None:
    asked = {"origin": PAGE, "access-control-request-method": method, "access-control-request-headers": header}
    assert "access-control-allow-origin" not in client.options("/v1/search", headers=asked).headers
