"""The query function's handler as its gateway calls it, with requests that no client library would send."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.integration.deployment import Context, Deployment, sample

# What is refused because there was much of it before would hide what becomes of the rest.
UNLIMITED = {"rate_limit_requests": "0", "tenant_rate_limit_requests": "0"}
JSON_BODY = {"content-type": "application/json"}


# What `slowness` measures of the machine that limits in seconds were set on.
_USUAL_SECONDS = 0.005


def slowness() -> float:
    """How many times the processor's time this machine takes for the same work; at least 1."""
    text = json.dumps({"question": "x" * 200, "numbers": [*range(20)]})
    found = []
    for _ in range(5):
        began = time.process_time()
        for _ in range(300):
            json.loads(text)
            sum(map(ord, text))
        found.append(time.process_time() - began)
    return max(min(found) / _USUAL_SECONDS, 1.0)


@dataclass(frozen=True)
class Answer:
    """`seconds` of the processor, of all threads: what others do on the machine is not the request's."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def is_problem(self) -> bool:
        """RFC 9457 with the request's id, as every error of the API."""
        if self.headers.get("content-type") != "application/problem+json":
            return False
        told = self.json
        return (told["type"], told["status"]) == ("about:blank", self.status) and bool(
            told["title"] and told["detail"] and told["request_id"] == self.headers["x-request-id"]
        )


@dataclass(frozen=True)
class Door:
    tenant: Any

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        **caller: str,
    ) -> Answer:
        """One request, in the thread that asks."""
        from functions.query.handler import handler

        return _answered(handler, self.event(method, path, query, headers or JSON_BODY, body, caller))

    def beside_others(self, method: str, path: str, body: Any, **headers: str) -> Answer:
        """The same on a loop of its own, as other sandboxes would serve it at the same time."""
        from mangum import Mangum

        from functions.query.api import app

        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            adapter: Any = Mangum(app, lifespan="off", text_mime_types=["application/"])
            return _answered(adapter, self.event(method, path, (), JSON_BODY | headers, json.dumps(body).encode(), {}))
        finally:
            loop.close()

    def event(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]],
        headers: Mapping[str, str],
        body: bytes | None,
        caller: Mapping[str, str],
    ) -> dict[str, Any]:
        several: dict[str, list[str]] = {}
        for name, value in query:
            several.setdefault(name, []).append(value)
        event: dict[str, Any] = sample("query/search.json")
        event |= {
            "httpMethod": method,
            "path": path,
            "headers": {"host": "api.example.com", **headers},
            "multiValueHeaders": {},
            "queryStringParameters": dict(query) or None,
            "multiValueQueryStringParameters": several or None,
            "body": None if body is None else base64.b64encode(body).decode(),
            "isBase64Encoded": body is not None,
        }
        event["requestContext"]["authorizer"] |= {"tenant_id": str(self.tenant), **caller}
        return event


def _answered(handler: Any, event: dict[str, Any]) -> Answer:
    began = time.process_time()
    raw = handler(event, Context())
    took = time.process_time() - began
    body = base64.b64decode(raw["body"]) if raw["isBase64Encoded"] else raw["body"].encode()
    return Answer(raw["statusCode"], dict(raw["headers"]), body, took)


@contextmanager
def open_door(deployment: Deployment, **settings: str) -> Iterator[Door]:
    """Deploy the query function once for all requests: its connections and caches live as long as in a sandbox."""
    with deployment.function("rag_query", **UNLIMITED, **settings):
        door = Door(deployment.tenant)
        # The first request pays for imports and connections.
        assert door.send("POST", "/v1/search", body=b'{"query": "warm"}').status == 200
        yield door
