"""The OpenAPI document beyond what the routes say of themselves: who may ask, what can go wrong, what it looks like.

Everything here follows from the routes, so that a new one is described like the others.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi.routing import APIRoute, iter_route_contexts

from functions.query import callers, examples, idempotency, schemas

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastapi.dependencies.models import Dependant
    from starlette.routing import BaseRoute

JSON = dict[str, Any]

INTRODUCTION = """\
Send an API key in `x-api-key`, or it or an access token as `Authorization: Bearer`. Bodies are JSON in UTF-8. Errors
are `application/problem+json` (RFC 9457), whose `request_id` is the header `x-request-id`. A write that names itself by
`Idempotency-Key` has one effect, however often it is sent."""
_TAGS = {
    "query": "Asking",
    "search": "Asking",
    "health": "Health",
    "ready": "Health",
    "openai": "OpenAI's protocol",
    "mcp": "MCP",
}
_WHAT = {
    400: "Malformed",
    401: "No live credential",
    403: "The credential's role does not reach this far",
    404: "Absent, or somebody else's",
    409: "It exists and differs, or this very request is under way",
    413: "Larger than is taken",
    415: "Not JSON in UTF-8",
    422: "It does not fit; `errors` says what",
    429: "Too much at once, or the budget is used up",
    500: "The service failed",
    503: "A dependency is down",
    504: "Out of time",
}
_WAITING = {409, 429, 503}
_SCHEMES: JSON = {
    "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "An API key of `/v1/keys`."},
    "bearer": {"type": "http", "scheme": "bearer", "description": "An access token of a user, or an API key."},
}
_IDEMPOTENCY: JSON = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Names the request: sent again within a day, it does nothing and is answered as before.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "example": "6f1d3c1e-54b5-4b6e-9c63-0b9f2a1d7c55",
}
_ROLES = {callers.caller: "reader", callers.writer: "writer", callers.admin: "admin"}


def complete(described: JSON, routes: Sequence[BaseRoute]) -> JSON:
    """Add to FastAPI's document, in place, whatever follows from its routes; return it."""
    described["info"]["description"] = INTRODUCTION
    parts = described.setdefault("components", {})
    parts["securitySchemes"] = _SCHEMES
    parts["schemas"]["Problem"] = schemas.Problem.model_json_schema()
    parts["responses"] = {_name(status): _problem(status) for status in _WHAT}
    roles = dict(_roles(routes))
    for path, operations in described["paths"].items():
        for verb, operation in operations.items():
            _complete(operation, verb.upper(), path, roles.get((verb.upper(), path)))
    for operation in (each for operations in described["paths"].values() for each in operations.values()):
        examples.add(operation, parts["schemas"])
    described["paths"] = dict(sorted(described["paths"].items()))
    used = {tag for operations in described["paths"].values() for each in operations.values() for tag in each["tags"]}
    described["tags"] = [{"name": tag} for tag in sorted(used)]
    return described


def _complete(operation: JSON, method: str, path: str, role: str | None) -> None:
    operation["tags"] = [_tag(path)]
    operation["security"] = [{name: []} for name in _SCHEMES] if role else []
    if role:
        operation["description"] = f"{operation.get('description', '')}\n\nNeeds the role {role}.".strip()
    if idempotency.applies(method, path):
        operation.setdefault("parameters", []).append(_IDEMPOTENCY)
    for status, answer in operation["responses"].items():
        if status.isdigit():
            answer["description"] = HTTPStatus(int(status)).phrase
    del operation["responses"]["default"]
    for status in _errors(operation, method, path, role):
        operation["responses"].setdefault(str(status), {"$ref": f"#/components/responses/{_name(status)}"})


def _errors(operation: JSON, method: str, path: str, role: str | None) -> Iterator[int]:
    given = [each for each in operation.get("parameters", []) if each["in"] != "header"]
    if role is None:
        return
    if given or "requestBody" in operation or idempotency.applies(method, path):
        yield 400
    yield from (401, 403)
    if "{" in path or "requestBody" in operation:
        yield 404
    if idempotency.applies(method, path):
        yield 409
    if "requestBody" in operation:
        yield from (413, 415)
    if given or "requestBody" in operation or idempotency.applies(method, path):
        yield 422
    yield from (429, 500, 503, 504)


def _name(status: int) -> str:
    return HTTPStatus(status).phrase.title().replace(" ", "")


def _problem(status: int) -> JSON:
    example = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": examples.DETAILS[status],
        "request_id": examples.REQUEST_ID,
    }
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        example["errors"] = [{"path": "body.top_k", "message": "Input should be less than or equal to 100"}]
    headers = {"x-request-id": {"schema": {"type": "string"}}}
    if status in _WAITING:
        headers["Retry-After"] = {"schema": {"type": "string"}}
    content = {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}
    return {"description": _WHAT[status], "headers": headers, "content": {"application/problem+json": content}}


def _tag(path: str) -> str:
    segments = [part for part in path.split("/") if part and part != "v1"]
    return _TAGS.get(segments[0], segments[0].capitalize())


def _roles(routes: Sequence[BaseRoute]) -> Iterator[tuple[tuple[str, str], str]]:
    """The role that each operation asks for, by method and path; none for what is public."""
    for context in iter_route_contexts(routes):
        route = context.original_route
        if not isinstance(route, APIRoute):
            continue
        asked = {_ROLES[call] for call in _calls(route.dependant) if call in _ROLES}
        strictest = max(asked, key=list(_ROLES.values()).index, default=None)
        for method in context.methods or () if strictest else ():
            yield (method, str(context.path_format)), str(strictest)


def _calls(dependant: Dependant) -> Iterator[Any]:
    for each in dependant.dependencies:
        yield each.call
        yield from _calls(each)
