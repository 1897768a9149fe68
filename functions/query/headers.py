"""Headers that every answer has, and the request's id among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from functions.query import problems
from rag.answer_headers import ON_EVERY_ANSWER

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


_ALWAYS = [(name.encode(), value.encode()) for name, value in ON_EVERY_ANSWER.items()]


class _Headers:
    """Adds what the answer does not say itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = {name for name, _ in message["headers"]}
                headers = [*message["headers"], *(header for header in _ALWAYS if header[0] not in said)]
                if request_id := problems.request_id(scope):
                    headers.append((b"x-request-id", request_id.encode("latin-1")))
                message["headers"] = headers
            await send(message)

        await self._app(scope, receive, told)


def install(app: FastAPI) -> None:
    app.add_middleware(_Headers)
