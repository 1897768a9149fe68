"""The connections of an HTTP client, so that a request can be ended from outside of it, and its response bounded."""

from __future__ import annotations

import socket
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from rag.errors import EndlessError

_OPENED = {"connection.connect_tcp.complete", "connection.start_tls.complete"}


class Connections:
    """Every connection of one client; `end` wakes who waits for an answer, as closing them does not.

    https://www.python-httpx.org/advanced/extensions/#trace
    """

    def __init__(self) -> None:
        self._streams: weakref.WeakSet[Any] = weakref.WeakSet()
        self._over = False

    def watch(self, request: Any) -> None:
        """Hear of the connection that this request of httpx opens; to be called before it is sent."""
        request.extensions["trace"] = self._note

    def end(self) -> None:
        """Shut every connection down, those too that are being opened: their requests fail at once."""
        self._over = True
        for stream in list(self._streams):
            with suppress(OSError):
                stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    def _note(self, event: str, told: dict[str, Any]) -> None:
        if event in _OPENED:
            self._streams.add(told["return_value"])
            if self._over:
                self.end()


def bounded(most_bytes: int) -> Callable[[Any], None]:
    """Return what has a response of httpx end with EndlessError where it is larger, or packed without being asked to.

    https://www.python-httpx.org/advanced/event-hooks/
    """

    def bound(response: Any) -> None:
        import httpx2  # noqa: PLC0415 (with the SDK that uses it)

        class Bounded(httpx2.SyncByteStream):
            def __iter__(self) -> Any:
                length = 0
                for part in stream:
                    length += len(part)
                    _refuse_beyond(most_bytes, length)
                    yield part

            def close(self) -> None:
                stream.close()

        stream = response.stream
        if response.headers.get("content-encoding", "identity") != "identity":
            msg = "the model server packs what it sends, without being asked to"
            raise EndlessError(msg)
        with suppress(ValueError):
            _refuse_beyond(most_bytes, int(response.headers.get("content-length", "0")))
        response.stream = Bounded()

    return bound


def _refuse_beyond(most_bytes: int, length: int) -> None:
    if length > most_bytes:
        msg = f"the model server sent more than {most_bytes:,} bytes"
        raise EndlessError(msg)
