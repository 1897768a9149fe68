"""The commands as a person types them, each a process of its own, against a platform that `rag up` started."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

RAG = [sys.executable, "-c", "from local.cli import main; main()"]
ROOT = Path(__file__).resolve().parents[2]


def rag(*arguments: str | Path, data: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAG_")}
    own |= {"RAG_DATA": str(data)} if data else {}
    command = [*RAG, *map(str, arguments)]
    settings: dict[str, Any] = {"capture_output": True, "text": True, "cwd": ROOT, "timeout": 180, "check": False}
    return subprocess.run(command, env=own | environment, **settings)


def _json(done: subprocess.CompletedProcess[str], *, code: int = 0) -> Any:
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    """The data directory of a platform that runs for this module; its end is checked, too."""
    directory = Path(tempfile.mkdtemp(prefix="rag-cli-"))
    command = [*RAG, "up", "--data", str(directory), "--ready-file", str(directory / "copy.json")]
    with (directory / "up.log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        _wait_for(directory / "copy.json", process)
        yield directory
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, (directory / "up.log").read_text()
    finally:
        process.kill()
        process.wait()
    shutil.rmtree(directory)


def _wait_for(file: Path, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while not file.exists():
        assert process.poll() is None, file.with_name("up.log").read_text()
        assert time.monotonic() < end, file.with_name("up.log").read_text()
        time.sleep(0.1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two readable documents in different places, one that holds no text, and a hidden file."""
    (tmp_path / "docs" / "hr").mkdir(parents=True)
    (tmp_path / "docs" / "hr" / "leave.md").write_text(
        "# Leave\n\nEverybody has thirty days of paid leave in a year.\n"
    )
    (tmp_path / "docs" / "tides.txt").write_text("The tide gauge at Ostwick is read every ten minutes.\n")
    (tmp_path / "docs" / "empty.txt").write_text("")
    (tmp_path / "docs" / ".hidden").write_text("hidden")
    return tmp_path / "docs"


def test_up_tells_its_address_key_and_the_next_commands(data: Path) -> None:
    ready = json.loads((data / "ready.json").read_text())
    printed = (data / "up.log").read_text()
    assert ready["url"] in printed
    assert ready["api_key"] in printed
    assert "rag put --data" in printed
    assert (data / "ready.json").stat().st_mode & 0o777 == 0o600


def test_a_folder_goes_in_and_a_question_comes_back_with_a_citation(data: Path, folder: Path) -> None:
    put = _json(rag("put", folder, "--collection", "staff", "--json", data=data), code=1)
    assert {d["key"]: d["status"] for d in put["documents"]} == {
        "empty.txt": "failed",
        "hr/leave.md": "ready",
        "tides.txt": "ready",
    }
    question = "How many days of paid leave does everybody have?"
    reply = _json(rag("ask", question, "--collection", "staff", "--json", data=data))
    assert "thirty days" in reply["answer"]
    [citation] = reply["citations"][:1]
    assert (citation["key"], citation["heading"]) == ("hr/leave.md", "Leave")
    printed = rag("ask", question, "--collection", "staff", data=data).stdout
    assert "[1] hr/leave.md" in printed
    assert "cached" in printed


def test_a_question_that_nothing_answers_says_so_and_succeeds(data: Path, folder: Path) -> None:
    rag("put", folder, "--collection", "honest", data=data)
    done = rag("ask", "Who won the football world cup of 1954?", "--collection", "honest", "--json", data=data)
    assert _json(done)["citations"] == []


def test_search_finds_what_a_question_would_be_answered_from(data: Path, folder: Path) -> None:
    rag("put", folder, "--collection", "searched", data=data)
    for mode in ("hybrid", "dense", "lexical"):
        done = rag("search", "paid leave", "--collection", "searched", "--mode", mode, "--json", data=data)
        assert _json(done)["hits"][0]["key"] == "hr/leave.md"


def test_a_document_put_again_is_waited_for_in_its_new_version(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "price.txt"
    for price in ("four", "five", "six"):
        file.write_text(f"The price of the brass sextant is {price} hundred euros.\n")
        [document] = _json(rag("put", file, "--collection", "prices", "--json", data=data))["documents"]
        assert document["status"] == "ready"
        hits = _json(rag("search", "price of the sextant", "--collection", "prices", "--json", data=data))["hits"]
        assert [price in hit["content"] for hit in hits] == [True]


def test_a_deleted_document_is_gone_from_the_list_and_from_search(data: Path, folder: Path) -> None:
    rag("put", folder, "--collection", "deleted", data=data)
    done = rag("delete", "hr/leave.md", "--collection", "deleted", "--wait", "--json", data=data)
    assert [d["status"] for d in _json(done)["documents"]] == ["deleted"]
    listed = _json(rag("documents", "--collection", "deleted", "--json", data=data))["documents"]
    assert [d["key"] for d in listed] == ["empty.txt", "tides.txt"]
    hits = _json(rag("search", "paid leave", "--collection", "deleted", "--json", data=data))["hits"]
    assert "hr/leave.md" not in [hit["key"] for hit in hits]


def test_a_failed_document_is_listed_with_its_reason(data: Path, folder: Path) -> None:
    rag("put", folder, "--collection", "failed", data=data)
    printed = rag("documents", "--collection", "failed", "--status", "failed", data=data).stdout
    assert "empty.txt" in printed
    assert "EMPTY" in printed or "NO_TEXT" in printed


def test_status_tells_that_every_part_is_well(data: Path) -> None:
    status = _json(rag("status", "--json", data=data))
    assert status["health"]["status"] == "ok"
    assert set(status["health"]["checks"]) >= {"database", "cache", "model"}


def test_a_second_tenant_sees_nothing_of_the_first(data: Path, folder: Path) -> None:
    rag("put", folder, "--collection", "private", data=data)
    key = _json(rag("tenants", "create", "second", "--json", data=data))["api_key"]
    assert _json(rag("documents", "--json", data=data, RAG_API_KEY=key)) == {"documents": []}
    assert _json(rag("collections", "--json", data=data, RAG_API_KEY=key)) == {"collections": []}


def test_a_key_that_nobody_has_exits_3(data: Path) -> None:
    done = rag("documents", "--json", data=data, RAG_API_KEY="rag_nobody00.secret")
    assert (done.returncode, done.stdout) == (3, "")
    assert json.loads(done.stderr)["error"]["kind"] == "unauthorized"


def test_ctrl_c_ends_a_put_and_says_what_goes_on(data: Path, tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / f"{number}.txt").write_text(f"Sentence number {number} about ropes and knots. " * 400)
    command = [*RAG, "put", str(tmp_path), "--collection", "stopped"]
    own = {**os.environ, "RAG_DATA": str(data)}
    process = subprocess.Popen(command, cwd=ROOT, env=own, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr
    assert process.stderr.readline().startswith("uploaded")
    process.send_signal(signal.SIGINT)
    said = process.stderr.read()
    assert process.wait(20) == 130
    assert "Traceback" not in said
    assert "The platform goes on with" in said


@pytest.mark.slow
def test_the_demo_shows_three_cited_answers_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = rag("demo", TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\n> ") == 4
    assert done.stdout.count("\n[1] ") == 4
    assert "The same question again" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_ends_the_demo_and_leaves_nothing_behind(tmp_path: Path) -> None:
    own = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [*RAG, "demo"], cwd=ROOT, env=own, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert process.stderr
    for line in process.stderr:
        if "postgres" in line:
            break
    process.send_signal(signal.SIGINT)
    said = process.stderr.read()
    assert process.wait(60) == 130, said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
