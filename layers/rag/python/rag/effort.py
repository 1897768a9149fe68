"""What a run has taken so far: time by stage, calls of the model and their tokens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

Stage = Literal["fetch", "parse", "embed"]


class Used(Protocol):
    requests: int
    prompt_tokens: int


@dataclass(slots=True)
class Effort:
    """Of one attempt at a document; `usd_per_million_tokens` is None where nobody has said what the model costs."""

    usd_per_million_tokens: float | None = None
    seconds: dict[Stage, float] = field(default_factory=dict)
    model_calls: int = 0
    tokens: int = 0

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """Add the time until the end of the block to this stage, whatever becomes of it."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began

    @contextmanager
    def calls(self, used: Used) -> Iterator[None]:
        """Add what the block asks of the model, by the meter that it is `used` by."""
        requests, tokens = used.requests, used.prompt_tokens
        try:
            yield
        finally:
            self.model_calls += used.requests - requests
            self.tokens += used.prompt_tokens - tokens

    def milliseconds(self, name: Stage) -> int:
        return round(self.seconds.get(name, 0.0) * 1000)

    @property
    def cost_usd(self) -> float | None:
        """Of the tokens; None where nobody has said what the model costs."""
        price = self.usd_per_million_tokens
        return None if price is None else self.tokens * price / 1e6
