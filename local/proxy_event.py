"""What API Gateway's REST API (Lambda proxy integration, version 1) makes of a request, and of a function's answer.

https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote_to_bytes

from local import aws

if TYPE_CHECKING:
    from starlette.types import Scope

API_ID = "local"
STAGE = "local"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f]|[^\x00-\xff]")
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?")
# What the gateway itself says about a response's framing.
_FRAMING = {"connection", "content-length", "keep-alive", "transfer-encoding", "upgrade"}


class MalformedRequestError(ValueError):
    """The request line or the headers cannot be passed on."""


class MalformedResponseError(ValueError):
    """The function's answer is not of the shape that API Gateway takes."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request as its event tells it; header names are lower-case, in the order in which they came."""

    request_id: str
    trace_id: str
    method: str
    path: str
    query: Sequence[tuple[str, str]]
    headers: Sequence[tuple[str, str]]
    source_ip: str
    protocol: str
    resource: str
    parameters: Mapping[str, str]

    def header(self, name: str) -> str | None:
        """The last value of a header, as `headers` of an event has it."""
        return dict(self.headers).get(name)

    @property
    def method_arn(self) -> str:
        api = f"arn:aws:execute-api:{aws.REGION}:{aws.ACCOUNT_ID}:{API_ID}"
        return f"{api}/{STAGE}/{self.method}{self.path}"


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes


def read(
    scope: Scope, *, request_id: str, trace_id: str, resource: str, parameters: Mapping[str, str], port: int
) -> Request:
    """Take what the web server parsed; MalformedRequestError for what no event can hold."""
    path = scope["raw_path"].decode("ascii")
    _check_encoding(path)
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    if not _HOST.fullmatch(dict(headers).get("host", "localhost")):
        raise MalformedRequestError("the Host header is no host name")
    client = scope["client"][0] if scope["client"] else ""
    return Request(
        request_id=request_id,
        trace_id=trace_id,
        method=scope["method"],
        path=path,
        query=parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True),
        headers=_forwarded(headers, client, port, trace_id),
        source_ip=client,
        protocol=f"HTTP/{scope['http_version']}",
        resource=resource,
        parameters=parameters,
    )


def _check_encoding(path: str) -> None:
    if re.search(r"%(?![0-9A-Fa-f]{2})", path):
        raise MalformedRequestError("the path has a % without two hexadecimal digits")
    try:
        decoded = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise MalformedRequestError("the path is not UTF-8") from None
    if "\0" in decoded:
        raise MalformedRequestError("the path has a NUL")


def _forwarded(headers: list[tuple[str, str]], client: str, port: int, trace_id: str) -> list[tuple[str, str]]:
    """The headers that API Gateway sets are its own, whatever the client sent."""
    known = dict(headers)
    own = {
        "x-forwarded-for": ", ".join(filter(None, [known.get("x-forwarded-for"), client])),
        "x-forwarded-port": str(port),
        "x-forwarded-proto": "http",
        "x-amzn-trace-id": trace_id,
    }
    return [(name, value) for name, value in headers if name not in own] + list(own.items())


def event(request: Request, body: bytes, *, authorizer: Mapping[str, str] | None) -> dict[str, Any]:
    """The event of a proxy integration; a body that is not UTF-8 goes as base64."""
    text, is_base64 = _text(body)
    return {
        **_described(request),
        "requestContext": _context(request) | ({"authorizer": dict(authorizer)} if authorizer is not None else {}),
        "body": text,
        "isBase64Encoded": is_base64,
    }


def authorizer_event(request: Request) -> dict[str, Any]:
    """The event of a Lambda authorizer of type REQUEST; it sees no body."""
    return {
        "type": "REQUEST",
        "methodArn": request.method_arn,
        **_described(request),
        "requestContext": _context(request),
    }


def _described(request: Request) -> dict[str, Any]:
    proxied = request.resource.endswith("{proxy+}")
    return {
        "resource": request.resource,
        "path": request.path,
        "httpMethod": request.method,
        "headers": dict(request.headers),
        "multiValueHeaders": _grouped(request.headers),
        "queryStringParameters": dict(request.query) or None,
        "multiValueQueryStringParameters": _grouped(request.query) or None,
        "pathParameters": {"proxy": request.path.lstrip("/")} if proxied else dict(request.parameters) or None,
        "stageVariables": None,
    }


def _context(request: Request) -> dict[str, Any]:
    now = time.time()
    return {
        "accountId": aws.ACCOUNT_ID,
        "apiId": API_ID,
        "domainName": (request.header("host") or "localhost").partition(":")[0],
        "extendedRequestId": request.request_id,
        "httpMethod": request.method,
        "identity": {"sourceIp": request.source_ip, "userAgent": request.header("user-agent")},
        "path": request.path,
        "protocol": request.protocol,
        "requestId": request.request_id,
        "requestTime": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)),
        "requestTimeEpoch": int(now * 1000),
        "resourceId": API_ID,
        "resourcePath": request.resource,
        "stage": STAGE,
    }


def _grouped(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name, value in pairs:
        grouped.setdefault(name, []).append(value)
    return grouped


def _text(body: bytes) -> tuple[str | None, bool]:
    if not body:
        return None, False
    try:
        return body.decode(), False
    except UnicodeDecodeError:
        return base64.b64encode(body).decode(), True


def response(payload: bytes) -> Response:
    """What the function answered; MalformedResponseError says what API Gateway would not take."""
    answer = _object(payload)
    return Response(_status(answer.get("statusCode")), _headers(answer), _body(answer))


def head(prelude: bytes) -> tuple[int, list[tuple[str, str]]]:
    """Status and headers of a streamed response; MalformedResponseError as above."""
    answer = _object(prelude)
    return _status(answer.get("statusCode")), _headers(answer)


def _object(payload: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(payload)
    except ValueError:
        raise MalformedResponseError("it is not JSON") from None
    if not isinstance(answer, dict):
        raise MalformedResponseError("it is not an object")
    return answer


def _status(value: Any) -> int:
    try:
        status = int(value)
    except (TypeError, ValueError):
        raise MalformedResponseError(f"statusCode is {value!r}") from None
    if not 200 <= status <= 599:
        raise MalformedResponseError(f"statusCode is {status}")
    return status


def _headers(answer: dict[str, Any]) -> list[tuple[str, str]]:
    """One name in both objects: only the values of multiValueHeaders count."""
    single, multiple = answer.get("headers") or {}, answer.get("multiValueHeaders") or {}
    if not isinstance(single, dict) or not isinstance(multiple, dict):
        raise MalformedResponseError("its headers are not an object")
    merged = {name.lower(): [value] for name, value in single.items()}
    merged |= {name.lower(): values if isinstance(values, list) else [values] for name, values in multiple.items()}
    return [
        (_checked_name(name), _checked_value(value))
        for name, values in merged.items()
        if name not in _FRAMING
        for value in values
    ]


def _checked_name(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise MalformedResponseError(f"{name!r} is no header name")
    return name


def _checked_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float):
        raise MalformedResponseError(f"a header has the value {value!r}")
    text = str(value).strip()
    if _FORBIDDEN.search(text):
        raise MalformedResponseError("a header has a character that HTTP forbids")
    return text


def _body(answer: dict[str, Any]) -> bytes:
    body = answer.get("body")
    if body is None:
        return b""
    if not isinstance(body, str):
        raise MalformedResponseError("its body is not a string")
    if not answer.get("isBase64Encoded"):
        return body.encode("utf-8", errors="replace")
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error:
        raise MalformedResponseError("its body is not base64") from None
