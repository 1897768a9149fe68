"""All that is kept of a tenant, or of one person in it, as records in pages: for moving away, and for whoever asks."""

from __future__ import annotations

import base64
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel

from functions.query import schemas
from functions.query.auditing import Audit
from functions.query.callers import Overseer
from rag import wiring
from rag.errors import InvalidRequestError
from rag.store.export import OF_PRINCIPALS, Kind
from rag.types import Location, Scope

router = APIRouter()


class ExportPage(BaseModel):
    """Records of one kind in their order; `next_cursor` is null after the last."""

    records: list[dict[str, Any]]
    next_cursor: str | None = None


@router.get("/v1/export/{kind}")
async def export_records(
    kind: Kind,
    who: Overseer,
    trail: Audit,
    principal: schemas.Principal | None = None,
    links: bool = False,  # noqa: FBT001, FBT002 (a parameter of the query)
    limit: Annotated[int, Query(ge=1, le=500)] = 200,
    cursor: schemas.Text | None = None,
) -> ExportPage:
    """Return everything of one kind, a page at a time; of one `principal` what it has left.

    With `links`, records of documents say where the file can be fetched from, for as long as an upload would be valid.
    """
    if principal is not None and kind not in OF_PRINCIPALS:
        msg = f"of a principal there are {', '.join(sorted(OF_PRINCIPALS))}"
        raise InvalidRequestError(msg)
    found = wiring.export_store().page(Scope.of(who), kind, principal=principal, after=_after(cursor), most=limit)
    records = [record for _, record in found]
    trail.told(count=len(records), **({"principal": principal} if principal else {}))
    if kind == "documents":
        trail.named(*(uuid.UUID(record["id"]) for record in records))
        if links:
            _add_links(who.tenant_id, records)
    last = found[-1][0] if len(found) == limit else None
    return ExportPage(
        records=records, next_cursor=None if last is None else base64.urlsafe_b64encode(last.encode()).decode()
    )


def _add_links(tenant_id: uuid.UUID, records: list[dict[str, Any]]) -> None:
    seconds = wiring.settings().upload_seconds
    for record in records:
        place = Location(tenant_id, record["collection"], record["key"])
        url = wiring.bucket().presign_download(place.object_key, record["version_id"], valid_seconds=seconds)
        record["download"] = {"url": url, "expires_in_seconds": seconds}


def _after(cursor: str | None) -> str | None:
    try:
        return None if cursor is None else base64.urlsafe_b64decode(cursor).decode()
    except ValueError:
        msg = "the cursor is not one that this API gave"
        raise InvalidRequestError(msg) from None
