"""An API without its routes: what stands before them, and how it describes itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI

from functions.query import auditing, bodies, headers, idempotency, origins, problems, rates
from rag import __version__

if TYPE_CHECKING:
    from starlette.routing import BaseRoute
    from starlette.types import Receive, Scope, Send


class Api(FastAPI):
    """Describes itself when it is asked to, and not before: the initialisation has no time for it.

    Nor for the routes that are seldom asked for: they are there from the first request on whose path begins with one of
    their prefixes, and for whoever looks at all `routes`.
    """

    _seldom: Callable[[], Iterable[APIRouter]] | None = None
    _prefixes: tuple[str, ...] = ()
    _place = 0

    def later(self, prefixes: tuple[str, ...], seldom: Callable[[], Iterable[APIRouter]]) -> None:
        """Have these routers behind those that there are, but not yet."""
        self._seldom, self._prefixes, self._place = seldom, prefixes, len(self.router.routes)

    @property
    def routes(self) -> list[BaseRoute]:
        self.complete()
        return super().routes

    def complete(self) -> None:
        """Have all routes by now."""
        seldom, self._seldom = self._seldom, None
        routes = self.router.routes
        known = len(routes)
        for router in seldom() if seldom else ():
            self.include_router(router)
        routes[self._place :] = [*routes[known:], *routes[self._place : known]]

    def openapi(self) -> dict[str, Any]:
        from functions.query import description  # noqa: PLC0415 (with all the words that only readers need)

        described = super().openapi()
        return described if "tags" in described else description.complete(described, self.routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._seldom is not None and scope["type"] == "http" and scope["path"].startswith(self._prefixes):
            self.complete()
        await super().__call__(scope, receive, send)


def application() -> Api:
    """Return one that has everything but routes."""
    app = Api(
        title="RAG",
        version=__version__,
        summary="Ask questions of your documents; check the citations.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # it would send the client to whatever host its request named
        generate_unique_id_function=attrgetter("name"),
        responses={"default": {"description": "RFC 9457 problem"}},
    )
    # From the inside out.
    idempotency.install(app)
    bodies.install(app)
    problems.install(app)
    auditing.install(app)
    rates.install(app)
    problems.guard(app)
    origins.install(app)
    headers.install(app)
    return app
