"""What calls to models came to, and whether a tenant, or one of its keys, may make another."""

from __future__ import annotations

import random
import time
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from rag.errors import BudgetError, NotFoundError
from rag.spending import Budget, Budgets, Price, Reservation, Settlement, Spent, UsageQuery, UsageReport, UsageRow
from rag.types import Scope

if TYPE_CHECKING:
    from datetime import datetime

    from rag.store.database import Database, Transaction

SHARDS = 16
# How long it is believed without another look that nothing is left, or that there is no budget.
REMEMBERED_SECONDS = 60.0
_MOST_REMEMBERED = 10_000

K = TypeVar("K")
V = TypeVar("V")

_JITTER = random.SystemRandom()
_FREE = Price()


@dataclass(frozen=True, slots=True)
class _Refusal:
    """What is remembered of one: not the error, whose traceback holds on to all that was at hand when it was raised."""

    message: str
    reset_at: datetime
    over: float
    until: float

    def error(self, now: float) -> BudgetError:
        return BudgetError(self.message, self.reset_at, retry_after_seconds=self.over - now)


@dataclass(frozen=True, slots=True)
class UsageStore:
    """Adds up per tenant, day of UTC and model, and the same per caller; `budgets` are of a tenant without its own.

    Where there is a budget calls are counted one after another, so that none is made for which there is no room. Of who
    has none nothing is reserved; each settlement tells whether that is still so, so that of a first budget every
    sandbox learns with the call that it makes then, for all of the tenant.
    """

    database: Database
    budgets: Budgets = Budgets()  # noqa: RUF009 (frozen)
    prices: Mapping[str, Price] = field(default_factory=dict)
    shard: int = field(default_factory=lambda: _JITTER.randrange(SHARDS))
    _refused: OrderedDict[tuple[uuid.UUID, str | None], _Refusal] = field(default_factory=OrderedDict)
    _unlimited: OrderedDict[tuple[uuid.UUID, str], float] = field(default_factory=OrderedDict)

    def require(self, tenant_id: uuid.UUID, principal: str) -> None:
        """BudgetError when one was refused here less than a minute ago: the work before a call can be spared."""
        now = time.monotonic()
        for whose in (principal, None):
            refusal = self._refused.get((tenant_id, whose))
            if refusal is not None and now < refusal.until:
                raise refusal.error(now)

    def reserve(
        self, tenant_id: uuid.UUID, principal: str, model: str, *, prompt_tokens: int, completion_tokens: int
    ) -> Reservation:
        """Count a call before it is made, by what it will take at most, where a budget could refuse it.

        BudgetError when one of the caller's budgets, or of its tenant's, has no room for it.
        """
        if time.monotonic() < self._unlimited.get((tenant_id, principal), 0.0):
            return Reservation()

        def work(transaction: Transaction) -> list[tuple[Any, ...]]:
            return transaction.rows(
                "reserve_usage",
                principal=principal,
                model=model,
                shard=self.shard,
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
                usd=self._usd(model, prompt_tokens, completion_tokens),
                **_named(self.budgets),
            )

        rows = self.database.by_statement(Scope(tenant_id), work)
        if not rows:
            msg = f"there is no tenant {tenant_id}"
            raise NotFoundError(msg)
        [(day, whose, unit, period, most, resets_at, seconds_left)] = rows
        if whose is None:
            self._refused.pop((tenant_id, principal), None)
            self._refused.pop((tenant_id, None), None)
            if day is None:
                self._remember(tenant_id, principal, unlimited=True)
                return Reservation()
            return Reservation(day, 1, prompt_tokens, completion_tokens)
        if whose == "tenant":
            self._forget_unlimited(tenant_id)
        now = time.monotonic()
        until = now + min(REMEMBERED_SECONDS, seconds_left)
        refusal = _Refusal(_refusal(whose, unit, period, most), resets_at, now + seconds_left, until)
        _keep(self._refused, (tenant_id, None if whose == "tenant" else principal), refusal)
        raise refusal.error(now)

    def settle(self, settlement: Settlement) -> None:
        """Add to what was reserved what the call came to beyond that, or less than it.

        Where the answer is lost, nobody knows whether it was added: then what lessens a reservation is not sent again.
        """
        sent = False

        def work(transaction: Transaction) -> list[tuple[Any, ...]]:
            nonlocal sent
            if sent and settlement.day is not None:
                return [(False,)]
            sent = True
            return transaction.rows("settle_usage", **self.settling(settlement))

        [(unlimited,)] = self.database.by_statement(Scope(settlement.tenant_id), work)
        self.settled(settlement, unlimited=unlimited)

    def settled(self, settlement: Settlement, *, unlimited: bool) -> None:
        """Hear what a statement that settled told of the caller: whether it still has no budget."""
        if settlement.day is None:
            self._remember(settlement.tenant_id, settlement.principal, unlimited=unlimited)

    def settling(self, settlement: Settlement) -> dict[str, Any]:
        """Return a settlement at this deployment's prices, as statements take it that settle."""
        return _named(self.budgets) | {
            "payer": settlement.principal,
            "model": settlement.model,
            "day": settlement.day,
            "shard": self.shard,
            "requests": settlement.requests,
            "prompt_tokens": settlement.prompt_tokens,
            "completion_tokens": settlement.completion_tokens,
            "usd": self._usd(settlement.model, settlement.prompt_tokens, settlement.completion_tokens),
        }

    def report(self, tenant_id: uuid.UUID, principal: str, wanted: UsageQuery) -> UsageReport:
        """Tell what was used and what is left, of the whole tenant or, as `wanted`, of this caller alone."""
        whose = None if wanted.of_tenant else principal

        def work(transaction: Transaction) -> UsageReport:
            today, month = (Spent(*row[1:]) for row in transaction.rows("usage_so_far", principal=whose))
            budgets = transaction.rows("budgets", principal=principal, **_named(self.budgets))
            rows = transaction.rows(
                "usage",
                principal=whose,
                first=wanted.first,
                last=wanted.last,
                by_day="day" in wanted.by,
                by_month="month" in wanted.by,
                by_model="model" in wanted.by,
                by_key="key" in wanted.by,
                most=wanted.most + 1,
            )
            return UsageReport(
                today=today,
                month=month,
                budgets=[Budget(*row) for row in budgets if wanted.of_tenant or row[0] == "key"],
                rows=[
                    UsageRow(day, month, model, key, Spent(*sums))
                    for day, month, model, key, *sums in rows[: wanted.most]
                ],
                truncated=len(rows) > wanted.most,
            )

        return self.database.read(Scope(tenant_id), work)

    def _remember(self, tenant_id: uuid.UUID, principal: str, *, unlimited: bool) -> None:
        if unlimited:
            _keep(self._unlimited, (tenant_id, principal), time.monotonic() + REMEMBERED_SECONDS)
        elif (tenant_id, principal) in self._unlimited:
            self._forget_unlimited(tenant_id)

    def _forget_unlimited(self, tenant_id: uuid.UUID) -> None:
        """Ask again of everybody: it may be the tenant's budget that is new."""
        for known in [known for known in list(self._unlimited) if known[0] == tenant_id]:
            self._unlimited.pop(known, None)

    def _usd(self, model: str, prompt_tokens: int, completion_tokens: int) -> Decimal:
        return self.prices.get(model, _FREE).usd(prompt_tokens, completion_tokens)


@cache
def _named(budgets: Budgets) -> dict[str, Any]:
    """As parameters; `asdict` takes its time, and they are as they are."""
    return asdict(budgets)


def _keep(remembered: OrderedDict[K, V], key: K, value: V) -> None:
    """As the latest of so many."""
    remembered[key] = value
    remembered.move_to_end(key)
    if len(remembered) > _MOST_REMEMBERED:
        remembered.popitem(last=False)


def _refusal(whose: str, unit: str, period: str, most: Decimal) -> str:
    limit = {"usd": f"{most:,.2f} USD", "tokens": f"{most:,} tokens"}.get(unit, f"{most:,} requests to models")
    owner = "the tenant's" if whose == "tenant" else "this key's"
    when, then = ("today", "the next day") if period == "day" else ("this month", "the next month")
    return f"{owner} budget of {limit} for {when} has no room for this; {then} begins at midnight UTC"
