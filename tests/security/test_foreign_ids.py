"""Of another tenant's things nobody learns that there are any: not by an answer's words, and not by its time."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest

from tests.integration.deployment import Deployment
from tests.security.two_tenants import COLLECTION, Attacker, Foreign, Said, attacking, rows

pytestmark = pytest.mark.slow

# Of the same form, and nobody's.
ABSENT = {
    "document_id": str(uuid.UUID("0d9c8f5e-0000-5c3d-8e4f-1a2b3c4d5e6f")),
    "conversation_id": str(uuid.UUID("0d9c8f5e-0000-4c3d-8e4f-1a2b3c4d5e6f")),
    "erasure_id": str(uuid.UUID("0d9c8f5e-0000-4c3d-8e4f-1a2b3c4d5e70")),
    "key_id": "00000000",
    "name": "graves",
    "principal": "key:00000000",
    "key": "none.md",
}
LARGEST_RATIO = 1.2
# The noise of a busy machine passes; what makes a difference makes it again.
MEASUREMENTS = 30

Asking = Callable[[Attacker, str], Said]


def by_path(described: dict[str, Any]) -> dict[str, tuple[str, Asking]]:
    """Every route with an id or a name in its path: of which kind, and how it is asked for."""
    found = {}
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            for each in operation.get("parameters", []):
                # What is one of a few words names nothing of anybody.
                if each["in"] == "path" and "enum" not in each["schema"]:
                    found[f"{method.upper()} {path}"] = (each["name"], _asking(method, path, each["name"], operation))
    return found


def _asking(method: str, path: str, name: str, operation: dict[str, Any]) -> Asking:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    body = content["example"] if content else None
    return lambda attacker, value: attacker.send(method, path, body, **{name: value})


def _post(path: str, body: Callable[[str], Any]) -> Asking:
    return lambda attacker, value: attacker.send("POST", path, body(value))


def _get(path: str, name: str) -> Asking:
    return lambda attacker, value: attacker.send("GET", path, query={name: value})


# Where a body or a query string names something.
ELSEWHERE: dict[str, tuple[str, Asking]] = {
    "POST /v1/search collection": (
        "name",
        _post("/v1/search", lambda name: {"query": "the vault", "collection": name}),
    ),
    "POST /v1/query collection": (
        "name",
        _post("/v1/query", lambda name: {"question": "the vault", "collection": name}),
    ),
    "POST /v1/query conversation_id": (
        "conversation_id",
        _post("/v1/query", lambda value: {"question": "the vault", "conversation_id": value}),
    ),
    "POST /v1/search document_id": (
        "document_id",
        _post("/v1/search", lambda value: {"query": "the vault", "filters": {"document_id": value}}),
    ),
    "POST /v1/search why_not": (
        "document_id",
        _post("/v1/search", lambda value: {"query": "the vault", "why_not": value}),
    ),
    "GET /v1/documents ?collection": ("name", _get("/v1/documents", "collection")),
    "GET /v1/documents ?key": ("key", _get("/v1/documents", "key")),
    "GET /v1/documents ?prefix": ("key", _get("/v1/documents", "prefix")),
}

# Asked first: whatever the attacker asks for stands in its own log from then on.
LOGGED: dict[str, tuple[str, Asking]] = {
    "GET /v1/audit ?principal": ("principal", _get("/v1/audit", "principal")),
    "GET /v1/audit ?document": ("document_id", _get("/v1/audit", "document")),
}


def words(said: Said, value: str) -> tuple[int, Any]:
    """Status and body, without what is the request's own, or that of the receipt which it made."""
    body = json.loads(said.body.replace(value, "…"))
    for own in ("request_id", "timings_ms", "id", "requested_at"):
        body.pop(own, None)
    (body.get("explanation") or {}).pop("timings_ms", None)
    return said.status, body


def ratio(attacker: Attacker, ask: Asking, foreign: str, absent: str, pairs: int) -> float:
    """Of the medians of both, asked for in turns."""
    seconds: dict[str, list[float]] = {foreign: [], absent: []}
    for turn in range(pairs):
        # Whoever comes second finds the caches warm.
        for value in (foreign, absent) if turn % 2 else (absent, foreign):
            seconds[value].append(ask(attacker, value).seconds)
    slower, faster = sorted((median(seconds[foreign]), median(seconds[absent])), reverse=True)
    return slower / faster


def test_what_is_foreign_is_answered_like_what_is_absent(
    deployment: Deployment, record_attack: Callable[..., None], amount: Callable[[str], int]
) -> None:
    from functions.query.api import app

    pairs = amount("measured pairs of a foreign and an absent id")
    with attacking(deployment) as (attacker, foreign):
        before = rows(deployment, foreign.tenant_id)
        asked = LOGGED | by_path(app.openapi()) | ELSEWHERE
        known = foreign.named
        unknown = {kind for kind, _ in asked.values()} - set(known)
        assert unknown == set(), "say in two_tenants.py what the other tenant has of these"
        told, ratios = [], {}
        for place, (kind, ask) in asked.items():
            theirs, nobodys = known[kind], ABSENT[kind]
            first, second = ask(attacker, theirs), ask(attacker, nobodys)
            if words(first, theirs) != words(second, nobodys) or leaks(first, foreign, theirs):
                told.append((place, first.text, second.text))
            ratios[place] = min(_until_quiet(attacker, ask, theirs, nobodys, pairs))
    changed = before != rows(deployment, foreign.tenant_id)
    slow = {place: found for place, found in ratios.items() if found >= LARGEST_RATIO}
    record_attack(
        "H5",
        tried=len(asked) * 2,
        succeeded=len(told) + len(slow) + changed,
        figure=f"{len(asked)} places; same words; largest ratio of times {max(ratios.values()):.2f}",
    )
    assert told == []
    assert slow == {}
    assert not changed


def leaks(said: Said, foreign: Foreign, value: str) -> bool:
    return any(word in said.text.replace(value, "").lower() for word in foreign.words if word != COLLECTION)


def _until_quiet(attacker: Attacker, ask: Asking, foreign: str, absent: str, pairs: int) -> list[float]:
    found: list[float] = []
    while len(found) < MEASUREMENTS and (not found or found[-1] >= LARGEST_RATIO):
        found.append(ratio(attacker, ask, foreign, absent, pairs))
    return found
