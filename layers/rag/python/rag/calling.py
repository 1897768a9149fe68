"""A caller on the way from the authorizer to the functions: as strings, which is all that API Gateway passes on."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, get_args

from rag.types import Caller, Role

ROLES: tuple[Role, ...] = get_args(Role)

_NEVER_MISSING = ("tenant_id", "principal", "role", "collections", "groups", "email")
# One of which nothing is said is as the deployment has it.
_LIMITS = ("requests_per_minute", "tenant_requests_per_minute")
_STRANGE = "this is not what the authorizer says of a caller"


def context(caller: Caller) -> dict[str, str]:
    """Return what a Lambda authorizer tells as `context`."""
    return {
        "tenant_id": str(caller.tenant_id),
        "principal": caller.principal,
        "role": caller.role,
        "collections": json.dumps(caller.collections),
        "groups": json.dumps(caller.groups),
        "email": caller.email or "",
        "requests_per_minute": json.dumps(caller.requests_per_minute),
        "tenant_requests_per_minute": json.dumps(caller.tenant_requests_per_minute),
    }


def caller(told: Mapping[str, Any]) -> Caller:
    """Return who an integration's request context says it is; ValueError for what the authorizer never says."""
    try:
        return _caller(*[told[name] for name in _NEVER_MISSING], *[told.get(name, "null") for name in _LIMITS])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(_STRANGE) from error


# The same strings are the same caller, who mostly asks more than once.
@lru_cache(maxsize=1_000)
def _caller(
    tenant_id: str, principal: str, role: str, collections: str, groups: str, email: str, own: str, tenants: str
) -> Caller:
    found = Caller(
        uuid.UUID(tenant_id),
        principal,
        role,  # type: ignore[arg-type]  # which is looked at below
        _names(json.loads(collections)),
        _names(json.loads(groups)),
        email or None,
        _number(json.loads(own)),
        _number(json.loads(tenants)),
    )
    if found.role not in ROLES or found.groups is None:
        raise ValueError(_STRANGE)
    return found


def _names(value: Any) -> Any:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError(_STRANGE)
    return tuple(value)


def _number(value: Any) -> int | None:
    if value is None or (type(value) is int and value >= 0):
        return value
    raise ValueError(_STRANGE)
