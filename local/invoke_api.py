"""Lambda's Invoke API for administrators, on a port of its own: `boto3.client("lambda", endpoint_url=admin_url)`.

https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import unquote

from local.asgi import BodyTooLargeError, DisconnectedError, read_body, reply
from local.authorizer import Invocable
from local.lambda_runtime import Invocation, PayloadTooLargeError, ThrottledError
from local.runtime_api import MAX_PAYLOAD_BYTES

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

_PATH = re.compile(r"/2015-03-31/functions/(?P<name>[^/]+)/invocations")
_CREDENTIAL = re.compile(r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/")


class ApiError(Exception):
    """An error of the Lambda API, by its name there."""

    def __init__(self, status: int, name: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.name = name


class InvokeApi:
    """An ASGI application; the token comes as `Authorization: Bearer`, or as the access key id of a signed request."""

    def __init__(self, functions: Mapping[str, Invocable], *, token: str) -> None:
        self._functions = functions
        self._token = token
        self._events: set[asyncio.Task[Invocation]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._serve(scope, receive, send)
        except DisconnectedError:
            return
        except ApiError as error:
            body = json.dumps({"Type": "User", "Message": str(error), "message": str(error)}).encode()
            headers = [("Content-Type", "application/json"), ("x-amzn-ErrorType", error.name)]
            await reply(send, error.status, body, headers)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if not self._admits(headers.get("authorization", "")):
            raise ApiError(403, "UnrecognizedClientException", "The security token included in the request is invalid.")
        function = self._function(scope)
        payload = await _payload(receive)
        kind = headers.get("x-amz-invocation-type", "RequestResponse")
        if kind == "DryRun":
            return await reply(send, 204)
        if kind == "Event":
            self._later(function, payload)
            return await reply(send, 202)
        return await _answer(send, await _invoke(function, payload))

    def _admits(self, authorization: str) -> bool:
        signed = _CREDENTIAL.match(authorization)
        given = signed["key"] if signed else authorization.removeprefix("Bearer ")
        return hmac.compare_digest(given.encode(), self._token.encode())

    def _function(self, scope: Scope) -> Invocable:
        path = _PATH.fullmatch(scope["path"])
        if scope["method"] != "POST" or path is None:
            raise ApiError(404, "UnknownOperationException", "This endpoint knows Invoke only.")
        # A name, or an ARN that ends with it.
        name = unquote(path["name"]).rpartition(":")[2]
        if name not in self._functions:
            raise ApiError(404, "ResourceNotFoundException", f"Function not found: {name}")
        return self._functions[name]

    def _later(self, function: Invocable, payload: bytes) -> None:
        task = asyncio.create_task(function.invoke(payload))
        self._events.add(task)
        task.add_done_callback(self._events.discard)


async def _payload(receive: Receive) -> bytes:
    try:
        payload = await read_body(receive, limit_bytes=MAX_PAYLOAD_BYTES) or b"{}"
        json.loads(payload)
    except BodyTooLargeError:
        raise ApiError(413, "RequestTooLargeException", f"At most {MAX_PAYLOAD_BYTES} bytes are allowed.") from None
    except ValueError:
        raise ApiError(400, "InvalidRequestContentException", "Could not parse request body into json") from None
    return payload


async def _invoke(function: Invocable, payload: bytes) -> Invocation:
    try:
        return await function.invoke(payload)
    except ThrottledError as error:
        raise ApiError(429, "TooManyRequestsException", str(error)) from None
    except PayloadTooLargeError as error:
        raise ApiError(413, "RequestTooLargeException", str(error)) from None


async def _answer(send: Send, invocation: Invocation) -> None:
    headers = [
        ("Content-Type", "application/json"),
        ("x-amzn-RequestId", invocation.request_id),
        ("X-Amz-Executed-Version", "$LATEST"),
    ]
    if invocation.function_error:
        headers.append(("X-Amz-Function-Error", invocation.function_error))
    await reply(send, 200, invocation.payload, headers)
