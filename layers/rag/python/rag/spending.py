"""What may be used of the models, what of it is used, and what that costs."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Literal

_SMALLEST_USD = Decimal("1E-10")


@dataclass(frozen=True, slots=True)
class Budgets:
    """What may be used of the models on a day and in a calendar month of UTC; 0: any number."""

    requests_per_day: int = 0
    tokens_per_day: int = 0
    tokens_per_month: int = 0
    usd_per_day: float = 0
    usd_per_month: float = 0


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a tenant or a key may use, in the place of the deployment's numbers; None: as that says, 0: any number."""

    requests_per_minute: int | None = None
    requests_per_day: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    usd_per_day: float | None = None
    usd_per_month: float | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """Of a model, in USD per million tokens."""

    prompt: float = 0
    completion: float = 0

    def usd(self, prompt_tokens: int, completion_tokens: int) -> Decimal:
        """Return what so many tokens cost, to the tenth decimal place."""
        cost = Decimal(str(self.prompt)) * prompt_tokens + Decimal(str(self.completion)) * completion_tokens
        return (cost / 1_000_000).quantize(_SMALLEST_USD)


@dataclass(frozen=True, slots=True)
class Reservation:
    """What is counted of a call before it is made, on which day; nothing on none where no budget could refuse it."""

    day: date | None = None
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a call came to beyond what was reserved for it on that day, or less than it: numbers may be negative.

    Without a day nothing was reserved, and it counts on the day on which it is settled.
    """

    tenant_id: uuid.UUID
    principal: str
    model: str
    day: date | None
    requests: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Spent:
    requests: int
    prompt_tokens: int
    completion_tokens: int
    usd: Decimal


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit that somebody has, how much of it is used, and when it begins anew."""

    whose: Literal["tenant", "key"]
    unit: Literal["requests", "tokens", "usd"]
    period: Literal["day", "month"]
    limit: Decimal
    used: Decimal
    resets_at: datetime

    @property
    def left(self) -> Decimal:
        return max(self.limit - self.used, Decimal(0))


UsageBy = Literal["day", "month", "model", "key"]


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Which days to tell about, both of them among those told, and by what to add up; `most` rows."""

    first: date
    last: date
    by: frozenset[UsageBy]
    of_tenant: bool
    most: int


@dataclass(frozen=True, slots=True)
class UsageRow:
    """A sum; None by what was not asked for. `principal` is `key:<id>`, `user:<subject>`, or `ingest` for documents."""

    day: date | None
    month: str | None
    model: str | None
    principal: str | None
    spent: Spent


@dataclass(frozen=True, slots=True)
class UsageReport:
    today: Spent
    month: Spent
    budgets: list[Budget]
    rows: list[UsageRow]
    truncated: bool
