"""Web pages of other origins: those that the settings name may read what the API answers them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.middleware.cors import CORSMiddleware

from rag import wiring

if TYPE_CHECKING:
    from fastapi import FastAPI

EXPOSED = ("x-request-id", "retry-after")


class _NamedOrigins(CORSMiddleware):
    """Asks the settings at each request: nothing of the environment is read while this is imported."""

    def is_allowed_origin(self, origin: str) -> bool:
        return origin in wiring.settings().cors_origins


def install(app: FastAPI) -> None:
    """Name the asking page in each answer that it may read; API Gateway answers the question that goes before."""
    app.add_middleware(_NamedOrigins, expose_headers=EXPOSED)
