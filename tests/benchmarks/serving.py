"""The platform as a program of its own, on a directory of its own."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from tests.benchmarks import door
from tests.benchmarks.corpus import Manual

START_SECONDS = 120
INGEST_SECONDS = 300

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request from outside: milliseconds from its first byte to the answer's last, and the answer."""

    milliseconds: float
    answer: JSON


class Client:
    """One kept connection; the standard library's client, because a richer one adds a millisecond of its own."""

    def __init__(self, ready: JSON) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(ready["url"]).netloc, timeout=60)
        self._headers = {"x-api-key": ready["api_key"], "content-type": "application/json"}
        self._unauthenticated = f"{door.PATH}?tenant={ready['tenant_id']}"

    def search(self, question: str) -> Asked:
        return self.ask("POST", "/v1/search", {"query": question})

    def search_unauthenticated(self, question: str) -> Asked:
        return self.ask("POST", self._unauthenticated, {"query": question})

    def query(self, question: str) -> Asked:
        return self.ask("POST", "/v1/query", {"question": question})

    def ask(self, method: str, path: str, body: JSON | None = None) -> Asked:
        started = time.perf_counter()
        self._connection.request(method, path, None if body is None else json.dumps(body), self._headers)
        response = self._connection.getresponse()
        content = response.read()
        milliseconds = (time.perf_counter() - started) * 1000
        if response.status >= 400:
            raise RuntimeError(f"{method} {path} answered {response.status}: {content[:500]!r}")
        return Asked(milliseconds, json.loads(content))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


@contextmanager
def platform(directory: Path) -> Iterator[JSON]:
    """Start everything, yield what its ready file says, stop everything."""
    file = directory / "ready.json"
    # With compiled modules kept, as on AWS and in every shell that does not forbid it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.two_doors", str(directory)], env=environment, stdout=subprocess.DEVNULL
    )
    try:
        yield _ready(process, file)
    finally:
        process.terminate()
        process.wait(timeout=60)


def _ready(process: subprocess.Popen[bytes], file: Path) -> JSON:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError, ValueError):
            ready: JSON = json.loads(file.read_text())
            return ready
        time.sleep(0.01)
    raise RuntimeError(f"the platform did not start; its logs are in {file.parent / 'logs'}")


def ingest(ready: JSON, manuals: Sequence[Manual], samples: Sequence[Path]) -> int:
    """Upload everything, wait until all of it is ready, return the number of chunks."""
    files = [(manual.key, manual.text.encode()) for manual in manuals]
    files += [(f"samples/{path.name}", path.read_bytes()) for path in samples]
    with Client(ready) as client, httpx.Client(trust_env=False) as http:
        for key, content in files:
            upload = client.ask("POST", "/v1/documents", {"key": key}).answer["upload"]
            http.post(upload["url"], data=upload["fields"], files={"file": content}).raise_for_status()
        return _settled(client, len(files))


def _settled(client: Client, count: int) -> int:
    until = time.monotonic() + INGEST_SECONDS
    while time.monotonic() < until:
        documents = client.ask("GET", "/v1/documents?limit=1000").answer["documents"]
        failed = [document for document in documents if document["status"] == "failed"]
        if failed:
            raise RuntimeError(f"{failed[0]['key']}: {failed[0]['error']}")
        if sum(document["status"] == "ready" for document in documents) == count:
            return sum(document["chunk_count"] for document in documents)
        time.sleep(0.25)
    raise RuntimeError(f"not everything was ready within {INGEST_SECONDS} s")
