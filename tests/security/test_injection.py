"""Whatever stands in a parameter is a value: no statement, path, pattern or format is made of it."""

from __future__ import annotations

import base64
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from tests.integration.deployment import Deployment
from tests.security.two_tenants import Attacker, Said, attacking, rows

pytestmark = pytest.mark.slow

# How a value is left, and what is done outside of it.
LEAVING = ("'", '"', "')", "'))", '"}', "\\'", "1", "$$", "`", "';", "'/**/", "'::text", "{", "%27")
DOING = (
    " or true --",
    " or '1'='1",
    "; drop table documents cascade; --",
    "; select pg_sleep(9); --",
    " || pg_sleep(9) || '",
    " union select content from chunks --",
    " union all select null, null, version() --",
    "; set app.tenant = ''; --",
    "; reset role; --",
    "; update api_keys set role = 'admin' where true; --",
    "; copy chunks to program 'id'; --",
    " and 1 = (select 1 / 0) --",
)
# Of formats, paths, patterns, JSON path, templates, encodings.
OTHERS = (
    *("%s", "%(tenant)s", "%%", "{0}", "{tenant.__class__}", "${jndi:ldap://localhost/x}", "{{7*7}}", "#{7*7}"),
    *(
        "$.** ? (@ != null)",
        '$["a"]',
        "$.a.b",
        "a.b",
        "a->>'b'",
        "metadata",
        "metadata.",
        "metadata.metadata.x",
        "..",
        "*",
    ),
    *("../../etc/passwd", "%2e%2e%2f", "C:\\x", "\\", "\\\\", "_", "%", "^(a+)+$", "(?i)x", "[", "\\x27", "\\u0027"),
    *(
        "\u02bc or true --",
        "\uff07 or true --",
        "\u2019",
        "\0",
        "a\0b",
        "\ud800",
        "\u202e",
        "\x1a",
        "\r\nx: y",
        "\n",
        "é" * 50,
    ),
)
PAYLOADS = (*(leave + do for leave, do in itertools.product(LEAVING, DOING)), *OTHERS)
# What only the inside says.
INSIDE = (
    "syntax error",
    "psycopg",
    "traceback",
    "rag_query",
    "postgresql ",
    "pg_catalog",
    "select ",
    "/layers/",
    ".py",
)
LONGEST_SECONDS = 8
BODIES = {
    "/v1/query": {"question": "What lies in the cupboard?"},
    "/v1/search": {"query": "What lies in the cupboard?"},
}

Sending = Callable[[Attacker, str], Said]


def _of_path(method: str, path: str, name: str) -> Sending:
    return lambda attacker, payload: attacker.send(method, path, **{name: _in_address(payload)})


def _of_query(method: str, path: str, name: str) -> Sending:
    return lambda attacker, payload: attacker.send(method, path, query={name: _in_address(payload)})


def _in_address(payload: str) -> str:
    """An address is UTF-8: what is none, no gateway passes on."""
    return payload.encode(errors="replace").decode()


def _of_header(method: str, path: str, name: str, parts: dict[str, str], body: Any) -> Sending:
    def send(attacker: Attacker, payload: str) -> Said:
        # An HTTP header holds none of these either.
        text = "".join(letter for letter in _in_address(payload) if letter not in "\r\n\0")
        return attacker.send(method, path, body, headers={name: text}, **parts)

    return send


def _of_body(
    path: str, method: str, parts: dict[str, str], body: dict[str, Any], more: Callable[[str], Any]
) -> Sending:
    return lambda attacker, payload: attacker.send(method, path, {**body, **more(payload)}, **parts)


FILTERS: dict[str, Callable[[str], Any]] = {
    "a field's value": lambda payload: {"filters": {"key": payload}},
    "a prefix": lambda payload: {"filters": {"title": {"prefix": payload}}},
    "one of several": lambda payload: {"filters": {"media_type": {"any": [payload, "x"]}}},
    "a metadata name": lambda payload: {"filters": {payload: "x"}},
    "a metadata path": lambda payload: {"filters": {f"metadata.{payload}": payload}},
    "an operator": lambda payload: {"filters": {"year": {payload: 1}}},
    "a range": lambda payload: {"filters": {"year": {"gte": payload}}},
    "a negation": lambda payload: {"filters": {"topic": {"not": {"all": [payload]}}}},
}
METADATA: dict[str, Callable[[str], Any]] = {
    "a metadata name": lambda payload: {"metadata": {payload: "x"}},
    "a metadata value": lambda payload: {"metadata": {"topic": payload}},
}


