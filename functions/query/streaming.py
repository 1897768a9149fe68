"""API Gateway (REST, v1) with response streaming → the HTTP API in api.py, each part sent on as the API sends it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.metrics import MetricUnit
from mangum.handlers import APIGateway
from mangum.handlers.utils import handle_multi_value_headers

from functions.query import answers
from functions.query.application import application
from functions.query.initialisation import initialise
from functions.query.runtime import ClientGoneError, Context, StreamedResponse
from functions.query.telemetry import logger, metrics
from rag import answering, conversing, wiring  # noqa: F401 (every event of this function needs them)

if TYPE_CHECKING:
    from rag.types import JSON

Message = MutableMapping[str, Any]

# How the body is framed is said by whoever sends it.
_FRAMING = {b"connection", b"content-length", b"transfer-encoding"}

# Of all routes the one that is streamed: the others are the function query's.
app = application()
app.include_router(answers.router)
loop = initialise(app)


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_REST, clear_state=True)
@metrics.log_metrics
def handler(event: Any, context: Context, response: StreamedResponse) -> None:
    metrics.add_metric("Requests", MetricUnit.Count, 1)
    wiring.until_the_end(context, margin_seconds=wiring.LAST_SECONDS, most_seconds=wiring.settings().request_seconds)
    request = APIGateway(
        event,
        context,  # type: ignore[arg-type]  # Mangum types the context with writable fields
        {"api_gateway_base_path": "/", "text_mime_types": [], "exclude_headers": []},
    )
    try:
        loop.run_until_complete(Exchange(request.body, response).run(app, request.scope))
    except ClientGoneError:
        logger.info("the client left")
        raise


class Exchange:
    """One request and its response, as ASGI has them."""

    def __init__(self, body: bytes, response: StreamedResponse) -> None:
        self._body: bytes | None = body
        self._response = response
        self._head: Message | None = None
        self._watched: int | None = None
        self._whole = False
        self._disconnected = asyncio.Event()

    async def run(self, application: Any, scope: Any) -> None:
        """Run the application; ClientGoneError when the client left before the response was whole."""
        try:
            await application(scope, self.receive, self.send)
        except Exception:
            if not self._whole:  # else it is one that was answered, and logged
                raise
        finally:
            self._unwatch()
        if self._whole:
            return
        if self._disconnected.is_set():
            raise ClientGoneError
        msg = "the application left its response incomplete"
        raise RuntimeError(msg)

    async def receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._disconnected.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Pass it on; what comes after the client has left is for nobody."""
        if message["type"] == "http.response.start":
            self._head = message  # an application that fails before there is a body may still answer with an error
            return
        if self._disconnected.is_set():
            return
        try:
            self._pass_on(message.get("body", b""), more=message.get("more_body", False))
        except ClientGoneError:
            self._disconnected.set()

    def _pass_on(self, body: bytes, *, more: bool) -> None:
        if not self._response.begun:
            assert self._head is not None  # noqa: S101 (ASGI's order)
            self._response.begin(prelude(self._head["status"], self._head["headers"]))
            self._watch(self._response.fileno())
        self._response.write(body)
        if not more:
            self._unwatch()
            self._response.end()
            self._whole = True
            self._disconnected.set()

    def _watch(self, descriptor: int) -> None:
        """Before the end the Runtime API says nothing, unless there is nobody to pass the response on to."""
        self._watched = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._disconnected.set)

    def _unwatch(self) -> None:
        if self._watched is not None:
            asyncio.get_running_loop().remove_reader(self._watched)
            self._watched = None


def prelude(status: int, headers: Iterable[tuple[bytes, bytes]]) -> JSON:
    """Return what API Gateway reads before the body.

    https://docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode-lambda.html
    """
    single, multiple = handle_multi_value_headers([[*pair] for pair in headers if pair[0].lower() not in _FRAMING])
    return {"statusCode": status, "headers": single, "multiValueHeaders": multiple}
