"""`rag audit`: who did what, and who was shown which documents."""

import json
import re
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from local.cli.output import one_line, table
from local.cli.remote import Session, remote

EPILOG = """\b
Examples:
  rag audit --since 7d
  rag audit --document 0d9c8f5e-2b1a-5c3d-8e4f-1a2b3c4d5e6f      # who was shown it
  rag audit --action document.delete --since 2026-11-01
  rag audit --principal user:ann --limit 100000 --json > ann.jsonl  # a row a line
"""

_PAGE_SIZE = 500
_AGO = re.compile(r"(\d{1,6})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def moment(text: str | None) -> str | None:
    """A time as the API takes it: of ISO 8601, in UTC where it says no other, or so long ago (90m, 24h, 7d)."""
    if text is None:
        return None
    if ago := _AGO.fullmatch(text):
        return (datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})).isoformat()
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text} is no time: write 2026-11-20, 2026-11-20T09:00:00Z, or 7d") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()


@remote
async def audit(
    session: Session,
    *,
    document: Annotated[uuid.UUID | None, typer.Option("--document", metavar="ID", help="About this one.")] = None,
    principal: Annotated[
        str | None, typer.Option("--principal", metavar="WHO", help="Of user:<subject> or key:<id>.")
    ] = None,
    action: Annotated[str | None, typer.Option("--action", metavar="NAME", help="For instance search.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="From then on: 2026-11-20, or 90m, 24h, 7d ago.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Until then.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="Rows at most.")] = 100,
) -> int:
    """Show who did what, the latest first.

    It takes the credential of an administrator. With --json each row is a line of its own.
    """
    wanted = {
        "document": None if document is None else str(document),
        "principal": principal,
        "action": action,
        "since": moment(since),
        "until": moment(until),
    }
    found = _records(session, limit, wanted)
    if session.json:
        async for record in found:
            print(json.dumps(record, ensure_ascii=True))
        return 0
    _tell([record async for record in found])
    return 0


async def _records(session: Session, limit: int, wanted: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    cursor, left = None, limit
    while left:
        page = await session.client.call("GET", "/v1/audit", cursor=cursor, limit=min(left, _PAGE_SIZE), **wanted)
        for record in page["records"]:
            yield record
        left -= len(page["records"])
        cursor = page["next_cursor"]
        if cursor is None:
            return


def _tell(records: list[dict[str, Any]]) -> None:
    if not records:
        print("Nothing of that kind was done.")
        return
    headings = ("when", "who", "role", "from", "what", "outcome", "documents", "details")
    table(headings, [_row(record) for record in records])


def _row(record: dict[str, Any]) -> tuple[Any, ...]:
    shown = record["documents"]
    return (
        one_line(record["at"])[:19].replace("T", " "),
        record["principal"],
        record["role"],
        record["address"],
        record["action"],
        record["outcome"],
        shown[0]["document_id"] if len(shown) == 1 else len(shown) or "",
        " ".join(f"{name}={value}" for name, value in record["details"].items()),
    )
