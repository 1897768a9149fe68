"""Administrators' work on tenants.

`{"action": "create", "name": …}` → `{"tenant_id", "api_key"}`; `{"action": "erase", "tenant_id": …}` → a receipt;
`{"action": "erasures", "tenant_id": …}` → how far it is;
`{"action": "limit", "tenant_id": …, "requests_per_day": …, "tokens_per_day": …}` → the same without the action.
"""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING

from rag import telemetry, wiring
from rag.errors import InvalidRequestError, UnavailableError
from rag.types import JSON, Erasure

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

logger = telemetry.logger()

EXPECTED = (
    'expected {"action": "create", "name": "1 to 200 printable characters"}, '
    'or {"action": "erase" or "erasures", "tenant_id": "…"}, or '
    '{"action": "limit", "tenant_id": "…", "requests_per_day": 0 or more, "tokens_per_day": 0 or more}, '
    "where null is as the deployment says and 0 is any number"
)
# As large as a column of the table takes.
MOST = 2**63 - 1


@logger.inject_lambda_context
def handler(event: JSON, context: LambdaContext) -> JSON:  # noqa: ARG001 (Lambda's signature)
    match event:
        case {"action": "create", "name": str(name)} if 0 < len(name.strip()) <= 200 and name.isprintable():
            tenant_id, api_key = wiring.tenant_store().create(name.strip())
            logger.info("tenant created", tenant_id=str(tenant_id))
            return {"tenant_id": str(tenant_id), "api_key": api_key}
        case {"action": "erase", "tenant_id": str(named)}:
            erasure = wiring.erasure_requests().request_of_tenant(tenant(named), "administrator")
            logger.info("tenant to be erased", tenant_id=named, erasure_id=str(erasure.id))
            message = {"tenant_id": named, "erasure_id": str(erasure.id)}
            try:
                wiring.erasure_queue().send(json.dumps(message))
            except UnavailableError as error:  # the schedule finds it
                logger.warning("erase not woken", exc_info=error)
            return receipt(erasure)
        case {"action": "erasures", "tenant_id": str(named)}:
            found = wiring.erasure_requests().receipts(tenant(named))
            return {"erasures": [receipt(each) for each in found]}
        case {"action": "limit", "tenant_id": str(named), "requests_per_day": requests, "tokens_per_day": tokens}:
            return limit(tenant(named), number(requests), number(tokens))
        case _:
            raise InvalidRequestError(EXPECTED)


def tenant(named: str) -> uuid.UUID:
    try:
        return uuid.UUID(named)
    except ValueError:
        msg = f"{named!r} is not the id of a tenant"
        raise InvalidRequestError(msg) from None


def receipt(erasure: Erasure) -> JSON:
    settings = wiring.settings()
    done = erasure.finished_at
    kept = timedelta(days=settings.backup_days)
    return {
        "id": str(erasure.id),
        "scope": erasure.scope,
        "status": "done" if done else "pending",
        "requested_at": erasure.requested_at.isoformat(),
        "finished_at": done.isoformat() if done else None,
        "removed": erasure.removed,
        "backups_expire_at": (done + kept).isoformat() if done and kept else None,
    }


def limit(tenant_id: uuid.UUID, requests: int | None, tokens: int | None) -> JSON:
    wiring.tenant_store().limit(tenant_id, requests_per_day=requests, tokens_per_day=tokens)
    limits = {"tenant_id": str(tenant_id), "requests_per_day": requests, "tokens_per_day": tokens}
    logger.info("tenant limited", extra=limits)
    return limits


def number(value: object) -> int | None:
    if value is None:
        return None
    # A boolean is an integer to Python.
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST:
        return value
    raise InvalidRequestError(EXPECTED)
