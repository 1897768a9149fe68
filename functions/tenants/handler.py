"""Administrators' work on tenants.

`{"action": "create", "name": …}` → `{"tenant_id", "api_key"}`;
`{"action": "list", "after": ""}` → `{"tenants", "next"}`, by name, where `next` is what to give as `after`;
`{"action": "key", "tenant_id": …, "revoke_others": false}` → `{"tenant_id", "api_key"}`;
`{"action": "erase", "tenant_id": …}` → a receipt; `{"action": "erasures", "tenant_id": …}` → how far it is;
`{"action": "limit", "tenant_id": …, "key_id": …, "tokens_per_day": …, …}` → the same without the action, all limits.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, fields
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.metrics import MetricUnit

from rag import telemetry, wiring
from rag.auditing import ADMINISTRATOR, Entry
from rag.errors import InvalidRequestError, UnavailableError
from rag.spending import Allowance
from rag.types import JSON, Erasure, Scope

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

logger = telemetry.logger()
metrics = telemetry.metrics()

EXPECTED = (
    'expected {"action": "create", "name": "1 to 200 printable characters"}, '
    'or {"action": "list", "after": "" or the last name seen}, '
    'or {"action": "key", "tenant_id": "…", "revoke_others": true or false}, '
    'or {"action": "erase" or "erasures", "tenant_id": "…"}, or '
    '{"action": "limit", "tenant_id": "…", "key_id": null or "…", "requests_per_minute", "requests_per_day", '
    '"tokens_per_day", "tokens_per_month", "usd_per_day", "usd_per_month": 0 or more}, '
    "where null, or nothing, is as the deployment says and 0 is any number"
)
# As large as a column of the table takes, and a bucket.
MOST = {
    "requests_per_minute": 1_000_000,
    **dict.fromkeys(("requests_per_day", "tokens_per_day", "tokens_per_month"), 2**63 - 1),
    **dict.fromkeys(("usd_per_day", "usd_per_month"), 1_000_000_000),
}


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: JSON, context: LambdaContext) -> JSON:
    metrics.add_metric("TenantActions", MetricUnit.Count, 1)
    wiring.until_the_end(context, margin_seconds=wiring.LAST_SECONDS)
    match event:
        case {"action": "create", "name": str(name)} if 0 < len(name.strip()) <= 200 and name.isprintable():
            tenant_id, api_key = wiring.tenant_store().create(name.strip())
            logger.info("tenant created", tenant_id=str(tenant_id))
            remember("tenant.create", tenant_id, context)
            return {"tenant_id": str(tenant_id), "api_key": api_key}
        case {"action": "list", "after": str(after)} if after.isprintable():
            return page(after)
        case {"action": "key", "tenant_id": str(named), "revoke_others": bool(revoke_others)}:
            api_key = wiring.tenant_store().key(tenant(named), revoke_others=revoke_others)
            logger.info("key made", tenant_id=named, revoked_others=revoke_others)
            remember("key.create", tenant(named), context, revoked_others=revoke_others)
            return {"tenant_id": named, "api_key": api_key}
        case {"action": "erase", "tenant_id": str(named)}:
            erasure = wiring.erasure_requests().request_of_tenant(tenant(named), ADMINISTRATOR)
            logger.info("tenant to be erased", tenant_id=named, erasure_id=str(erasure.id))
            remember("tenant.erase", tenant(named), context, erasure_id=str(erasure.id))
            message = {"tenant_id": named, "erasure_id": str(erasure.id)}
            try:
                wiring.erasure_queue().send(json.dumps(message))
            except UnavailableError as error:  # the schedule finds it
                logger.warning("erase not woken", exc_info=error)
            return receipt(erasure)
        case {"action": "erasures", "tenant_id": str(named)}:
            found = wiring.erasure_requests().receipts(Scope(tenant(named)))
            return {"erasures": [receipt(each) for each in found]}
        case {"action": "limit", "tenant_id": str(named), **given}:
            limits = limit(tenant(named), given)
            told = {name: value for name, value in limits.items() if name != "tenant_id" and value is not None}
            remember("tenant.limit", tenant(named), context, **told)
            return limits
        case _:
            raise InvalidRequestError(EXPECTED)


def remember(action: str, tenant_id: uuid.UUID, context: LambdaContext, **details: object) -> None:
    """Write down in the tenant's audit log what was done to it; where that fails the row is in this function's log."""
    entry = Entry(tenant_id, ADMINISTRATOR, ADMINISTRATOR, action, HTTPStatus.OK, context.aws_request_id, None, details)
    try:
        wiring.audit_store().write_administration(entry)
    except Exception:
        metrics.add_metric("AuditFailures", MetricUnit.Count, 1)
        logger.exception("not in the audit log", action=action, tenant_id=str(tenant_id), details=details)


def tenant(named: str) -> uuid.UUID:
    try:
        return uuid.UUID(named)
    except ValueError:
        msg = f"{named!r} is not the id of a tenant"
        raise InvalidRequestError(msg) from None


def page(after: str) -> JSON:
    found, following = wiring.tenant_store().page(after)
    return {
        "tenants": [
            {
                "tenant_id": str(each.id),
                "name": each.name,
                "created_at": each.created_at.isoformat(),
                "live_keys": each.live_keys,
                "last_used_at": each.last_used_at.isoformat() if each.last_used_at else None,
                "requests_per_day": each.requests_per_day,
                "tokens_per_day": each.tokens_per_day,
            }
            for each in found
        ],
        "next": following,
    }


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


def limit(tenant_id: uuid.UUID, given: JSON) -> JSON:
    given = dict(given)
    key_id = given.pop("key_id", None)
    names = {each.name for each in fields(Allowance)}
    if not given.keys() <= names or not isinstance(key_id, str | None):
        raise InvalidRequestError(EXPECTED)
    allowance = Allowance(**{name: number(name, value) for name, value in given.items()})
    if (allowance.usd_per_day or allowance.usd_per_month) and not wiring.settings().priced:
        msg = "a limit in USD needs the deployment to know what its models cost: RAG_…_USD_PER_MILLION_TOKENS"
        raise InvalidRequestError(msg)
    wiring.tenant_store().limit(tenant_id, allowance, key_id)
    limits = {"tenant_id": str(tenant_id), **({"key_id": key_id} if key_id else {}), **asdict(allowance)}
    logger.info("limited", extra=limits)
    return limits


def number(name: str, value: object) -> Any:
    """One that the limit's column takes; a boolean is an integer to Python."""
    most = MOST[name]
    kinds = (int, float) if name.startswith("usd") else (int,)
    if value is None or (type(value) in kinds and 0 <= value <= most):  # type: ignore[operator]  # of a kind that is
        return value
    raise InvalidRequestError(EXPECTED)
