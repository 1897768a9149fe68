"""Lambda's Runtime API, version 2018-06-01: how a sandbox fetches its events and says what became of them.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from local.asgi import (
    BodyTooLargeError,
    DisconnectedError,
    Server,
    TrailersProtocol,
    listen,
    read_body,
    reply,
    trailers,
)

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

MAX_PAYLOAD_BYTES = 6 * 1024 * 1024
_MAX_BODY_BYTES = 32 * 1024 * 1024
_INVOCATION = "/2018-06-01/runtime/invocation/"
_INIT_ERROR = "/2018-06-01/runtime/init/error"
_RESTORE = "/2018-06-01/runtime/restore/"


@dataclass(frozen=True, slots=True)
class Event:
    """One invocation as the runtime sees it; the deadline is in milliseconds since the epoch."""

    request_id: str
    payload: bytes
    deadline_ms: int
    function_arn: str
    trace_id: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came back: a response, or an error object as the runtime wrote it."""

    payload: bytes
    failed: bool = False


class Recipient(Protocol):
    """Who gets a streamed response; `gone` is set when nobody wants it any more."""

    gone: asyncio.Event

    async def write(self, chunk: bytes) -> None: ...


class Exchange:
    """What passes between one sandbox and those who invoke it: one event at a time, one outcome for it."""

    def __init__(self) -> None:
        self.initialised: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._outcomes: dict[str, asyncio.Future[Outcome]] = {}
        self._recipients: dict[str, Recipient | None] = {}
        self._abandoned: set[str] = set()

    def offer(self, event: Event, recipient: Recipient | None = None) -> asyncio.Future[Outcome]:
        """Hand over an event; the future is what became of it, but for what a recipient got of it."""
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._outcomes[event.request_id] = outcome
        self._recipients[event.request_id] = recipient
        self._events.put_nowait(event)
        return outcome

    async def take(self) -> Event | None:
        """The next event; asking for the first one is how a runtime says that it is initialised. None: it is over."""
        self.settle_initialisation(None)
        for request_id in self._abandoned:
            self.settle(request_id, Outcome(b""))
        self._abandoned.clear()
        return await self._events.get()

    def settle_initialisation(self, error: Outcome | None) -> None:
        if not self.initialised.done():
            self.initialised.set_result(error)

    def recipient(self, request_id: str) -> Recipient | None:
        return self._recipients.get(request_id)

    def abandon(self, request_id: str) -> None:
        """Nobody wants the response: the event is over when the runtime asks for the next one."""
        self._abandoned.add(request_id)

    def settle(self, request_id: str, outcome: Outcome) -> bool:
        """False when no such event is under way."""
        self._recipients.pop(request_id, None)
        waiting = self._outcomes.pop(request_id, None)
        if waiting is None or waiting.done():
            return False
        waiting.set_result(outcome)
        return True

    def close(self) -> None:
        """The sandbox is dead: a `next` that it left open gets nothing."""
        self._events.put_nowait(None)


class RuntimeApi:
    """Serves one loopback port per sandbox.

    A port belongs to one sandbox at a time, because a request names no sandbox: on a shared port the open `next` of
    a dead one would take an event that nobody answers.
    """

    def __init__(self, ports: int) -> None:
        self._sockets: list[socket.socket] = [listen() for _ in range(ports)]
        self._free: list[int] = [bound.getsockname()[1] for bound in self._sockets]
        self._exchanges: dict[int, Exchange] = {}
        self._server = Server(self._serve, grace_seconds=1, http=TrailersProtocol)

    async def open(self) -> None:
        await self._server.open(self._sockets)

    async def close(self) -> None:
        for exchange in self._exchanges.values():
            exchange.close()
        await self._server.close()

    def attach(self, exchange: Exchange) -> int:
        """The port on which this exchange is served until it is detached; there is one per configured sandbox."""
        port = self._free.pop()
        self._exchanges[port] = exchange
        return port

    def detach(self, port: int) -> None:
        self._exchanges.pop(port).close()
        self._free.append(port)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = self._exchanges.get(scope["server"][1])
        if exchange is None:
            return await reply(send, 410, b"this sandbox is gone")
        if scope["method"] == "GET" and scope["path"] == _INVOCATION + "next":
            return await _next(exchange, send)
        if scope["method"] == "POST":
            return await _report(exchange, scope, receive, send)
        if scope["method"] == "GET" and scope["path"] == _RESTORE + "next":
            return await reply(send, 200)
        return await reply(send, 404)


async def _next(exchange: Exchange, send: Send) -> None:
    event = await exchange.take()
    if event is None:
        return await reply(send, 410, b"this sandbox is gone")
    headers = (
        ("Content-Type", "application/json"),
        ("Lambda-Runtime-Aws-Request-Id", event.request_id),
        ("Lambda-Runtime-Deadline-Ms", str(event.deadline_ms)),
        ("Lambda-Runtime-Invoked-Function-Arn", event.function_arn),
        ("Lambda-Runtime-Trace-Id", event.trace_id),
    )
    return await reply(send, 200, event.payload, headers)


async def _report(exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
    request_id, _, kind = scope["path"].removeprefix(_INVOCATION).partition("/")
    recipient = exchange.recipient(request_id)
    if kind == "response" and recipient is not None and _streams(scope):
        return await _pass_on(exchange, request_id, recipient, scope, receive, send)
    try:
        body = await read_body(receive, limit_bytes=_MAX_BODY_BYTES)
    except BodyTooLargeError:
        return await reply(send, 413)
    except DisconnectedError:
        return None
    if scope["path"] in {_INIT_ERROR, _RESTORE + "error"}:
        exchange.settle_initialisation(Outcome(body, failed=True))
        return await reply(send, 202)
    broken = _broken(scope)
    outcome = Outcome(body, failed=kind == "error") if broken is None else broken
    known = kind in {"response", "error"} and exchange.settle(request_id, outcome)
    return await reply(send, 202 if known else 400)


async def _pass_on(
    exchange: Exchange, request_id: str, recipient: Recipient, scope: Scope, receive: Receive, send: Send
) -> None:
    """Give the recipient each chunk as it comes; when it is gone, break the connection that they come by."""
    leaving: asyncio.Future[Any] = asyncio.ensure_future(recipient.gone.wait())
    try:
        async for chunk in _chunks(receive, leaving):
            await recipient.write(chunk)
    except DisconnectedError:
        return None
    finally:
        leaving.cancel()
    if recipient.gone.is_set():
        exchange.abandon(request_id)
        return await reply(send, 410, b"the client is gone", [("Connection", "close")])
    exchange.settle(request_id, _broken(scope) or Outcome(b""))
    return await reply(send, 202)


async def _chunks(receive: Receive, leaving: asyncio.Future[Any]) -> AsyncIterator[bytes]:
    more = True
    while more and not leaving.done():
        coming: asyncio.Future[Any] = asyncio.ensure_future(receive())
        await asyncio.wait({coming, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not coming.done():
            coming.cancel()
            with suppress(asyncio.CancelledError):
                await coming
            return
        message = coming.result()
        if message["type"] == "http.disconnect":
            raise DisconnectedError
        more = message.get("more_body", False)
        yield message.get("body", b"")


def _streams(scope: Scope) -> bool:
    return (b"lambda-runtime-function-response-mode", b"streaming") in scope["headers"]


def _broken(scope: Scope) -> Outcome | None:
    """What a runtime says behind a response that it could not end."""
    told = trailers(scope)
    if b"lambda-runtime-function-error-type" not in told:
        return None
    return Outcome(base64.b64decode(told.get(b"lambda-runtime-function-error-body", b"")), failed=True)
