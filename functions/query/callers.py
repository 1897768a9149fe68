"""Who asks, what they may do, and until when: what routes depend on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from functions.query.telemetry import logger
from rag import calling, wiring
from rag.deadline import Deadline
from rag.errors import ForbiddenError, NotAuthorizedError
from rag.types import Caller, Role

if TYPE_CHECKING:
    from starlette.types import Scope

_CALLER = "caller"


async def caller(request: Request) -> Caller:
    found = known(request.scope)
    if found is None:
        msg = "send an API key in the header x-api-key"
        raise NotAuthorizedError(msg)
    return found


def known(scope: Scope) -> Caller | None:
    """Who the authorizer found, if anybody; nothing that the client sends can change it. It is read once a request."""
    state: dict[str, Caller | None] = scope.setdefault("state", {})
    if _CALLER not in state:
        state[_CALLER] = _told(scope)
    return state[_CALLER]


def _told(scope: Scope) -> Caller | None:
    context = (scope.get("aws.event") or {}).get("requestContext", {}).get("authorizer") or {}
    try:
        found = calling.caller(context)
    except ValueError:
        return None
    logger.append_keys(tenant_id=str(found.tenant_id), principal=found.principal)
    return found


async def writer(found: Annotated[Caller, Depends(caller)]) -> Caller:
    return _at_least("writer", found)


async def admin(found: Annotated[Caller, Depends(caller)]) -> Caller:
    return _at_least("admin", found)


async def overseer(found: Annotated[Caller, Depends(admin)]) -> Caller:
    """An admin of the whole tenant: what is told here is not of one collection."""
    if found.collections is not None:
        msg = "this needs a credential that is not limited to collections"
        raise ForbiddenError(msg)
    return found


def _at_least(role: Role, found: Caller) -> Caller:
    if calling.ROLES.index(found.role) < calling.ROLES.index(role):
        msg = f"this needs a key with the role {role}"
        raise ForbiddenError(msg)
    return found


def deadline_within(request: Request, seconds: float) -> Deadline:
    """So many seconds from now, or what the platform leaves of them."""
    context = request.scope.get("aws.context")
    if context is None:
        return Deadline.after(seconds)
    return wiring.until_the_end(context, margin_seconds=wiring.LAST_SECONDS, most_seconds=seconds)


Reader = Annotated[Caller, Depends(caller)]
Writer = Annotated[Caller, Depends(writer)]
Admin = Annotated[Caller, Depends(admin)]
Overseer = Annotated[Caller, Depends(overseer)]
