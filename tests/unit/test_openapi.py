"""The API's description is whole, is true to itself, and is the one that is committed."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest

from functions.query import idempotency
from functions.query.api import app
from functions.table import PUBLIC
from tests import openapi

DOCUMENT: dict[str, Any] = app.openapi()
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
}


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in part:
        return part
    _, kind, name = part["$ref"].rsplit("/", 2)
    found: dict[str, Any] = DOCUMENT["components"][kind][name]
    return found


def validator(schema: dict[str, Any]) -> Any:
    return jsonschema_rs.Draft202012Validator({**schema, "components": DOCUMENT["components"]}, validate_formats=True)


def test_the_committed_description_is_the_application_s() -> None:
    renew = "the API has changed: write its description anew by `uv run poe openapi`, and look at the difference"
    assert openapi.FILE.read_text() == openapi.described(), renew


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() for name in names)


@pytest.mark.parametrize("route", OPERATIONS)
def test_an_operation_says_what_it_does_for_whom_and_what_can_go_wrong(route: str) -> None:
    operation = OPERATIONS[route]
    method, _, path = route.partition(" ")
    assert operation["summary"]
    assert operation["description"]
    assert set(operation["tags"]) <= {tag["name"] for tag in DOCUMENT["tags"]}
    public = path in PUBLIC
    assert [*map(set, operation["security"])] == ([] if public else [{"apiKey"}, {"bearer"}])
    errors = {int(status) for status in operation["responses"] if status >= "400"}
    assert public or {401, 403, 429, 500, 503} <= errors
    assert public or "Needs the role" in operation["description"]
    if "requestBody" in operation:
        assert {400, 413, 415, 422} <= errors
    if "{" in path:
        assert 404 in errors
    names = {parameter["name"] for parameter in operation.get("parameters", [])}
    assert ("Idempotency-Key" in names) is (idempotency.applies(method, path)) is (409 in errors)
    for status in errors - {503 if public else 0}:
        answer = resolved(operation["responses"][str(status)])
        assert list(answer["content"]) == ["application/problem+json"]


@pytest.mark.parametrize("route", OPERATIONS)
def test_every_example_is_one_of_its_schema(route: str) -> None:
    operation = OPERATIONS[route]
    parts = [*operation["responses"].values(), *([operation["requestBody"]] if "requestBody" in operation else [])]
    seen = 0
    for content in (each for part in parts for each in resolved(part).get("content", {}).items()):
        media_type, said = content
        if media_type.endswith("json"):
            validator(said["schema"]).validate(said["example"])
            seen += 1
    for parameter in operation.get("parameters", []):
        validator(parameter["schema"]).validate(parameter["example"])
    assert seen
