"""What is no body of this API is refused before it costs anything."""

from __future__ import annotations

import gzip
import time

import pytest
from starlette.testclient import TestClient

from functions.query.api import app
from tests.malformed import OTHER_TYPES, REFUSED

JSON = "application/json"
CLIENT = TestClient(app)


@pytest.mark.parametrize(("body", "status"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_readers_could_take_differently_is_refused_at_once(body: bytes, status: int) -> None:
    began = time.process_time()
    reply = CLIENT.post("/v1/search", content=body, headers={"content-type": JSON})
    took = time.process_time() - began
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    assert took < 1, "a generous bound for a busy machine; the security suite has the exact one"


@pytest.mark.parametrize("media_type", OTHER_TYPES)
def test_a_body_of_another_type_is_refused(media_type: str) -> None:
    reply = CLIENT.post("/v1/search", content=b'{"query": "a"}', headers={"content-type": media_type})
    assert reply.status_code == 415


@pytest.mark.parametrize("media_type", ["application/json; charset=UTF-8", "Application/JSON", "application/x+json"])
def test_json_by_another_spelling_is_json(media_type: str) -> None:
    reply = CLIENT.post("/v1/search", content=b'{"query": "a"}', headers={"content-type": media_type})
    assert reply.status_code == 401


def test_a_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(b" " * 10_000_000)
    reply = CLIENT.post("/v1/search", content=bomb, headers={"content-type": JSON, "content-encoding": "gzip"})
    assert (reply.status_code, reply.headers["accept-encoding"]) == (415, "identity")
