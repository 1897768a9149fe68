"""Lambda's Runtime API, version 2018-06-01: how a sandbox fetches its events and says what became of them.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from local.asgi import BodyTooLargeError, DisconnectedError, Server, listen, read_body, reply

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

MAX_PAYLOAD_BYTES = 6 * 1024 * 1024
_MAX_BODY_BYTES = 32 * 1024 * 1024
_INVOCATION = "/2018-06-01/runtime/invocation/"
_INIT_ERROR = "/2018-06-01/runtime/init/error"


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


class Exchange:
    """What passes between one sandbox and those who invoke it: one event at a time, one outcome for it."""

    def __init__(self) -> None:
        self.initialised: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._outcomes: dict[str, asyncio.Future[Outcome]] = {}

    def offer(self, event: Event) -> asyncio.Future[Outcome]:
        """Hand over an event; the future is what became of it."""
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._outcomes[event.request_id] = outcome
        self._events.put_nowait(event)
        return outcome

    async def take(self) -> Event | None:
        """The next event; asking for the first one is how a runtime says that it is initialised. None: it is over."""
        self.settle_initialisation(None)
        return await self._events.get()

    def settle_initialisation(self, error: Outcome | None) -> None:
        if not self.initialised.done():
            self.initialised.set_result(error)

    def settle(self, request_id: str, outcome: Outcome) -> bool:
        """False when no such event is under way."""
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
        self._server = Server(self._serve, grace_seconds=1)

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
            return await _report(exchange, scope["path"], receive, send)
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


async def _report(exchange: Exchange, path: str, receive: Receive, send: Send) -> None:
    try:
        body = await read_body(receive, limit_bytes=_MAX_BODY_BYTES)
    except BodyTooLargeError:
        return await reply(send, 413)
    except DisconnectedError:
        return None
    if path == _INIT_ERROR:
        exchange.settle_initialisation(Outcome(body, failed=True))
        return await reply(send, 202)
    request_id, _, kind = path.removeprefix(_INVOCATION).partition("/")
    known = kind in {"response", "error"} and exchange.settle(request_id, Outcome(body, failed=kind == "error"))
    return await reply(send, 202 if known else 400)
