"""The few lines of ASGI that every loopback server of the supervisor needs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Send

Headers = Iterable[tuple[str, str]]
LOOPBACK = "127.0.0.1"


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


class Server(uvicorn.Server):
    """uvicorn on sockets of ours, inside a program that has its own way of ending."""

    def __init__(self, app: ASGIApp, *, grace_seconds: int = 10) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                interface="asgi3",
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