def _fields(properties: dict[str, Any]) -> Iterator[tuple[str, Callable[[str], Any]]]:
    for name, schema in properties.items():
        if name == "filters":
            yield from FILTERS.items()
        elif name == "metadata":
            yield from METADATA.items()
        elif any(kind.get("type") == "array" for kind in [schema, *schema.get("anyOf", [])]):
            yield f"{name}[]", lambda payload, name=name: {name: [payload]}
        else:
            yield name, lambda payload, name=name: {name: payload}


def _parameters(described: dict[str, Any]) -> Iterator[tuple[str, Sending]]:
    """Every parameter of every route that the document tells of."""
    heard: set[str] = set()
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            at = f"{method.upper()} {path}"
            given = operation.get("parameters", [])
            parts = {each["name"]: each["example"] for each in given if each["in"] == "path"}
            body, properties = _body(described, path, operation)
            for each in given:
                name = each["name"]
                if each["in"] == "path":
                    yield f"{at} {name}", _of_path(method, path, name)
                elif each["in"] == "query":
                    yield f"{at} ?{name}", _of_query(method, path, name)
                elif name not in heard:
                    # One reader for all routes, in front of them.
                    heard.add(name)
                    yield f"{at} {name}:", _of_header(method, path, name, parts, body)
            for name, more in _fields(properties):
                yield f"{at} {name}", _of_body(path, method, parts, body or {}, more)


def _body(described: dict[str, Any], path: str, operation: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A body that is accepted, and the properties that one may have."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return None, {}
    kinds = [content["schema"], *content["schema"].get("anyOf", [])]
    [name] = [kind["$ref"].rpartition("/")[2] for kind in kinds if "$ref" in kind]
    return BODIES.get(path, content["example"]), described["components"]["schemas"][name]["properties"]


def _cursor(attacker: Attacker, payload: str) -> Said:
    """In the place of what a cursor really holds."""
    place = base64.urlsafe_b64encode(json.dumps([payload, payload]).encode()).decode()
    return attacker.send("GET", "/v1/documents", query={"cursor": place})


def _in_turn(parameters: int, wanted: int) -> Iterator[Sequence[str]]:
    """Every how manieth payload for each parameter, beginning with another each time."""
    step = math.ceil(len(PAYLOADS) / wanted)
    return (PAYLOADS[number % step :: step] for number in range(parameters))


def test_no_parameter_of_any_route_is_more_than_a_value(
    deployment: Deployment, record_attack: Callable[..., None], amount: Callable[[str], int]
) -> None:
    assert len(set(PAYLOADS)) >= 200
    with attacking(deployment) as (attacker, foreign):
        from functions.query.api import app

        parameters = dict(_parameters(app.openapi())) | {"GET /v1/documents ?cursor's place": _cursor}
        before = rows(deployment, foreign.tenant_id)
        tried, reached, failed, leaked, slow = 0, 0, [], [], []
        chosen = list(_in_turn(len(parameters), amount("payloads of a parameter")))
        assert {payload for payloads in chosen for payload in payloads} == set(PAYLOADS)
        for (place, send), payloads in zip(parameters.items(), chosen, strict=True):
            for payload in payloads:
                said = send(attacker, payload)
                tried += 1
                reached += said.status < 400 or said.status == 404
                told = said.text.replace(payload, "").lower()
                if said.status >= 500:
                    failed.append((place, payload, said.status))
                if any(word in told for word in (*foreign.words, *INSIDE)):
                    leaked.append((place, payload, said.text[:300]))
                if said.seconds > LONGEST_SECONDS:
                    slow.append((place, payload, said.seconds))
    changed = before != rows(deployment, foreign.tenant_id)
    record_attack(
        "H4",
        tried=tried,
        succeeded=len(failed) + len(leaked) + len(slow) + changed,
        figure=f"{len(parameters)} parameters, {len(PAYLOADS)} payloads; {reached:,} taken as values; leaks, 5xx 0",
    )
    assert failed == []
    assert leaked == []
    assert slow == []
    assert not changed
