"""Which requests the API takes: those that the application answers, no list beside it."""

from __future__ import annotations

from collections.abc import Iterator

from functions.query.api import app
from functions.table import PUBLIC


def routes() -> Iterator[tuple[str, str]]:
    """Method and path of every route; what the description leaves out is public and only ever read."""
    described = app.openapi()["paths"]
    for path, methods in described.items():
        yield from ((method.upper(), path) for method in methods)
    for path in sorted(PUBLIC):
        yield from ((method, path) for method in ("GET", "HEAD") if method.lower() not in described.get(path, {}))
