"""The whole platform as a program: what it announces, what it survives, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import rmtree
from typing import Any

import boto3
import httpx
import pytest

pytestmark = pytest.mark.slow

_ROOT = Path(__file__).resolve().parents[2]
_SERVICES = ["postgres", "valkey", "aws", "models"]


class Program:
    """`python -m local.platform` on a directory."""

    def __init__(self, directory: Path, *options: str, **variables: str) -> None:
        self.directory = directory
        self.process = subprocess.Popen(
            [sys.executable, "-m", "local.platform", "--data", str(directory), *options],
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OPENAI_API_KEY": "", **variables},
        )

    @property
    def ready(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / "ready.json").read_text())
        return found

    def wait_until_ready(self) -> dict[str, Any]:
        _wait_until(lambda: self.process.poll() is not None or (self.directory / "ready.json").exists())
        assert self.process.poll() is None, self.output()
        return self.ready

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(240)
        self.output()
        return code

    def output(self) -> str:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            return output.read().decode()

    def children(self) -> list[int]:
        return _descendants(self.process.pid)


def _descendants(pid: int) -> list[int]:
    tables = [thread / "children" for thread in Path(f"/proc/{pid}/task").iterdir()]
    children = [int(child) for table in tables for child in table.read_text().split()]
    return children + [grandchild for child in children for grandchild in _descendants(child)]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.05)


@pytest.fixture
def directory() -> Iterator[Path]:
    # Not tmp_path: its parents are closed to the user that PostgreSQL runs as when this is root.
    folder = Path(tempfile.mkdtemp(prefix="rag-platform-"))
    yield folder / "data"
    rmtree(folder)


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    folder = Path(tempfile.mkdtemp(prefix="rag-platform-"))
    running = Program(folder / "data", "--ready-file", str(folder / "ready-file.json"))
    running.wait_until_ready()
    yield running
    if running.process.poll() is None:
        running.end()
    rmtree(folder)


def test_the_ready_file_says_where_everything_is_and_only_to_its_owner(program: Program) -> None:
    ready = program.ready
    assert set(ready) >= {"url", "api_key", "openai_base_url", "s3_endpoint", "bucket", "data", "pids"}
    assert set(ready["pids"]) == {"supervisor", *_SERVICES}
    assert ready["pids"]["supervisor"] == program.process.pid
    assert all(_alive(pid) for pid in ready["pids"].values())
    for file in (program.directory / "ready.json", program.directory.parent / "ready-file.json"):
        assert json.loads(file.read_text()) == ready
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_key_opens_the_api_and_no_other_does(program: Program) -> None:
    ready = program.ready
    with httpx.Client(base_url=ready["url"], trust_env=False, timeout=60) as client:
        assert client.get("/v1/documents", headers={"x-api-key": ready["api_key"]}).status_code == 200
        assert client.get("/v1/documents", headers={"x-api-key": ready["api_key"] + "x"}).status_code == 401
        assert client.get("/health").status_code == 200


def test_the_model_server_speaks_under_its_address(program: Program) -> None:
    with httpx.Client(trust_env=False, timeout=60) as client:
        assert client.get(program.ready["openai_base_url"] + "/models").status_code == 200


def test_an_object_in_the_bucket_reaches_the_ingest_function(program: Program) -> None:
    ready = program.ready
    s3 = boto3.client(
        "s3",
        endpoint_url=ready["s3_endpoint"],
        region_name="us-east-1",
        aws_access_key_id=ready["access_key_id"],
        aws_secret_access_key=ready["secret_access_key"],
    )
    assert s3.get_bucket_versioning(Bucket=ready["bucket"])["Status"] == "Enabled"
    s3.put_object(
        Bucket=ready["bucket"], Key=f"{ready['tenant_id']}/default/note.txt", Body=b"The kettle is in room 7."
    )
    with httpx.Client(base_url=ready["url"], trust_env=False, timeout=60) as client:

        def is_ready() -> bool:
            listed = client.get("/v1/documents", headers={"x-api-key": ready["api_key"]}).json()["documents"]
            return [(one["key"], one["status"]) for one in listed] == [("note.txt", "ready")]

        _wait_until(is_ready)


def test_administrators_invoke_functions_with_the_token(program: Program) -> None:
    ready = program.ready
    client = boto3.client(
        "lambda",
        endpoint_url=ready["admin_url"],
        region_name="us-east-1",
        aws_access_key_id=ready["admin_token"],
        aws_secret_access_key="unused",
    )
    answer = client.invoke(FunctionName="tenants", Payload=json.dumps({"action": "create", "name": "another"}))
    made = json.load(answer["Payload"])
    with httpx.Client(base_url=ready["url"], trust_env=False, timeout=60) as http:
        assert http.get("/v1/documents", headers={"x-api-key": made["api_key"]}).json()["documents"] == []


def test_a_second_platform_on_the_same_directory_is_refused_and_names_the_first(program: Program) -> None:
    second = Program(program.directory)
    assert second.process.wait(240) == 1
    assert f"process id {program.process.pid}" in second.output()
    assert program.process.poll() is None


@pytest.mark.slow
@pytest.mark.parametrize("name", _SERVICES)
def test_a_service_that_is_killed_comes_back_under_its_address(program: Program, name: str) -> None:
    before = program.ready
    os.kill(before["pids"][name], signal.SIGKILL)
    _wait_until(lambda: program.ready["pids"][name] != before["pids"][name])
    after = program.ready
    assert {key: value for key, value in after.items() if key != "pids"} == {
        key: value for key, value in before.items() if key != "pids"
    }
    with httpx.Client(base_url=after["url"], trust_env=False, timeout=60) as client:
        _wait_until(lambda: client.get("/v1/documents", headers={"x-api-key": after["api_key"]}).status_code == 200)


def test_a_sandbox_that_is_killed_is_replaced(program: Program) -> None:
    ready = program.ready
    handler = "functions.query.handler.handler"
    for pid in program.children():
        if handler in Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(pid, signal.SIGKILL)
    with httpx.Client(base_url=ready["url"], trust_env=False, timeout=60) as client:
        _wait_until(lambda: client.get("/v1/documents", headers={"x-api-key": ready["api_key"]}).status_code == 200)


@pytest.mark.slow
def test_after_kill_9_nothing_remains_and_a_new_start_finds_everything(directory: Path) -> None:
    first = Program(directory)
    before = first.wait_until_ready()
    children = first.children()
    assert len(children) >= len(_SERVICES)
    first.end(signal.SIGKILL)
    _wait_until(lambda: not any(_alive(pid) for pid in children))
    second = Program(directory)
    _wait_until(lambda: not (directory / "ready.json").exists())
    after = second.wait_until_ready()
    kept = ["url", "api_key", "tenant_id", "s3_endpoint", "queue_url"]
    assert [after[name] for name in kept] == [before[name] for name in kept]
    children = second.children()
    assert second.end(signal.SIGINT) == 0
    _wait_until(lambda: not any(_alive(pid) for pid in children))
    assert not (directory / "ready.json").exists()


def test_a_port_that_is_taken_is_an_error_that_says_so(directory: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = Program(directory, "--port", str(port))
        assert refused.process.wait(240) == 1
        assert f"port {port} cannot be used" in refused.output()


@pytest.mark.slow
def test_a_stop_while_it_starts_leaves_nothing(directory: Path) -> None:
    program = Program(directory)
    _wait_until(lambda: len(program.children()) >= 2)
    children = program.children()
    assert program.end() == 0
    _wait_until(lambda: not any(_alive(pid) for pid in children))


def test_a_setting_that_cannot_be_used_is_named_before_anything_is_started(directory: Path) -> None:
    refused = Program(directory, RAG_PARSE_SECONDS="soon")
    assert refused.process.wait(240) == 1
    assert "RAG_PARSE_SECONDS=soon cannot be used" in refused.output()
    assert not directory.exists()
