"""Every request of a caller leaves one row in the audit log, before anything of its response is sent."""

from __future__ import annotations

import uuid
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any

from aws_lambda_powertools.metrics import MetricUnit
from fastapi import Depends, Request
from fastapi.routing import iter_route_contexts
from starlette.routing import Match

from functions.query import callers, problems
from functions.query.telemetry import logger, metrics
from rag import auditing, keys, wiring
from rag.auditing import Entry, Trail
from rag.errors import UnavailableError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from rag.types import JSON

# A limit must not cost a row for each request that it refuses: they are counted where they are refused.
_COUNTED = {HTTPStatus.TOO_MANY_REQUESTS}
# What did not answer may be the database itself: to wait for it once more would be too late for the client.
_UNANSWERED = {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
# Left for the row where the work has taken all the time there was.
_WRITE_SECONDS = 2.0
_REFUSAL = "What is done here is written down, and that failed; try again."


async def trail(request: Request) -> Trail:
    """What a route remembers of its request beside who asked for what."""
    found: Trail = request.state.trail
    return found


Audit = Annotated[Trail, Depends(trail)]


def install(app: FastAPI) -> None:
    """Have the app write a row for whatever a caller asks of it: no route can forget it."""
    app.add_middleware(_Audited)


class _Audited:
    """Around all routes and their errors; the row says how the request ended."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        trail = scope.setdefault("state", {})["trail"] = Trail()
        begun = False
        refusal: Response | None = None

        async def audited(message: Message) -> None:
            nonlocal begun, refusal
            if message["type"] == "http.response.start":
                begun = True
                if not _remembered(scope, trail, message["status"]):
                    refusal = problems.problem(Request(scope), HTTPStatus.SERVICE_UNAVAILABLE, _REFUSAL)
            if refusal is None:
                await send(message)

        try:
            await self._app(scope, receive, audited)
        except Exception:
            if not begun:
                _remembered(scope, trail, HTTPStatus.INTERNAL_SERVER_ERROR)
            raise
        if refusal is not None:
            await refusal(scope, receive, send)


def _remembered(scope: Scope, trail: Trail, status: int) -> bool:
    """Whether the request may be answered: its row is written, or the deployment does without."""
    entry = _entry(scope, trail, status)
    if entry is None or status in _UNANSWERED:
        if entry is not None:
            logger.warning("not in the audit log: nothing was shown", extra=_told(entry))
        if trail.settlement is not None:
            with suppress(UnavailableError):  # the estimate stays, if there is one
                wiring.usage_store().settle(trail.settlement)
        return True
    context = scope.get("aws.context")
    try:
        if context is not None and wiring.database().deadline.remaining() < _WRITE_SECONDS:
            wiring.until_the_end(context, margin_seconds=wiring.LAST_SECONDS, most_seconds=_WRITE_SECONDS)
        # What was changed is on the disk before it is told of; what was only shown may take half a second more.
        hurried = trail.reads or scope["method"] == "GET"
        if (settlement := trail.settlement) is None:
            wiring.audit_store().write(entry, hurried=hurried)
        else:
            usage = wiring.usage_store()
            unlimited = wiring.audit_store().write(entry, hurried=hurried, settling=usage.settling(settlement))
            if unlimited is not None:
                usage.settled(settlement, unlimited=unlimited)
    except Exception:  # noqa: BLE001 (whatever it is, the request was worked on and its row is not lost)
        metrics.add_metric("AuditFailures", MetricUnit.Count, 1)
        # The row itself, so that it is not lost.
        logger.exception("not in the audit log", extra=_told(entry))
        return wiring.settings().audit_failure == "open" or status >= HTTPStatus.BAD_REQUEST
    return True


def _entry(scope: Scope, trail: Trail, status: int) -> Entry | None:
    """The row; None of what nobody known asked for, or of no route."""
    caller = callers.known(scope)
    route = (scope.get("route") or _refused_before(scope)) if caller else None
    if route is None or caller is None or status in _COUNTED or status == HTTPStatus.METHOD_NOT_ALLOWED:
        return None
    context = scope["aws.event"]["requestContext"]
    parameters = dict(scope.get("path_params", {}))
    document = parameters.pop("document_id", None)
    if document is not None and (named := _identity(document)) is not None:
        trail.named(named)
    return Entry(
        caller.tenant_id,
        caller.principal,
        caller.role,
        auditing.action(route.name),
        status,
        auditing.storable(context.get("requestId", "")),
        auditing.address(context.get("identity", {}).get("sourceIp")),
        # An API key in the place of its id is a slip that must not be kept.
        {name: keys.masked(auditing.storable(value)) for name, value in parameters.items()} | trail.details,
        trail.documents,
    )


def _refused_before(scope: Scope) -> Any:
    """The route of a request that was answered before any was looked for: a body that is none, or an answer again."""
    for context in iter_route_contexts(scope["app"].router.routes):
        route = context.original_route
        match, found = route.matches(scope)
        if match is Match.FULL:
            scope["path_params"] = found.get("path_params", {})
            return route
    return None


def _identity(text: Any) -> uuid.UUID | None:
    try:
        return uuid.UUID(str(text))
    except ValueError:
        return None


def _told(entry: Entry) -> JSON:
    """The row as a line of the log has it."""
    return {
        "audit": {
            "id": str(entry.id),
            "tenant_id": str(entry.tenant_id),
            "principal": entry.principal,
            "role": entry.role,
            "action": entry.action,
            "outcome": entry.outcome,
            "request_id": entry.request_id,
            "address": entry.address,
            "details": dict(entry.details),
            "documents": {str(document): places for document, places in entry.documents.items()},
        }
    }
