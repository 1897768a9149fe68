"""Who asks, what they may do, and until when: what routes depend on."""

from __future__ import annotations

import uuid
from typing import Annotated

from fastapi import Depends, Request

from functions.query.telemetry import logger
from rag import wiring
from rag.deadline import Deadline
from rag.errors import ForbiddenError, NotAuthorizedError
from rag.types import Caller, Role

# Time to write the response after the work's own deadline.
MARGIN_SECONDS = 1.0
ROLES: dict[Role, int] = {"reader": 0, "writer": 1, "admin": 2}


async def caller(request: Request) -> Caller:
    """Who the authorizer found; nothing that the client sends can change it."""
    context = (request.scope.get("aws.event") or {}).get("requestContext", {}).get("authorizer") or {}
    try:
        found = Caller(uuid.UUID(context["tenant_id"]), context["principal"], context["role"])
    except (KeyError, ValueError):
        msg = "send an API key in the header x-api-key"
        raise NotAuthorizedError(msg) from None
    logger.append_keys(tenant_id=str(found.tenant_id), principal=found.principal)
    return found


async def writer(found: Annotated[Caller, Depends(caller)]) -> Caller:
    return _at_least("writer", found)


async def admin(found: Annotated[Caller, Depends(caller)]) -> Caller:
    return _at_least("admin", found)


def _at_least(role: Role, found: Caller) -> Caller:
    if ROLES.get(found.role, -1) < ROLES[role]:
        msg = f"this needs a key with the role {role}"
        raise ForbiddenError(msg)
    return found


async def deadline(request: Request) -> Deadline:
    return deadline_within(request, wiring.settings().request_seconds)


def deadline_within(request: Request, seconds: float) -> Deadline:
    """So many seconds from now, or what the platform leaves of them."""
    context = request.scope.get("aws.context")
    if context is not None:
        seconds = min(seconds, context.get_remaining_time_in_millis() / 1000 - MARGIN_SECONDS)
    return Deadline.after(seconds)


Reader = Annotated[Caller, Depends(caller)]
Writer = Annotated[Caller, Depends(writer)]
Admin = Annotated[Caller, Depends(admin)]
Until = Annotated[Deadline, Depends(deadline)]
