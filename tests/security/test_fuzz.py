"""Requests made from the API's own description, as it says and as it does not: nothing of them makes it fail."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import hypothesis
import jsonschema_rs
import psycopg
import pytest
import schemathesis
from schemathesis import GenerationMode

from functions.query.api import app
from tests.integration.deployment import Deployment
from tests.security.knocking import Answer, Door, open_door

pytestmark = pytest.mark.slow

DOCUMENT = app.openapi()
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
ROUTES = [(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods]
# What the authorizer reads, and we send ourselves.
OURS = {"x-api-key", "authorization"}


def _sent(door: Door, case: Any) -> Answer:
    headers = {name: str(value) for name, value in (case.headers or {}).items() if name.lower() not in OURS}
    body = None
    if type(case.body).__name__ != "NotSet":
        body = case.body if isinstance(case.body, bytes) else json.dumps(case.body).encode()
        headers["content-type"] = case.media_type or "application/json"
    given = (case.query or {}).items()
    query = [(name, str(one)) for name, value in given for one in (value if isinstance(value, list) else [value])]
    return door.send(case.method, quote(case.formatted_path, safe="/%"), query=query, headers=headers, body=body)


def _wrong(operation: dict[str, Any], answer: Answer) -> str | None:
    """What of the answer is not as the description says, if anything."""
    described = operation["responses"].get(str(answer.status))
    if answer.status >= 500 or (described is None and answer.status != 405):
        return "it failed, or with a status that is not described"
    if answer.status >= 400:
        return None if answer.is_problem else "it is no problem"
    content = (described or {}).get("content", {})
    media_type = answer.headers.get("content-type", "").partition(";")[0]
    if media_type not in content:
        return f"{media_type} is not described" if content or answer.body else None
    return _unlike(content[media_type]["schema"], answer) if media_type == "application/json" else None


def _unlike(schema: dict[str, Any], answer: Answer) -> str | None:
    whole = {**schema, "components": DOCUMENT["components"]}
    errors = jsonschema_rs.Draft202012Validator(whole, validate_formats=True).iter_errors(answer.json)
    return next(map(str, errors), None)


def _fuzz(door: Door, method: str, path: str, cases: int, seed: int) -> tuple[Counter[int], list[str]]:
    statuses: Counter[int] = Counter()
    failures: list[str] = []
    operation = DOCUMENT["paths"][path][method.lower()]
    for mode in GenerationMode:
        strategy = SCHEMA[path][method].as_strategy(generation_mode=mode)

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=cases // 2,
            database=None,
            deadline=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(strategy)
        def each(case: Any) -> None:
            answer = _sent(door, case)
            statuses[answer.status] += 1
            wrong = _wrong(operation, answer)
            if wrong is not None:
                failures.append(f"{wrong}: {case!r} -> {answer.status} {answer.body[:300]!r}")

        try:
            each()
        except hypothesis.errors.Unsatisfiable:
            # Nothing that this route takes could be wrong.
            continue
    return statuses, failures


def test_no_request_that_can_be_made_of_the_description_makes_it_fail(
    deployment: Deployment, record_attack: Callable[..., None], amount: Callable[[str], int], seed: int
) -> None:
    cases = amount("requests made of the description of a route")
    deployment.put("one.txt", "A note about rivers.")
    deployment.model.says = "A note about rivers. [1]"
    statuses: Counter[int] = Counter()
    failures: dict[str, list[str]] = {}
    fewest = cases
    with open_door(deployment) as door:
        for method, path in ROUTES:
            seen, failed = _fuzz(door, method, path, cases, seed)
            statuses += seen
            if "requestBody" in DOCUMENT["paths"][path][method.lower()]:
                fewest = min(fewest, seen.total())
            if failed:
                failures[f"{method} {path}"] = failed
    told = ", ".join(f"{count:,} x {status}" for status, count in sorted(statuses.items()))
    record_attack(
        "I3",
        tried=statuses.total(),
        succeeded=sum(map(len, failures.values())),
        figure=f"{len(ROUTES)} routes, at least {fewest:,} cases for each with a body: {told}",
    )
    assert {route: failed[:3] for route, failed in failures.items()} == {}


def test_a_route_that_fails_or_says_what_is_not_described_is_found(
    deployment: Deployment, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_door(deployment) as door:
        assert _fuzz(door, "GET", "/v1/collections", 4, seed)[1] == []
        with monkeypatch.context() as patch:
            patch.setitem(
                DOCUMENT["components"]["schemas"]["CollectionBody"]["properties"], "name", {"type": "integer"}
            )
            assert "integer" in _fuzz(door, "GET", "/v1/collections", 4, seed)[1][0]
        with psycopg.connect(deployment.database.superuser_dsn(), autocommit=True) as connection:
            connection.execute("revoke select on collections from rag_query")
        assert "it failed" in _fuzz(door, "GET", "/v1/collections", 4, seed)[1][0]
