"""Whether what the service stands on answers: looked at once in a while, as anyone may ask without a key."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

from functions.query import schemas
from rag import __version__, wiring

KEPT_SECONDS = 5.0


def health(*, model: bool) -> schemas.Health:
    """Return the state of database, cache and, if so wished, model, at most `KEPT_SECONDS` old."""
    parts: dict[str, Callable[[], bool | None]] = {
        "database": wiring.database().alive,
        "cache": wiring.answer_cache().alive,
        **({"model": wiring.llm().alive} if model else {}),
    }
    period = int(time.monotonic() / KEPT_SECONDS)
    checks = {name: _state(alive, period) for name, alive in parts.items()}
    return schemas.Health(status=_status(checks), version=__version__, timestamp=datetime.now(UTC), checks=checks)


@lru_cache(maxsize=3)
def _state(alive: Callable[[], bool | None], period: int) -> schemas.State:  # noqa: ARG001 (a new one asks anew)
    states: dict[bool | None, schemas.State] = {True: "ok", False: "down", None: "off"}
    return states[alive()]


def _status(checks: dict[str, schemas.State]) -> schemas.Condition:
    if checks["database"] == "down":
        return "down"
    return "degraded" if "down" in checks.values() else "ok"
