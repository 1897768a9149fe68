"""Lambda's runtime loop, with responses that are streamed, which AWS's own for Python holds back until they are whole.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html#runtimes-custom-response-streaming
"""

from __future__ import annotations

import base64
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPMessage, HTTPResponse
from typing import Any, NoReturn

JSON = dict[str, Any]

_RUNTIME = "/2018-06-01/runtime"
_ERROR_TYPE = "Lambda-Runtime-Function-Error-Type"
_ERROR_BODY = "Lambda-Runtime-Function-Error-Body"
# Where an event has it, AWS's own clients say it again in what they report of the event.
_INVOCATION = "Lambda-Runtime-Invocation-Id"
_PRELUDE_END = bytes(8)
# What a trailer has room for.
_LONGEST_MESSAGE = 1_000


class ClientGoneError(Exception):
    """Nobody reads the response any more."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a handler is told beside its event, by the names that Lambda's own context has for it."""

    aws_request_id: str
    invoked_function_arn: str
    deadline_ms: int
    function_name: str
    function_version: str
    memory_limit_in_mb: str
    log_group_name: str
    log_stream_name: str

    @classmethod
    def of(cls, headers: HTTPMessage, environment: Mapping[str, str]) -> Context:
        return cls(
            aws_request_id=headers["Lambda-Runtime-Aws-Request-Id"],
            invoked_function_arn=headers.get("Lambda-Runtime-Invoked-Function-Arn", ""),
            deadline_ms=int(headers["Lambda-Runtime-Deadline-Ms"]),
            function_name=environment.get("AWS_LAMBDA_FUNCTION_NAME", ""),
            function_version=environment.get("AWS_LAMBDA_FUNCTION_VERSION", ""),
            memory_limit_in_mb=environment.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", ""),
            log_group_name=environment.get("AWS_LAMBDA_LOG_GROUP_NAME", ""),
            log_stream_name=environment.get("AWS_LAMBDA_LOG_STREAM_NAME", ""),
        )

    def get_remaining_time_in_millis(self) -> int:
        return max(self.deadline_ms - int(time.time() * 1000), 0)


