"""Bodies before anybody looks into them: one JSON text in UTF-8, of bounded size, that every reader understands alike.

RFC 8259; where that leaves to the reader what to do (names that repeat, NaN), what comes of it here is a refusal.
"""

from __future__ import annotations

import json
import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NoReturn

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from rag.errors import InvalidRequestError, TooLargeError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Several times what the largest request that is allowed needs; a document goes to the bucket, not through here.
MOST_BYTES = 1024 * 1024
# Of an answer that is not streamed: Lambda passes on six million, with every quotation mark in it escaped
# (its developer guide, "Lambda quotas").
MOST_ANSWER_BYTES = 4_500_000
_CARRYING = {"POST", "PUT", "PATCH"}


class _Bodies:
    """Refuses what is no body of this API before it costs anything."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = await whole(receive)
        if body and scope["method"] in _CARRYING:
            _check_type(Headers(scope=scope))
            _check_json(body)
        fitting = _Fitting(send)
        await self._app(scope, again(body, receive), fitting.send)
        if fitting.refused_bytes:
            msg = (
                f"the answer would have {fitting.refused_bytes:,} bytes, and {MOST_ANSWER_BYTES:,} are passed on: "
                "ask for fewer at once"
            )
            raise InvalidRequestError(msg)


def install(app: FastAPI) -> None:
    app.add_middleware(_Bodies)


async def whole(receive: Receive) -> bytes:
    """Return the request's body; TooLargeError as soon as it is longer than a body may be."""
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MOST_BYTES:
            msg = f"the body is larger than {MOST_BYTES:,} bytes"
            raise TooLargeError(msg)
    return body


class _Fitting:
    """Begins to answer when the answer is known to fit; a stream is passed on as it comes."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._head: Message | None = None
        self.refused_bytes = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._head = message
            return
        size = len(message.get("body", b""))
        if self._head is not None:
            if size > MOST_ANSWER_BYTES and not message.get("more_body", False):
                self.refused_bytes = size
                return
            head, self._head = self._head, None
            await self._send(head)
        await self._send(message)


def again(body: bytes, receive: Receive) -> Receive:
    """Return what gives the body once more, and then whatever else the client does."""
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def told() -> Message:
        return left.pop() if left else await receive()

    return told


def _check_type(headers: Headers) -> None:
    media_type, _, parameters = headers.get("content-type", "").lower().partition(";")
    media_type = media_type.strip()
    charset = parameters.replace('"', "").replace(" ", "").partition("charset=")[2].partition(";")[0]
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "bodies are JSON: send Content-Type: application/json")
    if charset not in {"", "utf-8", "utf8"}:
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "bodies are JSON in UTF-8")
    if headers.get("content-encoding", "identity").lower() != "identity":
        # RFC 9110, section 15.5.16: so the client learns which encoding would do.
        accepted = {"accept-encoding": "identity"}
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "bodies are sent as they are, not compressed", accepted)


def _check_json(body: bytes) -> None:
    try:
        json.loads(body.decode(), object_pairs_hook=_distinct, parse_float=_finite, parse_constant=_no_number)
    except UnicodeDecodeError:
        raise InvalidRequestError("the body is not UTF-8") from None
    except RecursionError:
        raise InvalidRequestError("the body is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise InvalidRequestError(f"the body is not JSON: {error.msg} at character {error.pos}") from None
    except ValueError:
        # An integer of more digits than Python reads.
        raise InvalidRequestError("the body has a number that is too large") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidRequestError("the body has an object with a name that stands in it twice")
    return found


def _finite(digits: str) -> float:
    if math.isinf(number := float(digits)):
        raise InvalidRequestError("the body has a number that is too large")
    return number


def _no_number(constant: str) -> NoReturn:
    raise InvalidRequestError(f"the body has {constant}, which is no JSON")
