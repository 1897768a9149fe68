"""A TCP proxy between a client and a server of this machine, which does to their conversation what networks do."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Literal

PIECE_BYTES = 1 << 16
# What Ethernet carries of a TCP segment (RFC 9293, 3.7.1), and the least time after which its sender sends a lost one
# again (RFC 6298, 2.4), twice as long each time (5.5). Linux waits for no longer than 0.2 s where that is enough.
SEGMENT_BYTES, RETRANSMISSION_SECONDS = 1460, 1.0
_OTHERS = itertools.count(2)
Direction = Literal["request", "reply"]


@dataclass(frozen=True, slots=True)
class Edge:
    """Where one side of a connection begins to speak: the first bytes of a request, or of a reply."""

    direction: Direction
    data: bytes


# What becomes of it: True, and it goes on; False, and the connection is reset instead.
Watch = Callable[[Edge], bool]


@dataclass(eq=False)
class Proxy:
    """`host` and `port` lead to the server's; what is set here holds for every connection from its next piece on.

    `silent`: nothing passes, nobody is told. `cut_after` so many bytes of replies (of all connections from now on) the
    connection is reset; `half_closed`: what the server says is ended, what the client says still passes. `watch` is
    asked on the proxy's own thread, and may take its time.

    `loss` is how likely a segment is lost. Of that TCP tells nobody: the segment is late by the time after which it is
    sent again, and whatever is behind it waits. `lost` counts them, `chance` draws them.
    """

    server_port: int
    host: str = "127.0.0.1"
    port: int = 0
    latency_seconds: float = 0.0
    bytes_per_second: float | None = None
    loss: float = 0.0
    silent: bool = False
    half_closed: bool = False
    cut_after: int | None = None
    watch: Watch | None = None
    accepted: int = 0
    lost: int = 0
    chance: random.Random = field(default_factory=random.Random, repr=False)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop, repr=False)
    _open: set[asyncio.StreamWriter] = field(default_factory=set, repr=False)
    _server: asyncio.Server | None = field(default=None, repr=False)

    def refuse(self) -> None:
        """No connection is taken any more, and those there are reset: as when the server's machine is gone."""
        self._call(self._close())

    def accept(self) -> None:
        """Connections are taken again, on the same port."""
        self._call(self._listen())

    def reset(self) -> None:
        """Every connection ends with a reset (RFC 9293, 3.5.2), in both directions."""
        self._call(self._reset())

    def healthy(self) -> None:
        """Everything passes as if there were no proxy."""
        self.latency_seconds, self.bytes_per_second, self.loss = 0.0, None, 0.0
        self.silent, self.half_closed, self.cut_after, self.watch = False, False, None, None

    def _call(self, coroutine: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._reset()

    async def _reset(self) -> None:
        for writer in list(self._open):
            _abort(writer)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.server_port)
        except OSError:
            _abort(writer)
            return
        both = {writer, server_writer}
        self._open |= both
        last: list[Direction] = []
        end = _abort
        try:
            await asyncio.gather(
                self._forward(reader, server_writer, "request", last),
                self._forward(server_reader, writer, "reply", last),
            )
            end = asyncio.StreamWriter.close
        except (OSError, asyncio.CancelledError):
            pass  # both sides learn below that it did not end well
        finally:
            self._open -= both
            for each in both:
                end(each)

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction, last: list[Direction]
    ) -> None:
        while data := await reader.read(PIECE_BYTES):
            if self.watch is not None and last[-1:] != [direction] and not self.watch(Edge(direction, data)):
                raise ConnectionAbortedError
            last[:] = [direction]
            if self.latency_seconds:
                await asyncio.sleep(self.latency_seconds)
            while self.silent:  # noqa: ASYNC110 (set by another thread)
                await asyncio.sleep(0.01)
            if direction == "reply" and self.half_closed:
                writer.write_eof()
                return
            await self._send(writer, data, direction)
        if not writer.is_closing():
            writer.write_eof()

    async def _send(self, writer: asyncio.StreamWriter, data: bytes, direction: Direction) -> None:
        cut = False
        if direction == "reply" and self.cut_after is not None:
            data, cut = data[: self.cut_after], len(data) >= self.cut_after
            self.cut_after -= len(data)
        segment = SEGMENT_BYTES if self.loss else max(len(data), 1)
        for start in range(0, len(data), segment):
            await self._retransmit()
            await self._pace(writer, data[start : start + segment])
        if cut:
            self.cut_after = None
            raise ConnectionAbortedError

    async def _retransmit(self) -> None:
        seconds = RETRANSMISSION_SECONDS
        while self.chance.random() < self.loss:
            self.lost += 1
            await asyncio.sleep(seconds)
            seconds *= 2

    async def _pace(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        piece = len(data) if self.bytes_per_second is None else max(int(self.bytes_per_second / 20), 1)
        for start in range(0, len(data), piece):
            part = data[start : start + piece]
            writer.write(part)
            await writer.drain()
            if self.bytes_per_second is not None:
                await asyncio.sleep(len(part) / self.bytes_per_second)


def _abort(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None and not writer.is_closing():
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextlib.contextmanager
def proxying(server_port: int, *, same_port: bool = False) -> Iterator[Proxy]:
    """`same_port`, on another loopback address: for a server that wants its own port in the Host header."""
    proxy = Proxy(server_port, f"127.0.0.{next(_OTHERS)}", server_port) if same_port else Proxy(server_port)

    def run() -> None:
        asyncio.set_event_loop(proxy._loop)
        proxy._loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    proxy.accept()
    try:
        yield proxy
    finally:
        proxy.refuse()
        asyncio.run_coroutine_threadsafe(_finish(), proxy._loop).result(60)
        proxy._loop.call_soon_threadsafe(proxy._loop.stop)
        thread.join()
        proxy._loop.close()


async def _finish() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
