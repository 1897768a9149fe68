"""How many requests a caller may make: asked before any work, and told with every answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aws_lambda_powertools.metrics import MetricUnit
from starlette.requests import Request

from functions.query import callers, problems
from functions.query.telemetry import metrics
from rag import wiring
from rag.errors import RateLimitError
from rag.throttling import Bucket

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from rag.types import Caller

# What a credential's and a tenant's own numbers count in.
_MINUTE = 60


def install(app: FastAPI) -> None:
    """Refuse what is too much, and tell every caller how many requests it may make, and how many are left."""
    app.add_middleware(_Limited)


def _buckets(caller: Caller) -> list[Bucket]:
    """Those that have a limit."""
    settings = wiring.settings()
    window = settings.rate_limit_window
    own, tenants = caller.requests_per_minute, caller.tenant_requests_per_minute
    every = (
        Bucket.of_key(caller.tenant_id, caller.principal, settings.rate_limit_requests, window)
        if own is None
        else Bucket.of_key(caller.tenant_id, caller.principal, own, _MINUTE),
        Bucket.of_tenant(caller.tenant_id, settings.tenant_rate_limit_requests, window)
        if tenants is None
        else Bucket.of_tenant(caller.tenant_id, tenants, _MINUTE),
    )
    return [bucket for bucket in every if bucket.requests]


class _Limited:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = callers.known(scope)
        if caller is None:  # nobody, whom only what is public answers
            return await self._app(scope, receive, send)
        admission = wiring.throttle().admit(_buckets(caller))
        scope.setdefault("state", {})["admission"] = admission

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                told = [(name.encode(), value.encode()) for name, value in admission.fields]
                message["headers"] = [*message["headers"], *told]
            await send(message)

        try:
            admission.require()
        except RateLimitError as error:
            metrics.add_metric("RateLimitHits", MetricUnit.Count, 1)
            answer = await problems.response_to(Request(scope), error)
            return await answer(scope, receive, telling)
        return await self._app(scope, receive, telling)