class StreamedResponse:
    """The response to one event: a prelude with status and headers, then the body as it is made.

    `write` and `end` raise ClientGoneError when nobody reads it any more.
    """

    def __init__(self, address: str, request_id: str, invocation: str | None = None) -> None:
        self._address = address
        self._place = f"{_RUNTIME}/invocation/{request_id}"
        self._repeated = {_INVOCATION: invocation} if invocation else {}
        self._connection: HTTPConnection | None = None
        self._over = False

    @property
    def begun(self) -> bool:
        return self._connection is not None

    def fileno(self) -> int:
        """The descriptor that becomes readable when the client is gone."""
        assert self._connection is not None  # noqa: S101 (it has begun)
        return int(self._connection.sock.fileno())

    def begin(self, prelude: JSON) -> None:
        """Send what comes before the body."""
        connection = self._connection = HTTPConnection(self._address)
        connection.putrequest("POST", f"{self._place}/response", skip_accept_encoding=True)
        headers = {
            "Content-Type": "application/vnd.awslambda.http-integration-response",
            "Lambda-Runtime-Function-Response-Mode": "streaming",
            "Transfer-Encoding": "chunked",
            "Trailer": f"{_ERROR_TYPE}, {_ERROR_BODY}",
            **self._repeated,
        }
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        self.write(json.dumps(prelude).encode() + _PRELUDE_END)

    def write(self, data: bytes) -> None:
        if data:  # a chunk without data is the end
            self._send(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        self._finish("")

    def fail(self, error: Exception) -> None:
        """Say why there is no response, or no more of it; nothing where it is whole already."""
        if self._connection is None:
            _post(self._address, f"{self._place}/error", error, _type(error), self._repeated)
        elif not self._over:
            told = json.dumps({"errorType": _type(error), "errorMessage": str(error)[:_LONGEST_MESSAGE]}).encode()
            trailers = {_ERROR_TYPE: _type(error), _ERROR_BODY: base64.b64encode(told).decode()}
            with suppress(ClientGoneError):
                self._finish("".join(f"{name}: {value}\r\n" for name, value in trailers.items()))

    def abandon(self) -> None:
        """Break off: there is nobody to end it for."""
        self._over = True
        if self._connection is not None:
            self._connection.close()

    def _finish(self, trailers: str) -> None:
        assert self._connection is not None  # noqa: S101 (it has begun)
        self._send(f"0\r\n{trailers}\r\n".encode())
        self._over = True
        try:
            accepted = self._connection.getresponse().status
        except (OSError, HTTPException):
            raise ClientGoneError from None
        finally:
            self._connection.close()
        if accepted >= 300:
            raise ClientGoneError

    def _send(self, data: bytes) -> None:
        assert self._connection is not None  # noqa: S101 (it has begun)
        try:
            self._connection.send(data)
        except OSError:
            raise ClientGoneError from None


Handler = Callable[[JSON, Context, StreamedResponse], None]


def run(load: Callable[[], Handler]) -> NoReturn:
    """Load the handler and hand it one event after the other; one that cannot be loaded is an error of the init."""
    address = os.environ["AWS_LAMBDA_RUNTIME_API"]
    try:
        handler = load()
    except Exception as error:  # noqa: BLE001 (whatever it is, Lambda is told)
        _fail(address, "init", error, _type(error), code=1)
    if os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start":
        _snapshot(address)
    while True:
        _serve_one(address, handler)


def _serve_one(address: str, handler: Handler) -> None:
    told, payload = _get(address, f"{_RUNTIME}/invocation/next")
    context = Context.of(told, os.environ)
    # Where X-Ray's clients look for it.
    os.environ["_X_AMZN_TRACE_ID"] = told.get("Lambda-Runtime-Trace-Id", "")
    response = StreamedResponse(address, context.aws_request_id, told.get(_INVOCATION))
    try:
        handler(json.loads(payload), context, response)
    except ClientGoneError:
        response.abandon()
    except Exception as error:  # noqa: BLE001 (whatever it is, Lambda is told)
        _log_of_event(error, context.aws_request_id)
        response.fail(error)


def _snapshot(address: str) -> None:
    """Do what libraries asked for before the snapshot, be stored, and do what they asked for afterwards."""
    try:
        import snapshot_restore_py as hooks  # type: ignore[import-untyped]  # noqa: PLC0415 (of Lambda's own runtime)
    except ImportError:
        _get(address, f"{_RUNTIME}/restore/next")
        return
    try:
        for function, positional, named in reversed(hooks.get_before_snapshot()):
            function(*positional, **named)
        _get(address, f"{_RUNTIME}/restore/next")
    except Exception as error:  # noqa: BLE001 (whatever it is, Lambda is told)
        _fail(address, "init", error, "Runtime.BeforeSnapshotError", code=64)
    try:
        for function, positional, named in hooks.get_after_restore():
            function(*positional, **named)
    except Exception as error:  # noqa: BLE001 (whatever it is, Lambda is told)
        _fail(address, "restore", error, "Runtime.AfterRestoreError", code=65)


def _fail(address: str, phase: str, error: Exception, error_type: str, *, code: int) -> NoReturn:
    _log(error, "")
    _post(address, f"{_RUNTIME}/{phase}/error", error, error_type)
    sys.exit(code)


def _type(error: Exception) -> str:
    """As AWS's runtime names it."""
    return "Runtime.ImportModuleError" if isinstance(error, ImportError) else type(error).__name__


def _described(error: Exception) -> JSON:
    trace = traceback.format_list(traceback.extract_tb(error.__traceback__))
    return {"errorType": _type(error), "errorMessage": str(error), "stackTrace": trace}


def _log(error: Exception, request_id: str) -> None:
    line = {"level": "ERROR", "function_request_id": request_id, **_described(error)}
    print(json.dumps(line), flush=True)  # noqa: T201 (standard output is the log)


def _log_of_event(error: Exception, request_id: str) -> None:
    """As the functions' own log tells it: not what the error says, which may be of a tenant's."""
    from rag.telemetry import described  # noqa: PLC0415 (the handler has it; before that, nothing but Python is here)

    line = {"level": "ERROR", "function_request_id": request_id, "exception": described(error)}
    print(json.dumps(line), flush=True)  # noqa: T201 (standard output is the log)


def _get(address: str, path: str) -> tuple[HTTPMessage, bytes]:
    return _call(address, "GET", path)


def _post(address: str, path: str, error: Exception, error_type: str, more: Mapping[str, str] | None = None) -> None:
    _call(address, "POST", path, json.dumps(_described(error)).encode(), {_ERROR_TYPE: error_type, **(more or {})})


def _call(
    address: str, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[HTTPMessage, bytes]:
    """A connection for each: one that was kept may have been closed while an answer was streamed."""
    connection = HTTPConnection(address)
    try:
        connection.request(method, path, body, headers or {})
        return _accepted(connection.getresponse(), path)
    finally:
        connection.close()


def _accepted(response: HTTPResponse, path: str) -> tuple[HTTPMessage, bytes]:
    body = response.read()
    if response.status >= 300:
        msg = f"the Runtime API answered {path} with {response.status}"
        raise RuntimeError(msg)
    return response.headers, body
