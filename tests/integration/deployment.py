"""A deployment of the real handlers in this process: real database, cache and bucket, a model server that is a fake."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from rag import wiring
from rag.migrations import ensure_space
from rag.store.access import TenantStore
from rag.store.database import Database
from rag.types import EmbeddingSpace
from tests import fake_model
from tests.fake_model import FakeModel

EVENTS = Path(__file__).resolve().parents[2] / "events"
SPACE = EmbeddingSpace("fake", 4)
BUCKET = "rag-dev-documents"  # as in the event samples


class Context:
    """What Lambda passes beside the event."""

    function_name = "function"
    memory_limit_in_mb = 512
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:function"
    aws_request_id = "1"

    def __init__(self, seconds: float = 600) -> None:
        self._seconds = seconds

    def get_remaining_time_in_millis(self) -> int:
        return int(self._seconds * 1000)


@dataclass
class Deployment:
    database: Any
    aws: Any
    model: FakeModel
    settings: dict[str, str]
    tenant: uuid.UUID
    key: str
    tenants: TenantStore
    opened: list[Database] = field(default_factory=list)
    sandbox: dict[str, str] | None = None

    @cached_property
    def s3(self) -> Any:
        return self.aws.client("s3")

    @contextmanager
    def function(self, role: str, **settings: str) -> Iterator[None]:
        """Be the sandbox of a function that connects as this role; inside of it the same one is meant again."""
        every = self.environment(role, **settings)
        if every == self.sandbox:
            yield
            return
        outer, self.sandbox = self.sandbox, every
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("RAG_")]:
                patch.delenv(name)
            for name, value in every.items():
                patch.setenv(name, value)
            forget_wiring()
            try:
                yield
            finally:
                wiring.database().close()
                forget_wiring()
                self.sandbox = outer

    def environment(self, role: str, **settings: str) -> dict[str, str]:
        """What a function that connects as this role is told."""
        told = {f"RAG_{name.upper()}": value for name, value in settings.items()}
        return {**self.settings, "RAG_DATABASE_URL": self.database.dsn(role), **told}

    def event(self, method: str, path: str, body: Any = None, *, tenant: Any = None, **event: Any) -> dict[str, Any]:
        """One request to the API, as its gateway tells the query function of it."""
        sent: dict[str, Any] = sample("query/search.json")
        sent |= {"httpMethod": method, "path": path, "body": None if body is None else json.dumps(body), **event}
        if "raw" in sent:
            sent["body"] = sent.pop("raw")
        role = sent.pop("role", "admin")
        caller = {"tenant_id": str(tenant or self.tenant), "role": role}
        caller |= {name: sent.pop(name) for name in ("principal", "collections", "groups") if name in sent}
        sent["requestContext"]["authorizer"] |= caller | sent.pop("limits", {})
        if sent.pop("anonymous", False):
            del sent["requestContext"]["authorizer"]
        return sent

    def ask(
        self, method: str, path: str, body: Any = None, *, tenant: Any = None, database_url: str = "", **event: Any
    ) -> Reply:
        """Send one request through the query function's handler."""
        from functions.query.handler import handler

        sent = self.event(method, path, body, tenant=tenant, **event)
        settings = {"database_url": database_url} if database_url else {}
        with self.function("rag_query", **settings):
            return Reply(handler(sent, Context()))

    def ingest(self, *bodies: str, receives: int = 1, seconds: float = 600, **settings: str) -> Any:
        """Deliver a batch of messages to the ingest function's handler, which has so many seconds."""
        from functions.ingest.handler import handler

        record = sample("ingest/object_created.json")["Records"][0]
        record["attributes"]["ApproximateReceiveCount"] = str(receives)
        records = [{**record, "messageId": str(number), "body": body} for number, body in enumerate(bodies)]
        with self.function("rag_ingest", **settings):
            return handler({"Records": records}, Context(seconds))

    def put(self, key: str, text: str | bytes, *, tenant: Any = None, collection: str = "default") -> str:
        """Store an object, deliver its message, and return the object's key."""
        object_key = f"{tenant or self.tenant}/{collection}/{key}"
        self.s3.put_object(Bucket=BUCKET, Key=object_key, Body=text)
        assert self.ingest(notification(object_key)) == {"batchItemFailures": []}
        return object_key

    def erase(self, receipt: Any, *, tenant: Any = None, seconds: float = 600, **settings: str) -> Any:
        """Deliver the message of an erasure to the erase function's handler."""
        from functions.erase.handler import handler

        event = sample("erase/message.json")
        body = {"tenant_id": str(tenant or self.tenant), "erasure_id": receipt["id"]}
        event["Records"][0]["body"] = json.dumps(body)
        with self.function("rag_erase", **settings):
            return handler(event, Context(seconds))

    def documents(self) -> dict[str, Any]:
        return {item["key"]: item for item in self.ask("GET", "/v1/documents").json["documents"]}


