"""What a function does before its first event: nothing that a snapshot of it must not hold, and without the SDK."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from functions.table import FUNCTIONS, FunctionRow

ROOT = Path(__file__).resolve().parents[2]
# Audit events (Python manual, "Audit events table") of whatever leaves the process, told after the import; a pair of
# sockets that are each other's ends, as an event loop has, is inside.
WATCH = """
import importlib, json, sys
seen = []
def watch(event, arguments):
    if event in {"socket.connect", "socket.getaddrinfo", "socket.bind", "subprocess.Popen", "os.fork"}:
        seen.append(event)
sys.addaudithook(watch)
importlib.import_module(sys.argv[1])
from rag import wiring
built = [name for name, made in vars(wiring).items() if hasattr(made, "cache_info") and made.cache_info().currsize]
print(json.dumps({"events": seen, "built": built}))
"""
TOKEN = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
from rag import wiring
token = wiring.database_password()
# Powertools imports the bare package `botocore`, to say its name in requests; nothing of the SDK is in that.
sdk = sorted(name for name in sys.modules if name.startswith(("boto3", "botocore.")))
print(json.dumps({"token": token, "sdk": sdk}))
"""
IAM = {
    "RAG_DATABASE_AUTH": "iam",
    "RAG_DATABASE_URL": "postgresql://rag_query@db.example:6432/rag?sslmode=verify-full",
    "AWS_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "ASIA1",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_SESSION_TOKEN": "session",
}


def run(program: str, row: FunctionRow, **environment: str) -> Any:
    """What the program prints last, in a process of its own under SnapStart."""
    done = subprocess.run(
        [sys.executable, "-c", program, row.handler.rpartition(".")[0]],
        cwd=ROOT,
        env={"PATH": os.defpath, "AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("row", FUNCTIONS, ids=lambda row: row.name)
def test_nothing_is_connected_or_built_or_read_before_the_first_event(row: FunctionRow) -> None:
    assert run(WATCH, row) == {"events": [], "built": []}


@pytest.mark.parametrize(
    "row", [row for row in FUNCTIONS if row.name in {"query", "authorize"}], ids=lambda row: row.name
)
def test_whoever_answers_logs_in_without_the_sdk(row: FunctionRow) -> None:
    found = run(TOKEN, row, **IAM)
    assert found["token"].startswith("db.example:6432/?Action=connect&DBUser=rag_query&")
    assert found["sdk"] == []


LATER = """
import asyncio, json, sys
from functions.query import api
before = sorted(name for name in sys.modules if name in {"functions.query.keys", "functions.query.usage"})
async def status(path):
    said = []
    async def send(message):
        said.append(message)
    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
    await api.app(scope, receive, send)
    return said[0]["status"]
first = [asyncio.run(status(path)) for path in ("/v1/strange", "/v1/keys")]
outside = [route.path for router in api._seldom() for route in router.routes if not route.path.startswith(api.SELDOM)]
print(json.dumps({"before": before, "first": first, "outside": outside}))
"""


def test_a_route_that_is_seldom_asked_for_is_there_for_the_first_request() -> None:
    told = subprocess.run([sys.executable, "-c", LATER], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert json.loads(told.splitlines()[-1]) == {"before": [], "first": [404, 401], "outside": []}


@pytest.mark.parametrize("start", ["on-demand", "snap-start"])
def test_the_function_that_answers_imports_no_other_route(start: str) -> None:
    program = "import json, sys, functions.query.streaming; print(json.dumps(sorted(sys.modules)))"
    told = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PATH": os.defpath, "AWS_LAMBDA_INITIALIZATION_TYPE": start},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    imported = set(json.loads(told.splitlines()[-1]))
    assert "functions.query.answers" in imported
    assert imported.isdisjoint(f"functions.query.{name}" for name in ("api", "passages", "conversations", "keys"))
