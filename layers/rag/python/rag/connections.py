"""The connections of an HTTP client, so that a request can be ended from outside of it."""

from __future__ import annotations

import socket
import weakref
from contextlib import suppress
from typing import Any

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
