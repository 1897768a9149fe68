"""API Gateway on this machine: a REST API that authorizes, invokes a route's function, and answers in its name."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

from local import proxy_event
from local.asgi import BodyTooLargeError, DisconnectedError, read_body, reply
from local.authorizer import Authorizer, AuthorizerFailedError, ForbiddenError, Invocable, UnauthorizedError
from local.lambda_runtime import TIMED_OUT, Invocation, PayloadTooLargeError, ThrottledError, new_trace_id
from local.plan import Route
from local.proxy_event import MalformedRequestError, MalformedResponseError, Request, Response
from local.streamed_answer import StreamedAnswer
from rag.answer_headers import ON_EVERY_ANSWER

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

MAX_BODY_BYTES = 10 * 1024 * 1024

_log = logging.getLogger(__name__)


class Refused(Exception):  # noqa: N818  (an answer, not a fault)
    """The gateway answers by itself."""

    def __init__(self, status: int, detail: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers


class Gateway:
    """An ASGI application: a request is its route's, whose function stands in `functions` by name.

    A route that is `authorized` asks the authorizer first; none reaches Lambda's own API.
    """

    def __init__(
        self,
        functions: Mapping[str, Invocable],
        routes: Iterable[Route],
        authorizer: Authorizer,
        *,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._functions = functions
        self._routes = sorted(routes, key=lambda route: route.weight)
        self._authorizer = authorizer
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = str(uuid.uuid4())
        streamed = StreamedAnswer(receive, send, _own_headers(request_id, ()))
        try:
            answer = await self._answer(scope, receive, request_id, streamed)
        except DisconnectedError:
            return
        except Refused as refused:
            answer = problem(refused, request_id)
        except Exception:  # noqa: BLE001  (whatever it is, the caller gets an answer with an id)
            _log.exception("request %s", request_id)
            answer = problem(Refused(500, "the gateway failed; its log says why"), request_id)
        if answer is not None:
            await _send(send, answer, request_id)

    async def _answer(
        self, scope: Scope, receive: Receive, request_id: str, streamed: StreamedAnswer
    ) -> Response | None:
        """The answer, or None where it was streamed, if only in part."""
        route, request = self._read(scope, request_id)
        asked = route.authorized and not _is_preflight(request)
        caller = await _caller(self._authorizer, request) if asked else None
        body = await self._body(scope, receive)
        event = json.dumps(proxy_event.event(request, body, authorizer=caller)).encode()
        if not route.streams:
            return _integrated(await self._invoke(route, event, request))
        await self._stream(route, event, request, streamed)
        return None

    async def _stream(self, route: Route, event: bytes, request: Request, streamed: StreamedAnswer) -> None:
        """Pass on what comes; what ends otherwise than whole is cut off, so that the client sees that it is."""
        watching = asyncio.create_task(streamed.watch())
        try:
            invocation = await self._invoke(route, event, request, streamed)
        except Refused:
            if not streamed.started:
                raise
            return
        finally:
            left = streamed.gone.is_set()
            streamed.gone.set()  # whatever still comes is for nobody
            watching.cancel()
        if left:
            return
        if not streamed.started:
            raise _unanswered(invocation, streamed.malformed or "it is not streamed")
        if invocation.function_error is None:
            await streamed.end()

    def _read(self, scope: Scope, request_id: str) -> tuple[Route, Request]:
        # The decoded path, because it is what the function will route by.
        route, parameters = self._route(scope["method"], scope["path"])
        try:
            return route, proxy_event.read(
                scope,
                request_id=request_id,
                trace_id=new_trace_id(),
                resource=route.path,
                parameters=parameters,
                port=scope["server"][1],
            )
        except MalformedRequestError as error:
            raise Refused(400, str(error)) from None

    def _route(self, method: str, path: str) -> tuple[Route, Mapping[str, str]]:
        for route in self._routes:
            parameters = route.parameters(method, path)
            if parameters is not None:
                return route, parameters
        raise Refused(404, "there is nothing here")

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        too_large = Refused(413, f"the body is larger than {self._max_body_bytes} bytes", (("Connection", "close"),))
        if announced.isdigit() and int(announced) > self._max_body_bytes:
            raise too_large
        try:
            return await read_body(receive, limit_bytes=self._max_body_bytes)
        except BodyTooLargeError:
            raise too_large from None

    async def _invoke(
        self,
        route: Route,
        event: bytes,
        request: Request,
        recipient: StreamedAnswer | None = None,
    ) -> Invocation:
        streamed = {} if recipient is None else {"recipient": recipient}
        try:
            async with asyncio.timeout(route.timeout_seconds):
                return await self._functions[route.function].invoke(event, trace_id=request.trace_id, **streamed)
        except TimeoutError:
            raise Refused(504, "the request took longer than a request may take") from None
        except ThrottledError:
            raise Refused(503, "too many requests at once", (("Retry-After", "1"),)) from None
        except PayloadTooLargeError:
            raise Refused(413, "the request is larger than a function takes (6 MB)") from None


def _is_preflight(request: Request) -> bool:
    """A browser asks it without credentials; on AWS an integration of its own answers, here the function does."""
    return (
        request.method == "OPTIONS"
        and request.header("origin") is not None
        and request.header("access-control-request-method") is not None
    )


async def _caller(authorizer: Authorizer, request: Request) -> Mapping[str, str]:
    try:
        return await authorizer.context(request)
    except UnauthorizedError as error:
        raise Refused(401, str(error), (("WWW-Authenticate", 'Bearer realm="rag"'),)) from None
    except ForbiddenError as error:
        raise Refused(403, str(error)) from None
    except ThrottledError:
        raise Refused(503, "too many requests at once", (("Retry-After", "1"),)) from None
    except AuthorizerFailedError as error:
        _log.error("the authorizer failed: %s", error)
        raise Refused(503, "credentials cannot be checked now", (("Retry-After", "1"),)) from None


def _integrated(invocation: Invocation) -> Response:
    if invocation.function_error:
        raise _unanswered(invocation, "")
    try:
        return proxy_event.response(invocation.payload)
    except MalformedResponseError as error:
        raise _unanswered(invocation, str(error)) from None


def _unanswered(invocation: Invocation, malformed: str) -> Refused:
    if invocation.error_type == TIMED_OUT:
        return Refused(504, "the request took longer than a request may take")
    if invocation.function_error:
        return Refused(502, "the function failed; its log says why")
    _log.error("malformed Lambda proxy response: %s", malformed)
    return Refused(502, "the function's answer cannot be passed on")


def problem(refused: Refused, request_id: str) -> Response:
    """RFC 9457; `about:blank` says that the status is all there is to know about the type."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(refused.status).phrase,
        "status": refused.status,
        "detail": refused.detail,
        "request_id": request_id,
    }
    headers = (("content-type", "application/problem+json"), *ON_EVERY_ANSWER.items(), *refused.headers)
    return Response(refused.status, headers, json.dumps(body).encode())


async def _send(send: Send, response: Response, request_id: str) -> None:
    body = b"" if response.status in (204, 304) else response.body
    await reply(send, response.status, body, [*response.headers, *_own_headers(request_id, response.headers)])


def _own_headers(request_id: str, given: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    own = [("x-amzn-RequestId", request_id)]
    if not any(name == "x-request-id" for name, _ in given):
        own.append(("x-request-id", request_id))
    return own
