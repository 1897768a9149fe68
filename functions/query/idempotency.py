"""Writes that name themselves (`Idempotency-Key`) have one effect, however often they are sent.

https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from functions.query import bodies, callers
from functions.query.telemetry import logger
from rag import wiring
from rag.errors import ConflictError, InvalidRequestError, UnavailableError
from rag.types import KeptAnswer, RequestClaim

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "idempotency-key"
REPLAYED = "idempotency-replayed"
WRITES = {"POST", "PUT", "PATCH", "DELETE"}
# These ask, and change nothing that could be changed twice.
ASKING = {"/v1/query", "/v1/search"}
# A string of RFC 9651 has quotation marks, which most clients leave out; what it names is the same.
_KEY = re.compile(r'(?P<mark>"?)(?P<key>[\x21\x23-\x7e]{1,255})(?P=mark)')
_STATE = "idempotency"


class _Once:
    """Answers a request that was carried out as it was answered then; one without the header passes untouched."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = _key(scope) if scope["type"] == "http" and applies(scope["method"], scope["path"]) else None
        if key is None:
            return await self._app(scope, receive, send)
        caller = await callers.caller(Request(scope))
        body = await bodies.whole(receive)
        asked = b"\0".join([scope["method"].encode(), scope["path"].encode(), scope["query_string"], body])
        claimed = wiring.idempotency_store().claim(caller, key, asked)
        if isinstance(claimed, KeptAnswer):
            return await _repeated(claimed)(scope, receive, send)
        return await self._carry_out(claimed, scope, bodies.again(body, receive), send)

    async def _carry_out(self, claim: RequestClaim, scope: Scope, receive: Receive, send: Send) -> None:
        kept: dict[str, Any] = {}
        scope.setdefault("state", {})[_STATE] = kept
        said: list[Message] = []

        async def heard(message: Message) -> None:
            said.append(message)

        answer = None
        try:
            await self._app(scope, receive, heard)
            answer = _answer(said)
        finally:
            _conclude(claim, answer, **kept)
        # Only now: whoever hears it and asks again is to be told the same.
        for message in said:
            await send(message)


def install(app: FastAPI) -> None:
    app.add_middleware(_Once)


def applies(method: str, path: str) -> bool:
    """Whether a request of this method and path may name itself."""
    return method in WRITES and path.startswith("/v1/") and path not in ASKING


def keep(request: Request, *, seconds: float | None = None, shown_once: bool = False) -> None:
    """Say of what the route answers how long it is worth anything, or that it holds a secret, which is kept nowhere."""
    kept = request.scope.get("state", {}).get(_STATE)
    if kept is not None:
        kept |= {"seconds": seconds, "shown_once": shown_once}


def _key(scope: Scope) -> str | None:
    given = Headers(scope=scope).getlist(HEADER)
    if not given:
        return None
    found = _KEY.fullmatch(given[0].strip())
    if len(given) > 1 or found is None:
        msg = "Idempotency-Key must be one string of 1 to 255 visible ASCII characters"
        raise InvalidRequestError(msg)
    return found["key"]


def _repeated(answer: KeptAnswer) -> Response:
    if answer.body is None:
        msg = "this request was carried out; what it was answered is shown only once"
        raise ConflictError(msg)
    return Response(answer.body, answer.status, {REPLAYED: "true"}, answer.media_type)


def _answer(said: list[Message]) -> KeptAnswer:
    head, *parts = said
    return KeptAnswer(
        head["status"],
        Headers(raw=list(head["headers"])).get("content-type"),
        b"".join(part.get("body", b"") for part in parts),
    )


def _conclude(
    claim: RequestClaim, answer: KeptAnswer | None, *, seconds: float | None = None, shown_once: bool = False
) -> None:
    """Keep what had an effect; the rest may be tried again, at once or, where this fails, when the lease is over."""
    store = wiring.idempotency_store()
    try:
        if answer is None or not 200 <= answer.status < 300:
            store.release(claim)
        else:
            store.settle(claim, answer._replace(body=None) if shown_once else answer, seconds=seconds)
    except UnavailableError as error:
        logger.warning("what became of a request is not kept", exc_info=error)
