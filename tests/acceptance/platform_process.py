"""A platform that `rag up` runs in a process of its own, seen from outside: its files, its processes, its doors."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
import psycopg

from tests.certificates import NOBODY

ROOT = Path(__file__).resolve().parents[2]
RAG = [sys.executable, "-c", "from local.cli import main; main()"]
# How HTTPX asks a server on this machine.
HERE: dict[str, Any] = {"trust_env": False, "timeout": 60, "verify": NOBODY}
# What an error must never show: where the code lies, how it failed inside, what it asked the database.
INSIDE = ("Traceback", 'File "', ".py", "psycopg", "botocore", "select ", "insert ", "/tmp", str(ROOT))  # noqa: S108 (searched for)


@dataclass(frozen=True)
class Api:
    """The HTTP API with one key."""

    http: httpx.Client

    def get(self, path: str, **parameters: str | int) -> httpx.Response:
        return self.http.get(path, params=parameters)

    def post(self, path: str, body: Any) -> httpx.Response:
        return self.http.post(path, json=body)

    def upload(self, key: str, body: bytes, collection: str = "default") -> str:
        """Return the id of a document whose upload was acknowledged."""
        made = self.post("/v1/documents", {"key": key, "collection": collection})
        assert made.status_code == 201, made.text
        sent = send_form(made.json()["upload"], body)
        assert sent.status_code == 204, sent.text
        return str(made.json()["id"])

    def documents(self, collection: str) -> dict[str, dict[str, Any]]:
        """By key."""
        listed = self.get("/v1/documents", collection=collection, limit=1000)
        assert listed.status_code == 200, listed.text
        return {document["key"]: document for document in listed.json()["documents"]}

    def ready_count(self, collection: str) -> int:
        return sum(document["status"] == "ready" for document in self.documents(collection).values())

    def wait_until_ready(self, collection: str, keys: set[str]) -> None:
        """Return when exactly these documents are there, all of them ready."""
        wait_for(lambda: self._statuses(collection) == dict.fromkeys(keys, "ready"), lambda: self.documents(collection))

    def _statuses(self, collection: str) -> dict[str, str] | None:
        with suppress(AssertionError, httpx.TransportError):  # what it stands on may be starting again
            return {key: document["status"] for key, document in self.documents(collection).items()}
        return None


class PlatformProcess:
    """`rag up`, or a command that does the same, on one directory, which may be ended and started again."""

    def __init__(
        self, directory: Path, environment: Mapping[str, str] | None = None, command: Sequence[str] = (*RAG, "up")
    ) -> None:
        self.directory = directory
        self._command = command
        self._environment = {**os.environ, "OPENAI_API_KEY": "", **(environment or {})}
        self.ready_file = directory.with_name("ready.json")
        self._output = directory.with_name("up.log")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Return the seconds until the ready file was there."""
        began = time.monotonic()
        self._process = self.launch()
        wait_for(lambda: self._announced() or not self.running, self.output)
        assert self.running, self.output()
        return time.monotonic() - began

    def launch(self) -> subprocess.Popen[bytes]:
        command = [*self._command, "--data", str(self.directory), "--ready-file", str(self.ready_file)]
        with self._output.open("w") as output:
            return subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, env=self._environment)

    def _announced(self) -> bool:
        """Whether the ready file is this process's: one that was killed left its own."""
        with suppress(FileNotFoundError):
            return bool(self.ready["pids"]["supervisor"] == self.pid)
        return False

    def output(self) -> str:
        return self._output.read_text()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def ready(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ready_file.read_text())
        return found

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and return the exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(60)

    def descendants(self) -> set[int]:
        return set(_descendants(self.pid))

    def sandboxes(self, function: str) -> list[int]:
        named = f"AWS_LAMBDA_FUNCTION_NAME={function}\0"
        return [pid for pid in self.descendants() if named in _read(pid, "environ")]

    def processes(self) -> set[int]:
        """Every process that holds on to the directory, whoever its parent is by now."""
        pids = {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()} - {os.getpid()}
        return {pid for pid in pids if _alive(pid) and str(self.directory) in _belongings(pid)}

    @contextmanager
    def api(self, key: str | None = None) -> Iterator[Api]:
        """With the first tenant's key, or another; an empty one is not sent."""
        given = self.ready["api_key"] if key is None else key
        headers = {"x-api-key": given} if given else {}
        with httpx.Client(base_url=self.ready["url"], headers=headers, **HERE) as http:
            yield Api(http)

    def client(self, service: str) -> Any:
        """A boto3 client of the platform's S3 or SQS."""
        ready = self.ready
        return boto3.client(
            service,
            endpoint_url=ready["s3_endpoint"],
            region_name="us-east-1",
            aws_access_key_id=ready["access_key_id"],
            aws_secret_access_key=ready["secret_access_key"],
        )

    def rows(self, query: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """What the superuser sees, whom no row-level security hides anything from."""
        folder = self.directory / "postgres"
        with psycopg.connect(
            host="127.0.0.1",
            port=int((folder / "port").read_text()),
            user="postgres",
            password=(folder / "superuser-password").read_text(),
            dbname="rag",
        ) as connection:
            return connection.execute(query.encode(), parameters).fetchall()


@contextmanager
def platform_process(
    environment: Mapping[str, str] | None = None, command: Sequence[str] = (*RAG, "up")
) -> Iterator[PlatformProcess]:
    """A platform that is ready, on a directory that is removed afterwards; `environment` is added to its own."""
    # Not tmp_path: its parents are closed to the user that PostgreSQL runs as when this is root.
    folder = Path(tempfile.mkdtemp(prefix="rag-acceptance-"))
    platform = PlatformProcess(folder / "data", environment, command)
    try:
        platform.start()
        yield platform
    finally:
        if platform.running:
            platform.end()
        shutil.rmtree(folder)


def send_form(upload: dict[str, Any], body: bytes) -> httpx.Response:
    """POST a file with a presigned form, as a browser does."""
    return httpx.post(upload["url"], data=upload["fields"], files={"file": body}, **HERE)


def assert_problem(response: httpx.Response, *statuses: int) -> None:
    """It is a problem of one of these statuses with a request id, and tells nothing of the inside."""
    assert response.status_code in statuses, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == response.status_code
    assert problem["request_id"]
    assert problem["request_id"] == response.headers["x-request-id"]
    assert [word for word in INSIDE if word in response.text] == []


def wait_for(
    condition: Callable[[], bool], state: Callable[[], object] = str, *, timeout_seconds: float = 600
) -> float:
    """Return the seconds it took until the condition held; what `state` says explains why it never did."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_seconds, state()
        time.sleep(0.02)
    return time.monotonic() - began


def _descendants(pid: int) -> list[int]:
    tables = [_read(pid, f"task/{thread}/children") for thread in _threads(pid)]
    children = [int(child) for table in tables for child in table.split()]
    return children + [below for child in children for below in _descendants(child)]


def _threads(pid: int) -> list[str]:
    with suppress(OSError):
        return [thread.name for thread in Path(f"/proc/{pid}/task").iterdir()]
    return []


def _alive(pid: int) -> bool:
    return _read(pid, "stat").rpartition(")")[2].split()[:1] not in ([], ["Z"])


def _belongings(pid: int) -> str:
    """Its command line, its variables and its open files."""
    files: list[str] = []
    with suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                files.append(str(descriptor.readlink()))
    return "\n".join([_read(pid, "cmdline"), _read(pid, "environ"), *files])


def _read(pid: int, name: str) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    return ""
