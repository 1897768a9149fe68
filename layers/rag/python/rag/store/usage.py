"""What a tenant's calls to models came to, and whether it may make another today."""

from __future__ import annotations

import random
import time
import uuid
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING

from rag.errors import BudgetError, NotFoundError

if TYPE_CHECKING:
    from rag.store.database import Database, Transaction

SHARDS = 16
# How long it is believed without another look that a tenant's day is used up.
REMEMBERED_SECONDS = 60.0

_JITTER = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class UsageStore:
    """Adds up per tenant, day of UTC and model; a limit of 0 is none, and a tenant may have limits of its own.

    Calls that are made at the same time each find the room that there was before them: all together may exceed a limit
    by as many calls as are made at once.
    """

    database: Database
    requests_per_day: int
    tokens_per_day: int
    shard: int = field(default_factory=lambda: _JITTER.randrange(SHARDS))
    _refused: dict[uuid.UUID, tuple[float, BudgetError]] = field(default_factory=dict)

    def require(self, tenant_id: uuid.UUID) -> None:
        """BudgetError when the tenant was refused here less than a minute ago: the work before a call can be spared."""
        until, refusal = self._refused.get(tenant_id, (0.0, None))
        if refusal is not None and time.monotonic() < until:
            raise refusal

    def reserve(self, tenant_id: uuid.UUID, model: str, *, prompt_tokens: int, completion_tokens: int) -> date:
        """Count a call before it is made, by what it will take at most; return the day that it is counted on.

        BudgetError when the day has no room for it.
        """

        def work(transaction: Transaction) -> list[tuple[bool, bool, int, int, date, float]]:
            return transaction.last_rows(
                "reserve_usage",
                model=model,
                shard=self.shard,
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
                requests_per_day=self.requests_per_day,
                tokens_per_day=self.tokens_per_day,
            )

        rows = self.database.account(tenant_id, work)
        if not rows:
            msg = f"there is no tenant {tenant_id}"
            raise NotFoundError(msg)
        [(requests_fit, tokens_fit, requests, tokens, day, seconds_left)] = rows
        if requests_fit and tokens_fit:
            self._refused.pop(tenant_id, None)
            return day
        limit = f"{tokens:,} tokens" if requests_fit else f"{requests:,} requests to models"
        msg = f"the tenant's budget of {limit} for today has no room for this; the next day begins at midnight UTC"
        refusal = BudgetError(msg, retry_after_seconds=seconds_left)
        self._refused[tenant_id] = (time.monotonic() + min(REMEMBERED_SECONDS, seconds_left), refusal)
        raise refusal

    def settle(
        self,
        tenant_id: uuid.UUID,
        model: str,
        day: date,
        *,
        requests: int,
        prompt_tokens: int,
        completion_tokens: int,
    ) -> None:
        """Add to what was reserved what the call came to beyond that, or less than it: numbers may be negative."""

        def work(transaction: Transaction) -> None:
            transaction.last_rows(
                "settle_usage",
                model=model,
                day=day,
                shard=self.shard,
                requests=requests,
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
            )

        self.database.account(tenant_id, work)
