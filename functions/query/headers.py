"""Headers that every answer has, and the request's id among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders

from functions.query import problems
from rag.answer_headers import ON_EVERY_ANSWER

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class _Headers:
    """Adds what the answer does not say itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in ON_EVERY_ANSWER.items():
                    headers.setdefault(name, value)
                if request_id := problems.request_id(scope):
                    headers["x-request-id"] = request_id
            await send(message)

        await self._app(scope, receive, told)


def install(app: FastAPI) -> None:
    app.add_middleware(_Headers)
