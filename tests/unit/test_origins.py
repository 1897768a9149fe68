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
