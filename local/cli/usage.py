"""`rag usage`: what was asked of the models, what that cost, and what is left of every limit."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from local.cli.output import note, one_line, table
from local.cli.remote import Session, remote

EPILOG = """\b
Examples:
  rag usage                                      # this month, by day and model
  rag usage --by month --by key --from 2026-01-01
  rag usage --json | jq '.budgets[] | {of, unit, period, left}'
"""


class By(StrEnum):
    DAY = "day"
    MONTH = "month"
    MODEL = "model"
    KEY = "key"


@remote
async def usage(
    session: Session,
    *,
    first: Annotated[
        str | None, typer.Option("--from", metavar="DAY", help="Like 2026-11-01, of UTC. Without: this month's first.")
    ] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="DAY", help="Without: today.")] = None,
    by: Annotated[
        list[By] | None,
        typer.Option(help="What to add up by; may be repeated. Without: day and model.", show_default=False),
    ] = None,
) -> int:
    """Show what was used of the models, and what is left.

    With an admin key of the whole tenant, with another of this key alone. Days and months are those of UTC.
    """
    told = await session.client.call(
        "GET", "/v1/usage", first_day=first, last_day=last, by=[each.value for each in by or []] or None
    )
    session.show(told, _tell)
    return 0


def _tell(told: dict[str, Any]) -> None:
    whose = "the tenant" if told["scope"] == "tenant" else one_line(told["principal"])
    print(f"Of {whose}, {told['first_day']} to {told['last_day']}:\n")
    rows = [{"day": "", "month": "", "model": "", "principal": "", **_present(row)} for row in told["usage"]]
    wheres = [name for name in ("day", "month", "model", "principal") if any(row[name] for row in rows)]
    sums = [("today", told["today"]), ("this month", told["month"])]
    if rows:
        table(
            (*("key" if name == "principal" else name for name in wheres), "requests", "tokens in", "out", "USD"),
            [(*(row[name] for name in wheres), *_spent(row)) for row in rows],
        )
        print()
    table(("", "requests", "tokens in", "out", "USD"), [(name, *_spent(spent)) for name, spent in sums])
    limits = [*map(_rate, told["rate_limits"]), *map(_budget, told["budgets"])]
    if limits:
        print()
        table(("limit of", "what", "used", "left", "anew"), limits)
    if told["truncated"]:
        note("There is more: ask for fewer days (--from, --to), or by less (--by).")


def _present(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


def _spent(spent: dict[str, Any]) -> tuple[str, ...]:
    tokens = (f"{spent[name]:,}" for name in ("requests", "prompt_tokens", "completion_tokens"))
    return (*tokens, f"{spent['usd']:.4f}")


def _rate(limit: dict[str, Any]) -> tuple[str, ...]:
    what = f"{limit['requests']:,} API requests in {limit['window_seconds']} s"
    used = limit["requests"] - limit["left"]
    return (limit["of"], what, f"{used:,}", f"{limit['left']:,}", f"in {limit['full_in_seconds']:.0f} s")


def _budget(budget: dict[str, Any]) -> tuple[str, ...]:
    units = {"requests": "model requests", "tokens": "tokens", "usd": "USD"}
    what = f"{_number(budget, 'limit')} {units[budget['unit']]} a {budget['period']}"
    anew = one_line(budget["resets_at"])[:16].replace("T", " ")
    return (budget["of"], what, _number(budget, "used"), _number(budget, "left"), anew)


def _number(budget: dict[str, Any], name: str) -> str:
    return f"{budget[name]:,.2f}" if budget["unit"] == "usd" else f"{budget[name]:,.0f}"
