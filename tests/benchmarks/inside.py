"""The query function in this process: its round trips counted, its SQL written down and run again by itself."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import boto3
import psycopg

from functions.table import QUERY
from local import aws, environment
from local.postgres import SUPERUSER
from rag import calling, ranking, searching, wiring
from rag.deadline import Deadline
from rag.store.database import Transaction, connect
from rag.store.statements import statement
from rag.types import Caller, Filters, Scope
from tests.benchmarks import door
from tests.benchmarks.wire import Tap

JSON = dict[str, Any]
EVENT = Path(__file__).resolve().parents[2] / "events" / "query" / "search.json"


@dataclass(frozen=True, slots=True)
class Executed:
    """One statement as the store ran it."""

    name: str
    parameters: JSON
    binary: bool = False


@dataclass(slots=True)
class Function:
    """The handler, and a tap on each wire that leaves it."""

    tenant_id: str
    taps: dict[str, Tap]
    event: JSON = field(default_factory=lambda: json.loads(EVENT.read_text()))

    def round_trips(self, path: str, body: JSON) -> tuple[dict[str, int], JSON]:
        """How many trips one request makes to each server, and what it answers."""
        before = {name: tap.round_trips for name, tap in self.taps.items()}
        answer = self._ask(path, body)
        return {name: tap.round_trips - before[name] for name, tap in self.taps.items()}, answer

    def forget(self) -> None:
        """Empty the function's own cache, as a new sandbox's is; Valkey keeps what it has."""
        wiring.answer_cache()._local.clear()

    def statements(self, questions: Sequence[str]) -> list[list[Executed]]:
        """What the database is asked to answer each question; nothing goes through the cache."""
        deadline = Deadline.after(120)
        vectors = wiring.llm().embed(questions, deadline)
        return [self._recorded(*asked) for asked in zip(questions, vectors, strict=True)]

    def _recorded(self, question: str, vector: Any) -> list[Executed]:
        executed: list[Executed] = []

        def recording(run: Any) -> Any:
            def recorded(transaction: Transaction, name: str, /, **given: Any) -> Any:
                how = {key: given[key] for key in ("binary",) if key in given}
                parameters = {key: value for key, value in given.items() if key not in how}
                executed.append(Executed(name, transaction._bound | parameters, **how))
                return run(transaction, name, **given)

            return recorded

        asked = searching.Asked(question)
        methods = {name: recording(getattr(Transaction, name)) for name in ("rows",)}
        with patch.multiple(Transaction, **methods):
            wiring.search_store().search(
                Scope(uuid.UUID(self.tenant_id)),
                "default",
                embedding=vector,
                lexemes=asked.lexemes,
                rank=lambda candidates, _: ranking.fuse(candidates, mode="hybrid")[:10],
                mode="hybrid",
                filters=Filters(),
                depth=ranking.CANDIDATES_PER_LEG,
                shown=18,
            )
        return executed

    def _ask(self, path: str, body: JSON) -> JSON:
        module, _, name = (door.HANDLER if path == door.PATH else QUERY.handler).rpartition(".")
        handler = getattr(importlib.import_module(module), name)
        authorizer = calling.context(Caller(uuid.UUID(self.tenant_id), "benchmark", "admin"))
        context = {**self.event["requestContext"], "authorizer": authorizer}
        event = {**self.event, "path": path, "body": json.dumps(body), "requestContext": context}
        event["multiValueQueryStringParameters"] = {"tenant": [self.tenant_id]} if path == door.PATH else None
        with contextlib.redirect_stdout(io.StringIO()):
            reply = handler(event, _Context())
        if reply["statusCode"] != 200:
            raise RuntimeError(reply["body"])
        answer: JSON = json.loads(reply["body"])
        return answer


class _Context:
    function_name, function_version, memory_limit_in_mb = "query", "$LATEST", 512
    invoked_function_arn, aws_request_id = environment.function_arn(QUERY), "benchmark"

    def get_remaining_time_in_millis(self) -> int:
        return 29_000


@contextmanager
def function(ready: JSON) -> Iterator[Function]:
    """The query function, connected to a running platform through taps."""
    data = Path(ready["data"])
    ports = {
        "PostgreSQL": int((data / "postgres" / "port").read_text()),
        "Valkey": int((data / "valkey" / "port").read_text()),
        "model": urlsplit(ready["openai_base_url"]).port or 80,
    }
    with contextlib.ExitStack() as stack:
        taps = {name: stack.enter_context(Tap(port)) for name, port in ports.items()}
        model = environment.local_model(f"http://127.0.0.1:{taps['model'].port}/v1")
        variables = {
            "RAG_DATABASE_URL": database_url(ready, taps["PostgreSQL"].port),
            "RAG_REDIS_URL": redis_url(ready, taps["Valkey"].port),
            "RAG_MODEL_URL": model.url,
            "RAG_EMBEDDING_MODEL": model.embedding_model,
            "RAG_EMBEDDING_DIMENSIONS": str(model.embedding_dimensions),
            "RAG_CHAT_MODEL": model.chat_model,
            "POWERTOOLS_TRACE_DISABLED": "1",
            door.DIRECTORY: str(data),
        }
        stack.enter_context(patch.dict(os.environ, variables))
        stack.callback(lambda: wiring.database().close())
        yield Function(ready["tenant_id"], taps)


def analyse(ready: JSON) -> None:
    """Gather the planner's statistics, as autovacuum does within a minute; until then its plans take twice the time."""
    with psycopg.connect(superuser_url(ready), autocommit=True) as connection:
        connection.execute("analyze")


def superuser_url(ready: JSON) -> str:
    """Where the platform's database is reached by whom row-level security does not bind, with the password."""
    directory = Path(ready["data"]) / "postgres"
    password, port = (directory / "superuser-password").read_text(), (directory / "port").read_text()
    return f"postgresql://{SUPERUSER}:{password}@127.0.0.1:{port}/{environment.DATABASE}"


def database_url(ready: JSON, port: int | None = None) -> str:
    """Where the query function's role reaches the database, with its password."""
    port = port or int((Path(ready["data"]) / "postgres" / "port").read_text())
    role = QUERY.role
    password = _secret(ready, environment.database_secret(role))
    return f"postgresql://{role}:{password}@127.0.0.1:{port}/{environment.DATABASE}"


def redis_url(ready: JSON, port: int | None = None) -> str:
    """Where the cache is, with its password."""
    port = port or int((Path(ready["data"]) / "valkey" / "port").read_text())
    return f"redis://:{_secret(ready, environment.REDIS_SECRET)}@127.0.0.1:{port}/0"


def _secret(ready: JSON, name: str) -> str:
    vault = boto3.client(
        "secretsmanager",
        endpoint_url=ready["s3_endpoint"],
        region_name=aws.REGION,
        aws_access_key_id=ready["access_key_id"],
        aws_secret_access_key=ready["secret_access_key"],
    )
    return str(vault.get_secret_value(SecretId=name)["SecretString"])


class BareSql:
    """The same statements with the same parameters and nothing around them."""

    def __init__(self, ready: JSON, *, prepared: bool) -> None:
        self._connection = connect(database_url(ready))
        self._prepare = True if prepared else None

    def milliseconds(self, executed: Sequence[Executed]) -> float:
        started = time.perf_counter()
        for one in executed:
            with self._connection.cursor(binary=one.binary) as cursor:
                cursor.execute(statement(one.name), one.parameters, prepare=self._prepare).fetchall()
        return (time.perf_counter() - started) * 1000

    def close(self) -> None:
        self._connection.close()
