"""The few lines of ASGI that every loopback server of the supervisor needs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

Headers = Iterable[tuple[str, str]]
LOOPBACK = "127.0.0.1"
_TRAILERS = "trailers"


class BodyTooLargeError(Exception):
    """The request's body is larger than this server takes."""


class DisconnectedError(Exception):
    """The client went away before its request was whole: there is nothing to do, and nobody to answer."""


def listen(port: int = 0) -> socket.socket:
    """A listening loopback socket; 0 takes any free port. Raises OSError when the port is taken.

    It listens already, because two sockets that are only bound may have the same port. The protocol is named because
    asyncio turns Nagle's algorithm off only on sockets that say TCP: without it every answer of two writes waits 40 ms
    for a delayed acknowledgement.
    """
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((LOOPBACK, port))
        bound.listen()
    except OSError:
        bound.close()
        raise
    return bound


async def read_body(receive: Receive, *, limit_bytes: int) -> bytes:
    """The whole body; BodyTooLargeError as soon as it is longer than `limit_bytes`, DisconnectedError when cut off."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise DisconnectedError
        body += message.get("body", b"")
        if len(body) > limit_bytes:
            raise BodyTooLargeError
        if not message.get("more_body", False):
            return bytes(body)


async def reply(send: Send, status: int, body: bytes = b"", headers: Headers = ()) -> None:
    """One whole response with its length."""
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    if status not in (204, 304):
        encoded.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


class _Trailing(h11.Connection):
    """Keeps the trailers of the request that it read last."""

    trailers: Sequence[tuple[bytes, bytes]] = ()

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.trailers = ()
        if isinstance(event, h11.EndOfMessage):
            self.trailers = list(event.headers)
        return event


class TrailersProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, keeping what stands behind a request's body, as ASGI has no place for it: see `trailers`."""

    conn: _Trailing

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.conn = _Trailing(h11.SERVER)

    def handle_events(self) -> None:
        super().handle_events()
        if self.scope is not None:
            self.scope["state"][_TRAILERS] = self.conn.trailers


def trailers(scope: Scope) -> dict[bytes, bytes]:
    """What stood behind the request's body, when all of it was received; from a server with TrailersProtocol."""
    return dict(scope.get("state", {}).get(_TRAILERS, ()))


class Server(uvicorn.Server):
    """uvicorn on sockets of ours, inside a program that has its own way of ending."""

    def __init__(
        self, app: ASGIApp, *, grace_seconds: int = 10, http: type[asyncio.Protocol] | Literal["auto"] = "auto"
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                interface="asgi3",
                http=http,
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=grace_seconds,
            )
        )
        self._serving: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def open(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections from here on."""
        self._serving = asyncio.create_task(self.serve(sockets=list(sockets)))
        while not self.started:
            if self._serving.done():
                await self._serving
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Stop accepting, let running requests finish within the grace period."""
        self.should_exit = True
        if self._serving is not None:
            await self._serving
