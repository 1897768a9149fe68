"""Routes for administrators: who did what, and who was shown which documents."""

from __future__ import annotations

import base64
import json
import uuid
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, TypeAdapter

from functions.query import schemas
from functions.query.auditing import Audit
from functions.query.callers import Overseer
from rag import wiring
from rag.auditing import AuditQuery, Record
from rag.errors import InvalidRequestError
from rag.types import Scope

router = APIRouter()

# The time and the id of the last row seen.
_CURSOR = TypeAdapter(tuple[AwareDatetime, uuid.UUID])


class ShownBody(BaseModel):
    """`positions` are those of the passages that were shown; none where the document was told of or changed."""

    document_id: uuid.UUID
    version_id: str | None
    positions: list[int]


class RecordBody(BaseModel):
    id: uuid.UUID
    at: datetime
    principal: str
    role: str
    action: str
    outcome: int
    request_id: str
    address: str | None
    details: dict[str, Any]
    documents: list[ShownBody]

    @classmethod
    def of(cls, record: Record) -> RecordBody:
        return cls(
            id=record.id,
            at=record.at,
            principal=record.principal,
            role=record.role,
            action=record.action,
            outcome=record.outcome,
            request_id=record.request_id,
            address=record.address,
            details=record.details,
            documents=[
                ShownBody(document_id=one.document_id, version_id=one.version_id, positions=one.positions)
                for one in record.documents
            ],
        )


class AuditPage(BaseModel):
    records: list[RecordBody]
    next_cursor: str | None = None


@router.get("/v1/audit")
async def list_audit(
    who: Overseer,
    trail: Audit,
    since: AwareDatetime | None = None,
    until: AwareDatetime | None = None,
    principal: schemas.Text | None = None,
    action: schemas.Text | None = None,
    document: uuid.UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: schemas.Text | None = None,
) -> AuditPage:
    """Tell who did what with the tenant's documents, the latest first, a page at a time.

    `since` is the first moment that counts, `until` the first that does not; of one `document`, who was shown it.
    """
    wanted = AuditQuery(since, until, principal, action, document, _before(cursor), limit)
    found = wiring.audit_store().page(Scope.of(who), wanted)
    trail.told(count=len(found), **({"document": str(document)} if document else {}))
    last = found[-1] if len(found) == limit else None
    return AuditPage(
        records=[RecordBody.of(record) for record in found],
        next_cursor=_cursor(last) if last else None,
    )


def _cursor(last: Record) -> str:
    return base64.urlsafe_b64encode(json.dumps([last.at.isoformat(), str(last.id)]).encode()).decode()


def _before(cursor: str | None) -> tuple[datetime, uuid.UUID] | None:
    if cursor is None:
        return None
    try:
        return _CURSOR.validate_json(base64.urlsafe_b64decode(cursor))
    except ValueError:
        msg = "the cursor is not one that this API gave"
        raise InvalidRequestError(msg) from None
