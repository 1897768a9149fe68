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