@dataclass
class Reply:
    raw: dict[str, Any]

    @property
    def status(self) -> int:
        return int(self.raw["statusCode"])

    @property
    def json(self) -> Any:
        assert not self.raw["isBase64Encoded"]
        return json.loads(self.raw["body"])

    @property
    def headers(self) -> dict[str, str]:
        return dict(self.raw["headers"])


def sample(name: str) -> Any:
    return json.loads((EVENTS / name).read_text())


def presenting(*headers: tuple[str, str]) -> Any:
    """What the authorizer is asked about a request with these headers."""
    several: dict[str, list[str]] = {}
    for name, value in headers:
        several.setdefault(name, []).append(value)
    return sample("authorize/api_key.json") | {"headers": dict(headers), "multiValueHeaders": several}


def notification(*object_keys: str, event: str = "ObjectCreated:Put") -> str:
    from urllib.parse import quote_plus

    [record] = json.loads(sample("ingest/object_created.json")["Records"][0]["body"])["Records"]
    records = []
    for object_key in object_keys:
        record["s3"]["object"]["key"] = quote_plus(object_key, safe="/")
        records.append(json.loads(json.dumps({**record, "eventName": event})))
    return json.dumps({"Records": records})


def before_reply(act: Callable[[], object]) -> fake_model.Reply:
    """Reply as always, having done something first."""

    def reply(handler: Any, body: dict[str, Any]) -> None:
        act()
        fake_model.send_json(handler, fake_model.embeddings([fake_model.unit(text, 4) for text in body["input"]]))

    return reply


def forget_wiring() -> None:
    """All but the parser, which knows nothing of a deployment and takes half a second to start."""
    if wiring.llm.cache_info().currsize and (client := wiring.llm()._opened):
        client.close()
    for built in vars(wiring).values():
        if hasattr(built, "cache_clear") and built is not wiring.parser:
            built.cache_clear()


@contextmanager
def deployed(database: Any, aws: Any, redis_url: str) -> Iterator[Deployment]:
    ensure_space(database.dsn("rag_owner"), SPACE)
    admin = Database(database.url("rag_admin"), lambda: database.passwords["rag_admin"])
    tenants = TenantStore(admin, SPACE)
    tenant, key = tenants.create("first")
    with fake_model.serving(FakeModel(SPACE.dimensions)) as model:
        settings = {
            **aws.environment,
            "RAG_BUCKET": BUCKET,
            "RAG_REDIS_URL": redis_url,
            "RAG_MODEL_URL": model.url,
            "RAG_EMBEDDING_MODEL": SPACE.model,
            "RAG_EMBEDDING_DIMENSIONS": str(SPACE.dimensions),
            "RAG_CHAT_MODEL": "fake",
            # Tests ask more often than a person does; what limits do is told by those that set them.
            "RAG_RATE_LIMIT_REQUESTS": "0",
            "RAG_TENANT_RATE_LIMIT_REQUESTS": "0",
        }
        yield Deployment(database, aws, model, settings, tenant, key, tenants)
    admin.close()
