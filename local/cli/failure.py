"""What a command says when it cannot do its work, and the exit code that says it to a script.

Failure            the work failed                                       1
├── UsageFailure       the command line itself is wrong                  2
├── NotRunning         no platform is known, or nothing answers there    3
└── NotAccepted        somebody answers, but not for this API key        3
"""

from __future__ import annotations

from typing import Any


class Failure(Exception):  # noqa: N818 (it is read as a sentence: `raise NotRunning(…)`)
    """A message for the person at the keyboard and, where there is one, the command to try next."""

    kind = "failed"
    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.facts = facts

    def as_json(self) -> dict[str, Any]:
        """`{"error": {"kind", "message", "hint", …}}`, what `--json` prints on stderr."""
        return {"error": {"kind": self.kind, "message": self.message, "hint": self.hint, **self.facts}}


class UsageFailure(Failure):
    """The command line cannot be carried out as it stands."""

    kind = "usage"
    exit_code = 2


class NotRunning(Failure):
    """There is no platform to talk to."""

    kind = "unreachable"
    exit_code = 3


class NotAccepted(Failure):
    """The API key is missing, unknown or not allowed to do this."""

    kind = "unauthorized"
    exit_code = 3
