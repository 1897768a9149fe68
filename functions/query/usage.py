"""What was used of the models, what it cost, and what is left of every limit."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from functions.query.callers import Reader
from rag import wiring
from rag.errors import InvalidRequestError
from rag.spending import Budget, Spent, UsageBy, UsageQuery, UsageRow
from rag.throttling import Level

router = APIRouter()

MOST_DAYS = 400
MOST_ROWS = 5_000
By = Annotated[list[UsageBy], Query(max_length=4, description="What to add up by; may be repeated.")]


class SpentBody(BaseModel):
    """`usd` is reckoned by the deployment's prices; 0 where it knows none."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    usd: float

    @classmethod
    def of(cls, spent: Spent) -> SpentBody:
        return cls(
            requests=spent.requests,
            prompt_tokens=spent.prompt_tokens,
            completion_tokens=spent.completion_tokens,
            usd=float(spent.usd),
        )


class UsageRowBody(SpentBody):
    """A sum; null by what was not asked for. `principal`: `key:<id>`, `user:<subject>`, `ingest` for documents."""

    day: date | None
    month: str | None
    model: str | None
    principal: str | None

    @classmethod
    def told(cls, row: UsageRow) -> UsageRowBody:
        spent = SpentBody.of(row.spent)
        return cls(day=row.day, month=row.month, model=row.model, principal=row.principal, **dict(spent))


class BudgetBody(BaseModel):
    """A limit of the key or of its tenant, for a day or calendar month of UTC."""

    of: Literal["key", "tenant"]
    unit: Literal["requests", "tokens", "usd"]
    period: Literal["day", "month"]
    limit: float
    used: float
    left: float
    resets_at: datetime

    @classmethod
    def told(cls, budget: Budget) -> BudgetBody:
        return cls(
            of=budget.whose,
            unit=budget.unit,
            period=budget.period,
            limit=float(budget.limit),
            used=float(budget.used),
            left=float(budget.left),
            resets_at=budget.resets_at,
        )


class RateLimitBody(BaseModel):
    """Requests to this API; `full_in_seconds` is when all of them are back."""

    of: Literal["key", "tenant"]
    requests: int
    window_seconds: int
    left: int
    full_in_seconds: float

    @classmethod
    def told(cls, level: Level) -> RateLimitBody:
        return cls(
            of=level.bucket.of,
            requests=level.bucket.requests,
            window_seconds=level.bucket.window_seconds,
            left=level.remaining,
            full_in_seconds=round(level.full_in_seconds, 3),
        )


class UsageBody(BaseModel):
    """`scope`: an administrator is told of the whole tenant, everybody else of the own key. `usage` is the sums."""

    scope: Literal["tenant", "key"]
    principal: str
    first_day: date
    last_day: date
    today: SpentBody
    month: SpentBody
    budgets: list[BudgetBody]
    rate_limits: list[RateLimitBody]
    usage: list[UsageRowBody]
    truncated: bool


@router.get("/v1/usage")
async def get_usage(
    request: Request,
    who: Reader,
    first_day: Annotated[date | None, Query(description="Of UTC; without it the first of this month.")] = None,
    last_day: Annotated[date | None, Query(description="Without it today.")] = None,
    by: By = ["day", "model"],  # noqa: B006 (FastAPI copies it)
) -> UsageBody:
    """Tell what the models were asked for, what that cost, and what is left of every limit."""
    today = datetime.now(UTC).date()
    last = last_day or today
    first = first_day or min(today.replace(day=1), last)
    if not first <= last <= first + timedelta(days=MOST_DAYS):
        msg = f"first_day must not be after last_day, nor more than {MOST_DAYS} days before it"
        raise InvalidRequestError(msg)
    whole = who.role == "admin" and who.collections is None
    wanted = UsageQuery(first, last, frozenset(by), of_tenant=whole, most=MOST_ROWS)
    found = wiring.usage_store().report(who.tenant_id, who.principal, wanted)
    admission = getattr(request.state, "admission", None)
    return UsageBody(
        scope="tenant" if whole else "key",
        principal=who.principal,
        first_day=first,
        last_day=last,
        today=SpentBody.of(found.today),
        month=SpentBody.of(found.month),
        budgets=[BudgetBody.told(each) for each in found.budgets],
        rate_limits=[RateLimitBody.told(each) for each in admission.levels] if admission else [],
        usage=[UsageRowBody.told(each) for each in found.rows],
        truncated=found.truncated,
    )
