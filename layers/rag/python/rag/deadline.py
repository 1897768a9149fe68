"""One absolute point in time that everything done for a request must end before."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from rag.errors import DeadlineError


@dataclass(frozen=True, slots=True)
class Deadline:
    """`at` is in seconds of `time.monotonic()`, so that a changed clock moves no deadline."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        return cls(time.monotonic() + seconds)

    def remaining(self) -> float:
        """Seconds left; negative when it has passed."""
        return self.at - time.monotonic()

    def within(self, seconds: float) -> float:
        """At most `seconds`, and never more than is left; DeadlineError when nothing is."""
        left = self.remaining()
        if left <= 0:
            msg = "the time for this request is used up"
            raise DeadlineError(msg)
        return min(seconds, left)


NEVER = Deadline(math.inf)
