"""Server-sent events: what comes of a request, told while it is worked on.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from fastapi.responses import StreamingResponse

from rag.errors import RagError

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

# As often as the standard advises, because proxies end connections that are silent.
SILENCE_SECONDS = 15.0
PING = b":\n\n"


class NobodyListensError(Exception):
    """The client is gone, and with it the reason to go on."""


def event(name: str, data: str) -> bytes:
    """One event; `data` is JSON, in which no line ends."""
    return f"event: {name}\ndata: {data}\n\n".encode()


class Work:
    """What is done for a request in a thread of its own, and the events that it tells of meanwhile."""

    def __init__(self, work: Callable[[Work], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._told: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, args=[work], name="work", daemon=True)
        self._thread.start()

    def tell(self, told: bytes) -> None:
        """Pass an event on, or nothing; NobodyListensError is how the work learns that it is over."""
        if self._over.is_set():
            raise NobodyListensError
        if told:
            self._put(told)

    async def next(self) -> bytes | None:
        """Return the next event, or None after the last one; what the work raised is raised here."""
        told = await self._told.get()
        if isinstance(told, Exception):
            raise told
        return told

    def end(self) -> None:
        """Return when the thread has ended: the next request must find nobody at work."""
        self._over.set()
        self._thread.join()

    def _run(self, work: Callable[[Work], None]) -> None:
        outcome: Exception | None = None
        try:
            work(self)
        except Exception as error:  # noqa: BLE001 (whoever waits for the next event gets it)
            outcome = error
        self._put(outcome)

    def _put(self, told: bytes | Exception | None) -> None:
        self._loop.call_soon_threadsafe(self._told.put_nowait, told)


class EventStream(StreamingResponse):
    """The events of a work, the first of which is there already; it ends with the work, or when the client leaves.

    What the work raises is told by `failed`; what nobody foresaw is raised as well, and leaves the response incomplete.
    """

    media_type = "text/event-stream"

    def __init__(self, work: Work, first: bytes, *, failed: Callable[[Exception], Awaitable[bytes]]) -> None:
        super().__init__((), headers={"cache-control": "no-store"})
        self._work = work
        self._first = first
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (ASGI's signature)
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            told: bytes | None = self._first
            while told is not None and not leaving.done():
                await send({"type": "http.response.body", "body": told, "more_body": True})
                told = await self._next(leaving)
        except Exception as error:
            await send({"type": "http.response.body", "body": await self._failed(error), "more_body": True})
            if not isinstance(error, RagError):
                raise
        finally:
            leaving.cancel()
            self._work.end()
        await send({"type": "http.response.body", "body": b""})

    async def _next(self, leaving: asyncio.Future[None]) -> bytes | None:
        """Return the next event, a ping when there is none for long, or None when it is over."""
        coming = asyncio.ensure_future(self._work.next())
        waiting: set[asyncio.Future[bytes | None] | asyncio.Future[None]] = {coming, leaving}
        await asyncio.wait(waiting, timeout=SILENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if coming.done():
            return coming.result()
        coming.cancel()
        return None if leaving.done() else PING


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
