"""Server-sent events: framing, pings, and a work that ends with whoever listens to it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from functions.query import event_stream
from functions.query.event_stream import EventStream, NobodyListensError, Work, event
from rag.errors import UnavailableError

if TYPE_CHECKING:
    import pytest


def test_an_event_is_its_name_one_line_of_data_and_an_empty_line() -> None:
    assert event("delta", '{"text": "a"}') == b'event: delta\ndata: {"text": "a"}\n\n'


@given(st.text())
def test_no_text_ends_its_event_or_begins_another(text: str) -> None:
    framed = event("delta", json.dumps({"text": text})).decode()
    assert len(framed.splitlines()) == 3
    assert json.loads(framed.split("\n")[1].removeprefix("data: ")) == {"text": text}


class Client:
    """What it was sent; it leaves when it has `patience` messages with a body, or never."""

    def __init__(self, patience: int | None = None) -> None:
        self.sent: list[dict[str, Any]] = []
        self.patience = patience
        self.left = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        if self.patience is not None and len(self.bodies) >= self.patience:
            self.left.set()

    @property
    def bodies(self) -> list[bytes]:
        return [message["body"] for message in self.sent if message["type"] == "http.response.body"]


def stream(work: Callable[[Work], None], client: Client | None = None) -> Client:
    """A client that was sent everything."""

    async def told(client: Client) -> Client:
        doing = Work(work)
        response = EventStream(doing, await doing.next() or b"", failed=failed)
        try:
            await response({"type": "http"}, client.receive, client.send)
        except ValueError:
            client.sent.append({"type": "raised"})
        assert not doing._thread.is_alive()
        return client

    return asyncio.run(told(client or Client()))


async def failed(error: Exception) -> bytes:
    return f"failed: {type(error).__name__}".encode()


def test_a_response_says_what_it_is_and_ends_with_the_work() -> None:
    def work(telling: Work) -> None:
        telling.tell(b"one")
        telling.tell(b"")
        telling.tell(b"two")

    client = stream(work)
    start = client.sent[0]
    assert (start["status"], dict(start["headers"])) == (
        200,
        {b"cache-control": b"no-store", b"content-type": b"text/event-stream; charset=utf-8"},
    )
    assert client.bodies == [b"one", b"two", b""]
    assert [message.get("more_body", False) for message in client.sent[1:]] == [True, True, False]


def test_a_long_silence_is_filled_with_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "SILENCE_SECONDS", 0.05)

    client = Client()

    def work(telling: Work) -> None:
        telling.tell(b"one")
        until = time.monotonic() + 30
        while b":\n\n" not in client.bodies and time.monotonic() < until:
            time.sleep(0.01)
        telling.tell(b"two")

    stream(work, client)
    assert client.bodies[:2] == [b"one", b":\n\n"]
    assert client.bodies[-2:] == [b"two", b""]


def test_an_error_that_was_foreseen_is_the_last_event_of_a_whole_response() -> None:
    def work(telling: Work) -> None:
        telling.tell(b"one")
        raise UnavailableError("down")

    client = stream(work)
    assert client.bodies == [b"one", b"failed: UnavailableError", b""]


def test_an_error_that_nobody_foresaw_is_told_and_raised_and_leaves_the_response_open() -> None:
    def work(telling: Work) -> None:
        telling.tell(b"one")
        raise ValueError

    client = stream(work)
    assert client.bodies == [b"one", b"failed: ValueError"]
    assert client.sent[-1] == {"type": "raised"}


def test_a_work_whose_client_left_learns_of_it_when_it_tells_something() -> None:
    ended = threading.Event()

    def work(telling: Work) -> None:
        telling.tell(b"one")
        try:
            while True:
                time.sleep(0.01)
                telling.tell(b"")
        except NobodyListensError:
            ended.set()
            raise

    client = stream(work, Client(patience=1))
    assert ended.is_set()
    assert client.bodies[0] == b"one"
