"""Errors → RFC 9457 problems: one table, one shape, nothing of the inside."""

from __future__ import annotations

import json
import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from functions.query.telemetry import logger
from rag.errors import (
    BudgetError,
    ConflictError,
    DeadlineError,
    ForbiddenError,
    InvalidRequestError,
    NotAuthorizedError,
    NotFoundError,
    RagError,
    RateLimitError,
    ReusedKeyError,
    TooLargeError,
    UnavailableError,
)

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The first class that fits decides: the more particular ones come first.
STATUS: list[tuple[type[RagError], HTTPStatus]] = [
    (TooLargeError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (ConflictError, HTTPStatus.CONFLICT),
    (ReusedKeyError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (InvalidRequestError, HTTPStatus.BAD_REQUEST),
    (NotAuthorizedError, HTTPStatus.UNAUTHORIZED),
    (ForbiddenError, HTTPStatus.FORBIDDEN),
    (NotFoundError, HTTPStatus.NOT_FOUND),
    (BudgetError, HTTPStatus.TOO_MANY_REQUESTS),
    (RateLimitError, HTTPStatus.TOO_MANY_REQUESTS),
    (DeadlineError, HTTPStatus.GATEWAY_TIMEOUT),
    (UnavailableError, HTTPStatus.SERVICE_UNAVAILABLE),
]
# Of draft-ietf-httpapi-ratelimit-headers, as are the members that go with it.
QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
# What an error of ours says may be of the inside (a secret's name, a server's address): it stays in the log.
DETAIL = {
    HTTPStatus.INTERNAL_SERVER_ERROR: "Something went wrong here; the request id helps to find it.",
    HTTPStatus.SERVICE_UNAVAILABLE: "A dependency did not answer; try again.",
    HTTPStatus.GATEWAY_TIMEOUT: "The time for this request is used up.",
}


def install(app: FastAPI) -> None:
    """Answer every error of the app with a problem."""
    app.add_exception_handler(RagError, _foreseen)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    guard(app)


def guard(app: FastAPI) -> None:
    """Answer what is raised by all that was added to the app so far."""
    app.add_middleware(_Guard)


class _Guard:
    """Answers what nobody foresaw, and what was raised on the way to the routes, before the headers are added.

    Starlette's own place for it is outside of all that adds headers. What has begun to be answered is only broken off.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def told(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, told)
        except Exception as error:
            if begun:
                logger.exception("unforeseen, in the middle of an answer")
                raise
            answer = await response_to(Request(scope), error)
            await answer(scope, receive, send)


def request_id(scope: Scope) -> str:
    event = scope.get("aws.event") or {}
    return str(event.get("requestContext", {}).get("requestId", ""))


def problem(request: Request, status: int, detail: str, **more: Any) -> Response:
    headers = more.pop("headers", None)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers = {"Retry-After": "1", **(headers or {})}
    title = HTTPStatus(status).phrase
    body = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": request_id(request.scope),
        **more,
    }
    # Escaped to ASCII: what a client sent, and a problem says again, need not be text that UTF-8 can hold.
    return Response(json.dumps(body), status, headers, "application/problem+json")


async def response_to(request: Request, error: Exception) -> Response:
    """Return the problem that this error is, having logged it where it is not the caller's."""
    if isinstance(error, RagError):
        return await _foreseen(request, error)
    if isinstance(error, HTTPException):
        return await _http(request, error)
    return _unforeseen(request, error)


async def as_json(request: Request, error: Exception) -> str:
    """Return the problem that this error is; what was not foreseen is logged by who raises it."""
    if isinstance(error, RagError):
        answer = await _foreseen(request, error)
    else:
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        answer = problem(request, status, DETAIL[status])
    return bytes(answer.body).decode()


async def _foreseen(request: Request, error: Exception) -> Response:
    status = next((code for kind, code in STATUS if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.warning("dependency failed", request_id=request_id(request.scope), error=str(error), exc_info=error)
    wait = getattr(error, "retry_after_seconds", None)
    headers = {"Retry-After": str(math.ceil(wait))} if wait else None
    more: dict[str, Any] = {}
    if isinstance(error, RateLimitError):
        more = {"type": QUOTA_EXCEEDED, "violated-policies": error.violated}
    if isinstance(error, BudgetError):
        more = {"reset_at": error.reset_at.isoformat()}
    return problem(request, status, DETAIL.get(status, str(error)), headers=headers, **more)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 (what it is registered for)
    malformed = any(item["type"] == "json_invalid" for item in error.errors())
    errors = [{"path": ".".join(map(str, _place(item))), "message": str(item["msg"])} for item in error.errors()]
    status = HTTPStatus.BAD_REQUEST if malformed else HTTPStatus.UNPROCESSABLE_ENTITY
    detail = "; ".join(f"{item['path']}: {item['message']}" for item in errors[:5])
    return problem(request, status, detail, errors=errors)


def _place(item: Any) -> tuple[Any, ...]:
    """Where it is in the body; a validator that looks into a value of its own says where in there."""
    return *item["loc"], *item.get("ctx", {}).get("within", ())


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 (what it is registered for)
    return problem(request, error.status_code, str(error.detail), headers=error.headers)


def _unforeseen(request: Request, error: Exception) -> Response:
    logger.exception("unforeseen", exc_info=error)
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    return problem(request, status, DETAIL[status])
