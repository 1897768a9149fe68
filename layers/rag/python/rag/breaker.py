"""Leaving a dependency alone that fails, and finding out when it is back."""

from __future__ import annotations

import threading
import time


class Breaker:
    """A circuit breaker: closed, open after `failures` in a row, half-open for one call every `pause_seconds`.

    Nygard, 2018, "Release It!", 2nd edition. A call that is let through tells how it ended by `succeeded` or `failed`;
    one that never does (its caller left) only keeps the next one waiting for another pause.
    """

    def __init__(self, *, failures: int, pause_seconds: float) -> None:
        self._most_failures = failures
        self._pause_seconds = pause_seconds
        self._failures = 0
        self._open = False
        self._until = 0.0
        self._lock = threading.Lock()

    @property
    def wait_seconds(self) -> float:
        """How long no call is let through; 0 when one is."""
        return max(self._until - time.monotonic(), 0.0) if self._open else 0.0

    def admits(self) -> bool:
        """Whether a call may be made now; who is let through while it is open tries for all others."""
        with self._lock:
            if not self._open:
                return True
            if self.wait_seconds > 0:
                return False
            self._until = time.monotonic() + self._pause_seconds
            return True

    def succeeded(self) -> None:
        with self._lock:
            self._open, self._failures = False, 0

    def failed(self, *, wait_seconds: float | None = None) -> None:
        """Count a failure; one that says how long to wait opens at once, for so long."""
        with self._lock:
            self._failures += 1
            if self._open or wait_seconds is not None or self._failures >= self._most_failures:
                self._open = True
                wait = self._pause_seconds if wait_seconds is None else wait_seconds
                self._until = time.monotonic() + wait
