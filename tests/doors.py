"""TLS in front of the servers that have none here, and what RDS does before a login reaches PostgreSQL.

The frames are those of PostgreSQL's manual, "Message formats".
"""

from __future__ import annotations

import asyncio
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

Check = Callable[[str, str], bool]  # user and password → whether they may log in
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_ASK_FOR_PASSWORD = b"R" + struct.pack("!ii", 8, 3)


@contextmanager
def tls(port: int, certificate: ssl.SSLContext) -> Iterator[int]:
    """The port at which whoever speaks TLS reaches `port`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _relay(reader, writer, port)

    with _listening(serve, certificate) as door:
        yield door


@contextmanager
def rds(port: int, certificate: ssl.SSLContext, *, check: Check | None = None) -> Iterator[int]:
    """The port of an instance with `rds.force_ssl`; with a `check`, one that asks for tokens as PAM does on RDS."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readexactly(8) != _SSL_REQUEST:
            return _refuse(writer, "no pg_hba.conf entry for this host, no encryption")
        writer.write(b"S")
        await writer.start_tls(certificate)
        if check is None:
            return await _relay(reader, writer, port)
        startup = await _frame(reader)
        fields = startup[8:].split(b"\0")
        user = dict(zip(fields[::2], fields[1::2], strict=False))[b"user"].decode()
        writer.write(_ASK_FOR_PASSWORD)
        await reader.readexactly(1)
        password = (await _frame(reader))[4:].rstrip(b"\0").decode()
        if not check(user, password):
            return _refuse(writer, f'PAM authentication failed for user "{user}"')
        return await _relay(reader, writer, port, startup)

    with _listening(serve, None) as door:
        yield door


async def _frame(reader: asyncio.StreamReader) -> bytes:
    length = await reader.readexactly(4)
    return length + await reader.readexactly(struct.unpack("!i", length)[0] - 4)


def _refuse(writer: asyncio.StreamWriter, reason: str) -> None:
    fields = b"SFATAL\0VFATAL\0C28000\0M" + reason.encode() + b"\0\0"
    writer.write(b"E" + struct.pack("!i", 4 + len(fields)) + fields)


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, first: bytes = b"") -> None:
    inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
    inner_writer.write(first)
    try:
        copies = [
            asyncio.ensure_future(_copy(reader, inner_writer)),
            asyncio.ensure_future(_copy(inner_reader, writer)),
        ]
        await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        for copy in copies:
            copy.cancel()
        await asyncio.gather(*copies, return_exceptions=True)
    finally:
        inner_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while some := await reader.read(1 << 16):
        writer.write(some)
        await writer.drain()


@contextmanager
def _listening(serve: Serve, certificate: ssl.SSLContext | None) -> Iterator[int]:
    """Serve in a thread of its own; every connection ends with it."""
    loop = asyncio.new_event_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await serve(reader, writer)
        finally:
            writer.close()
            tasks.discard(task)

    async def end() -> None:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.05)  # transports say goodbye

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    started = asyncio.start_server(each, "127.0.0.1", 0, ssl=certificate)
    server = asyncio.run_coroutine_threadsafe(started, loop).result(60)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
