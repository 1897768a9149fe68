"""Web pages of other origins: those that the settings name may read what the API answers them."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from rag import wiring

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.datastructures import Headers

EXPOSED = ("x-request-id", "retry-after", "idempotency-replayed", "ratelimit", "ratelimit-policy")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
HEADERS = ("authorization", "content-type", "idempotency-key", "x-api-key")
KEPT_SECONDS = 3600


class _NamedOrigins(CORSMiddleware):
    """Asks the settings at each request: nothing of the environment is read while this is imported."""

    def is_allowed_origin(self, origin: str) -> bool:
        return origin in wiring.settings().cors_origins

    def preflight_response(self, request_headers: Headers) -> Response:
        """As API Gateway has it, which answers in our place on AWS: nobody is told why not."""
        answer = super().preflight_response(request_headers)
        allowed = answer.status_code == HTTPStatus.OK
        given = {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}
        return Response(status_code=HTTPStatus.NO_CONTENT, headers={**(given if allowed else {}), "vary": "Origin"})


def install(app: FastAPI) -> None:
    """Name the asking page in each answer that it may read."""
    app.add_middleware(
        _NamedOrigins,
        allow_methods=METHODS,
        allow_headers=HEADERS,
        expose_headers=EXPOSED,
        max_age=KEPT_SECONDS,
    )
