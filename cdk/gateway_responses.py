"""What the API answers in its own name: RFC 9457 problems with the request's id, as the functions and the laptop do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from aws_cdk import aws_apigateway as apigateway

from rag.answer_headers import ON_EVERY_ANSWER

_KIND = apigateway.ResponseType
# Kind → status and what a person is told.
_ANSWERS = {
    _KIND.UNAUTHORIZED: (401, "send an API key in x-api-key or in Authorization: Bearer"),
    _KIND.EXPIRED_TOKEN: (401, "this credential is expired"),
    _KIND.ACCESS_DENIED: (403, "this credential may not do that"),
    _KIND.INVALID_API_KEY: (403, "this credential may not do that"),
    _KIND.INVALID_SIGNATURE: (403, "this credential may not do that"),
    _KIND.WAF_FILTERED: (403, "the firewall refuses this request"),
    # Said of every route that there is not.
    _KIND.MISSING_AUTHENTICATION_TOKEN: (404, "there is no such route"),
    _KIND.RESOURCE_NOT_FOUND: (404, "there is no such route"),
    _KIND.BAD_REQUEST_BODY: (400, "the body is not what this route takes"),
    _KIND.BAD_REQUEST_PARAMETERS: (400, "a parameter is not what this route takes"),
    _KIND.UNSUPPORTED_MEDIA_TYPE: (415, "bodies are JSON"),
    _KIND.REQUEST_TOO_LARGE: (413, "the body is larger than 10 MB"),
    _KIND.THROTTLED: (429, "too many requests at once"),
    _KIND.QUOTA_EXCEEDED: (429, "the quota is used up"),
    _KIND.AUTHORIZER_FAILURE: (503, "credentials cannot be checked now"),
    _KIND.AUTHORIZER_CONFIGURATION_ERROR: (503, "credentials cannot be checked now"),
    _KIND.API_CONFIGURATION_ERROR: (500, "the gateway failed"),
    _KIND.INTEGRATION_FAILURE: (502, "the function failed"),
    _KIND.INTEGRATION_TIMEOUT: (504, "the request took longer than a request may take"),
}
_HEADERS = {
    401: {"WWW-Authenticate": """'Bearer realm="rag"'"""},
    429: {"Retry-After": "'1'"},
    503: {"Retry-After": "'1'"},
}


def install(api: apigateway.RestApi, *, origin: str | None) -> None:
    """Replace every answer of the gateway's own; `origin` is the only web page that may read them."""
    for kind, (status, detail) in _ANSWERS.items():
        body = _problem(HTTPStatus(status).phrase, detail) | {"status": status}
        _add(api, kind, body, _HEADERS.get(status, {}), origin, status=str(status))
    # Of the rest only the class is known before it happens, and its status is the gateway's to choose.
    for kind, title in ((_KIND.DEFAULT_4_XX, "Request refused"), (_KIND.DEFAULT_5_XX, "Gateway failed")):
        _add(api, kind, _problem(title, "$context.error.responseType"), {}, origin, status=None)


def quoted(headers: Mapping[str, str]) -> dict[str, str]:
    """Values as the gateway's mappings have literals: all between the first apostrophe and the last."""
    return {name: f"'{value}'" for name, value in headers.items()}


def _problem(title: str, detail: str) -> dict[str, str | int]:
    return {"type": "about:blank", "title": title, "detail": detail, "request_id": "$context.requestId"}


def _add(
    api: apigateway.RestApi,
    kind: apigateway.ResponseType,
    body: dict[str, str | int],
    headers: dict[str, str],
    origin: str | None,
    *,
    status: str | None,
) -> None:
    every = {
        "Content-Type": "'application/problem+json'",
        "x-request-id": "context.requestId",
        **quoted(ON_EVERY_ANSWER),
    }
    allowed = {"Access-Control-Allow-Origin": f"'{origin}'"} if origin else {}
    api.add_gateway_response(
        "".join(part.capitalize() for part in kind.response_type.split("_")),
        type=kind,
        status_code=status,
        # The template is chosen by this type, and the header then says what it really is.
        templates={"application/json": json.dumps(body)},
        response_headers=every | headers | allowed,
    )
