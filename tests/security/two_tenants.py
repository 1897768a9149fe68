"""Two tenants of one deployment: what the one has, and the other's way to ask for it, as often as it likes."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import psycopg

from rag import calling
from rag.types import Caller
from tests.integration.deployment import Context, Deployment, sample

SECRET = "persimmon"
COLLECTION = "vaults"
# An attacker who has all the time there is.
UNLIMITED = (
    "rate_limit_requests",
    "tenant_rate_limit_requests",
    "tenant_requests_per_day",
    "tenant_tokens_per_day",
)


@dataclass(frozen=True)
class Foreign:
    """What the first tenant has, by the names of parameters; `words` are those that only its own answers may have."""

    tenant_id: uuid.UUID
    named: dict[str, str]
    words: tuple[str, ...]


@dataclass(frozen=True)
class Said:
    status: int
    headers: str
    body: str
    seconds: float

    @property
    def text(self) -> str:
        return self.headers + self.body


@dataclass(frozen=True)
class Attacker:
    """Sends requests as an admin of the second tenant, through the handler of the query function."""

    tenant_id: uuid.UUID

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        **parts: str,
    ) -> Said:
        """`parts` fill the path."""
        from functions.query.handler import handler

        event = sample("query/search.json")
        for name, value in parts.items():
            path = path.replace(f"{{{name}}}", quote(value, safe="", errors="surrogatepass"))
        given = {**event["headers"], **(headers or {})}
        event |= {"httpMethod": method.upper(), "path": path, "body": None if body is None else json.dumps(body)}
        event |= {"headers": given, "multiValueHeaders": {name: [value] for name, value in given.items()}}
        event |= {"queryStringParameters": query, "multiValueQueryStringParameters": None}
        if query:
            event["multiValueQueryStringParameters"] = {name: [value] for name, value in query.items()}
        event["requestContext"]["authorizer"] = calling.context(Caller(self.tenant_id, "key:attacker", "admin"))
        began = time.perf_counter()
        answer = handler(event, Context())
        seconds = time.perf_counter() - began
        return Said(int(answer["statusCode"]), str(answer["headers"]), str(answer["body"]), seconds)


@contextmanager
def attacking(deployment: Deployment) -> Iterator[tuple[Attacker, Foreign]]:
    """Fill the first tenant, and be the sandbox that the second one's requests come to."""
    foreign = _filled(deployment)
    tenant, _ = deployment.tenants.create("attacker")
    deployment.put("own.md", "# Cupboard\n\nNothing of interest lies in this cupboard.", tenant=tenant)
    unlimited = dict.fromkeys(UNLIMITED, "0")
    with deployment.function("rag_query", **unlimited):
        yield Attacker(tenant), foreign


def _filled(deployment: Deployment) -> Foreign:
    text = f"# Vault\n\nThe vault of Harrowgate opens with the word {SECRET}."
    deployment.put("word.md", text, collection=COLLECTION)
    [document] = deployment.ask("GET", "/v1/documents", multiValueQueryStringParameters=None).json["documents"]
    asked = {"question": "Which word opens the vault?", "collection": COLLECTION, "conversation": True}
    conversation = deployment.ask("POST", "/v1/query", asked).json["conversation_id"]
    deployment.put("doomed.md", "Nobody needs this any more.", collection="ashes")
    doomed = next(d for d in deployment.ask("GET", "/v1/documents").json["documents"] if d["collection"] == "ashes")
    erasure = deployment.ask("DELETE", f"/v1/documents/{doomed['id']}").json["id"]
    key = deployment.ask("POST", "/v1/keys", {"name": "harrowgate importer"}).json["id"]
    named = {
        "document_id": document["id"],
        "conversation_id": conversation,
        "erasure_id": erasure,
        "key_id": key,
        "name": COLLECTION,
        "key": "word.md",
        "principal": f"key:{deployment.key[4:12]}",
    }
    words = (SECRET, "harrowgate", *(value.lower() for name, value in named.items() if name != "name"))
    return Foreign(deployment.tenant, named, words)


def rows(deployment: Deployment, tenant: uuid.UUID) -> dict[str, int]:
    """How many rows each table has of a tenant."""
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        tables = connection.execute(
            "select c.oid::regclass::text from pg_class c join pg_attribute a on a.attrelid = c.oid "
            "where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace and a.attname = 'tenant_id' order by 1"
        ).fetchall()
        counted = {
            name: connection.execute(f"select count(*) from {name} where tenant_id = %s".encode(), [tenant]).fetchone()
            for (name,) in tables
        }
    return {name: row[0] for name, row in counted.items() if row}
