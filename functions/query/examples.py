"""An example of each body and answer, made from its schema and from what a field of that name holds."""

from __future__ import annotations

from typing import Any

JSON = dict[str, Any]

REQUEST_ID = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"
_ID = "0d9c8f5e-2b1a-5c3d-8e4f-1a2b3c4d5e6f"
_KEY = "aB3dE5gH"
_TIME = "2026-11-20T09:00:00Z"
_QUESTION = "How long do refunds take?"
_ANSWER = "Refunds are paid within nine working days."
DETAILS = {
    400: "the body is not JSON: Expecting value at character 0",
    401: "send an API key in the header x-api-key",
    403: "this needs a key with the role writer",
    404: f"there is no document {_ID}",
    409: "the collection 'notes' exists, in german",
    413: "the body is larger than 1,048,576 bytes",
    415: "bodies are JSON: send Content-Type: application/json",
    422: "body.top_k: Input should be less than or equal to 100",
    429: "the tenant's budget of 2,000,000 tokens for today has no room for this; the next day begins at midnight UTC",
    500: "Something went wrong here; the request id helps to find it.",
    503: "A dependency did not answer; try again.",
    504: "The time for this request is used up.",
}
# What a string of this name holds.
_STRINGS = {
    "allowed_principals": "group:finance",
    "answer": f"{_ANSWER} [1]",
    "api_key": f"rag_{_KEY}.…",
    "collection": "default",
    "collections": "default",
    "content": f"{_ANSWER} Shipping takes three days.",
    "created_by": f"key:{_KEY}",
    "cursor": "WyJkZWZhdWx0IiwgInBvbGljaWVzL3JlZnVuZHMubWQiXQ==",
    "groups": "finance",
    "heading": "Refund policy",
    "id": _KEY,
    "key": "policies/refunds.md",
    "key_id": _KEY,
    "language": "english",
    "media_type": "text/markdown",
    "model": "gpt-4.1-mini",
    "name": "notes",
    "prefix": "policies/",
    "query": _QUESTION,
    "question": _QUESTION,
    "quote": _ANSWER,
    "replaced_by": "Hg5Ed3Ba",
    "request_id": REQUEST_ID,
    "requested_by": f"key:{_KEY}",
    "principal": f"key:{_KEY}",
    "title": "Refund policy",
    "version": "0.1.0",
    "version_id": "3sL4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY+MTRCxf3vjVBH40Nr8X8gdRQBpUMLUo",
}
_FORMATS = {
    "uuid": _ID,
    "date-time": _TIME,
    "date": _TIME[:10],
    "uri": "https://example.org/",
    "email": "a@example.org",
}
_BY_TYPE: JSON = {"boolean": False, "null": None}


def add(operation: JSON, schemas: JSON) -> None:
    """Add to an operation what its body, its parameters and its answer may look like, where it says nothing itself."""
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        if media_type == "application/json":
            content.setdefault("example", of(content["schema"], schemas, whole=False))
    for parameter in operation.get("parameters", []):
        parameter.setdefault("example", of(parameter["schema"], schemas, name=parameter["name"]))
    for answer in operation["responses"].values():
        content = answer.get("content", {}).get("application/json", {})
        if "schema" in content:
            content.setdefault("example", of(content["schema"], schemas))


def of(schema: JSON, schemas: JSON, *, name: str = "", whole: bool = True) -> Any:
    """Return a value of this schema; `whole`: with what may be left out."""
    if "$ref" in schema:
        return of(schemas[schema["$ref"].rpartition("/")[2]], schemas, name=name, whole=whole)
    for said in ("example", "const", "default"):
        if schema.get(said) is not None:
            return schema[said]
    for listed in ("examples", "enum"):
        if schema.get(listed):
            return schema[listed][0]
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return of(next((one for one in options if one.get("type") != "null"), options[0]), schemas, name=name)
    return _of_type(schema, schemas, name, whole=whole)


def _of_type(schema: JSON, schemas: JSON, name: str, *, whole: bool) -> Any:
    match schema.get("type"):
        case "object":
            fields = schema.get("properties", {})
            wanted = fields if whole else schema.get("required", [])
            return {field: of(fields[field], schemas, name=field, whole=whole) for field in wanted}
        case "array":
            return [of(schema.get("items", {}), schemas, name=name, whole=whole)]
        case "string":
            return _FORMATS.get(schema.get("format", ""), _STRINGS.get(name, "text"))
        case "integer" | "number":
            return schema.get("minimum", 1)
        case kind:
            return _BY_TYPE.get(str(kind), {})
