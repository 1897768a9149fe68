"""The commands as a person types them, against a platform that `rag up` started."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from local import cli
from tests.integration.streaming import events

pytestmark = pytest.mark.slow

RAG = [sys.executable, "-c", "from local.cli import main; main()"]
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def rag(*arguments: str | Path, **environment: str) -> Done:
    """One command line, in this process: an interpreter for each would take most of the time."""
    out, err = io.StringIO(), io.StringIO()
    unset = [name for name in os.environ if name.startswith("RAG_")]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        for name in unset:
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        code = cli.run([str(argument) for argument in arguments])
    return Done(code, out.getvalue(), err.getvalue())


def _json(done: Done, *, code: int = 0) -> Any:
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


@pytest.fixture(scope="module")
def staff(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Two readable documents in different places, one without a text and a hidden file, put into `staff`."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "hr").mkdir()
    (folder / "hr" / "leave.md").write_text("# Leave\n\nEverybody has thirty days of paid leave in a year.\n")
    (folder / "tides.txt").write_text("The tide gauge at Ostwick is read every ten minutes.\n")
    (folder / "empty.txt").write_text("")
    (folder / ".hidden").write_text("hidden")
    return rag("put", folder, "--collection", "staff", "--json", "--data", data)


def test_up_tells_its_address_key_and_the_next_commands(data: Path) -> None:
    ready = json.loads((data / "ready.json").read_text())
    printed = (data / "up.log").read_text()
    assert ready["url"] in printed
    assert ready["api_key"] in printed
    assert "rag put --data" in printed
    assert (data / "ready.json").stat().st_mode & 0o777 == 0o600


def test_a_folder_goes_in_and_each_document_ends_ready_or_failed(staff: Done) -> None:
    documents = _json(staff, code=1)["documents"]
    statuses = {document["key"]: document["status"] for document in documents}
    assert statuses == {"empty.txt": "failed", "hr/leave.md": "ready", "tides.txt": "ready"}


def test_a_question_comes_back_with_a_citation_and_from_the_cache_the_second_time(data: Path, staff: Done) -> None:
    ask = ("ask", "How many days of paid leave does everybody have?", "--collection", "staff", "--data", data)
    reply = _json(rag(*ask, "--json"))
    assert "thirty days" in reply["answer"]
    citation = reply["citations"][0]
    assert (citation["key"], citation["heading"]) == ("hr/leave.md", "Leave")
    printed = rag(*ask).stdout
    assert "[1] hr/leave.md › Leave\n    “Everybody has thirty days of paid leave in a year.”" in printed
    assert " · cached · " in printed


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_words_come_first_and_the_cited_answer_takes_their_place(
    data: Path, staff: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    question = "How many days of leave has everybody in a year?"
    assert cli.run(["ask", question, "--collection", "staff", "--data", str(data)]) == 0
    shown = terminal.getvalue()
    assert "found …" in shown
    assert "[1] hr/leave.md › Leave\n    “Everybody has thirty days of paid leave in a year.”" in shown.replace(
        "\r", ""
    )


def test_an_answer_is_streamed_from_the_model_to_the_client(data: Path, staff: Done) -> None:
    ready = json.loads((data / "ready.json").read_text())
    body = {"question": "How much paid leave has everybody?", "collection": "staff", "stream": True}
    with (
        httpx.Client(
            base_url=ready["url"], headers={"x-api-key": ready["api_key"]}, trust_env=False, timeout=60
        ) as api,
        api.stream("POST", "/v1/query", json=body) as response,
    ):
        told = list(events(response.iter_text()))
    names, answer = [name for name, _ in told], told[-1][1]
    assert (names[0], set(names[1:-1]), names[-1]) == ("hits", {"delta"}, "answer")
    assert len(names) > 5
    assert "".join(heard["text"] for name, heard in told if name == "delta") == re.sub(
        r" \[\d+\]", "", answer["answer"]
    )
    assert [citation["key"] for citation in answer["citations"]] == ["hr/leave.md"]


def test_a_question_that_nothing_answers_says_so_and_succeeds(data: Path, staff: Done) -> None:
    question = "Who won the football world cup of 1954?"
    assert _json(rag("ask", question, "--collection", "staff", "--json", "--data", data))["citations"] == []


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_search_finds_what_a_question_would_be_answered_from(data: Path, staff: Done, mode: str) -> None:
    done = rag("search", "paid leave", "--collection", "staff", "--mode", mode, "--json", "--data", data)
    assert _json(done)["hits"][0]["key"] == "hr/leave.md"


def test_a_failed_document_is_listed_with_its_reason(data: Path, staff: Done) -> None:
    printed = rag("documents", "--collection", "staff", "--status", "failed", "--data", data).stdout
    assert "EMPTY" in printed
    assert "empty.txt" in printed
    assert "tides.txt" not in printed


def test_a_document_put_again_is_waited_for_in_its_new_version(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "price.txt"
    for price in ("four", "five", "six"):
        file.write_text(f"The price of the brass sextant is {price} hundred euros.\n")
        there = ("--collection", "prices", "--json", "--data", data)
        assert _json(rag("put", file, *there))["ready"] == 1
        hits = _json(rag("search", "price of the sextant", *there))["hits"]
        assert [price in hit["content"] for hit in hits] == [True]


def test_a_deleted_document_is_gone_from_the_list_and_from_search(data: Path, tmp_path: Path) -> None:
    for name in ("rope.txt", "knot.txt"):
        (tmp_path / name).write_text(f"This tells how to care for a {name}.\n")
    there = ("--collection", "deleted", "--json", "--data", data)
    rag("put", tmp_path, *there)
    assert [d["status"] for d in _json(rag("delete", "rope.txt", "--wait", *there))["documents"]] == ["deleted"]
    assert [d["key"] for d in _json(rag("documents", *there))["documents"]] == ["knot.txt"]
    assert [hit["key"] for hit in _json(rag("search", "care for a rope", *there))["hits"]] == ["knot.txt"]


def test_status_tells_that_every_part_is_well(data: Path) -> None:
    status = _json(rag("status", "--json", "--data", data))
    assert status["health"]["status"] == "ok"
    assert set(status["health"]["checks"]) >= {"database", "cache", "model"}


def test_a_second_tenant_sees_nothing_of_the_first(data: Path, staff: Done) -> None:
    key = _json(rag("tenants", "create", "second", "--json", "--data", data))["api_key"]
    assert _json(rag("documents", "--json", "--data", data, RAG_API_KEY=key)) == {"documents": []}
    listed = _json(rag("collections", "--json", "--data", data, RAG_API_KEY=key))["collections"]
    assert [c["document_count"] for c in listed if c["name"] == "staff" or c["document_count"]] == []


def test_a_key_that_nobody_has_exits_3(data: Path) -> None:
    done = rag("documents", "--json", "--data", data, RAG_API_KEY="rag_nobody00.secret")
    assert (done.returncode, done.stdout) == (3, "")
    assert json.loads(done.stderr)["error"]["kind"] == "unauthorized"


def test_ctrl_c_ends_a_put_and_says_what_goes_on(data: Path, tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / f"{number}.txt").write_text(f"Sentence number {number} about ropes and knots. " * 400)
    own = {**os.environ, "RAG_DATA": str(data)}
    code, said = _interrupted([*RAG, "put", str(tmp_path), "--collection", "stopped"], own, at="uploaded")
    assert code == 130
    assert "Traceback" not in said
    assert "The platform goes on with" in said


BEIR = {
    "corpus.jsonl": """{"_id": "tea", "title": "Tea", "text": "Green tea is steamed before it is dried."}
{"_id": "salt", "title": "Salt", "text": "Sea salt is won from brine in shallow pans."}
{"_id": "bees/1", "title": "Bees", "text": "A queen bee lays two thousand eggs a day."}
""",
    "queries.jsonl": """{"_id": "1", "text": "How is green tea treated?"}
{"_id": "2", "text": "How many eggs does a queen bee lay?"}
""",
    "qrels.tsv": "query-id\tcorpus-id\tscore\n1\ttea\t1\n2\tbees/1\t1\n",
}


def test_a_test_collection_is_measured_once_put_in_and_held_to_its_figures(data: Path, tmp_path: Path) -> None:
    for name, text in BEIR.items():
        (tmp_path / name).write_text(text)
    figures = tmp_path / "figures.json"
    first = _json(rag("eval", tmp_path, "--collection", "beir", "--record", figures, "--data", data, "--json"))
    assert first == json.loads(figures.read_text())
    assert first["lexical"] == dict.fromkeys(("ndcg@10", "recall@10", "recall@100", "mrr@10"), 1.0)
    versions = {each["key"]: each["version_id"] for each in _documents(data, "beir")}
    assert set(versions) == {"tea.md", "salt.md", "bees%2F1.md"}
    assert _json(rag("eval", tmp_path, "--collection", "beir", "--gate", figures, "--data", data, "--json")) == first
    assert {each["key"]: each["version_id"] for each in _documents(data, "beir")} == versions
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n1\tsalt\t1\n")
    worse = rag("eval", tmp_path, "--collection", "beir", "--gate", figures, "--data", data)
    assert (worse.returncode, "fell: lexical ndcg@10" in worse.stderr) == (1, True)


def test_a_question_file_is_measured(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "tea.md").write_text("# Tea\n\nOolong tea is partly oxidised.\n")
    shutil.copy(ROOT / "local" / "samples" / "field-report.pdf", folder)
    limpet = {
        "question": "Why did the gauge on Kelder Rock fail?",
        "answer_substring": "a limpet had settled on the vent of the battery box",
    }
    questions = tmp_path / "questions.jsonl"
    asked = [
        {"file": "tea.md", "question": "Which tea is partly oxidised?", "answer_substring": "Oolong", "page": None},
        {"file": "field-report.pdf", **limpet, "page": 2},
        {"file": "field-report.pdf", **limpet, "page": 1},
        {"file": "tea.md", **limpet, "page": 2},
        {**limpet, "page": 2},
        {"question": "Who won the chess tournament in Reykjavik?", "answerable": False},
    ]
    questions.write_text("\n".join(map(json.dumps, asked)))
    put = ["--documents", folder, "--collection", "questions"]
    found = _json(rag("eval", questions, *put, "--data", data, "--json"))
    assert found["questions"] == {"answer_hit_rate@5": 0.8, "page_accuracy@5": 0.5, "abstention_rate": 1.0}


def _documents(data: Path, collection: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = _json(rag("documents", "--collection", collection, "--data", data, "--json"))[
        "documents"
    ]
    return listed


def test_the_demo_shows_three_cited_answers_and_leaves_nothing_behind(tmp_path: Path) -> None:
    # With a model server of the user's that cannot be reached: the demo has its own.
    theirs = {"OPENAI_API_KEY": "sk-none", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "RAG_CHUNK_TOKENS": "many"}
    own = {**os.environ, "TMPDIR": str(tmp_path), **theirs}
    done = subprocess.run([*RAG, "demo"], cwd=ROOT, env=own, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\n> ") == 4
    assert done.stdout.count("\n[1] ") == 4
    assert "The same question again" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_the_demo_and_leaves_nothing_behind(tmp_path: Path) -> None:
    own = {**os.environ, "TMPDIR": str(tmp_path)}
    code, said = _interrupted([*RAG, "demo"], own, at="postgres")
    assert code == 130, said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def _interrupted(command: list[str], environment: dict[str, str], *, at: str) -> tuple[int, str]:
    """Press Ctrl-C when a line on stderr holds `at`; return the exit code and what was said after that."""
    streams: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment, **streams) as process:
        assert process.stderr
        assert any(at in line for line in process.stderr), f"it ended before it said {at}"
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        return process.wait(60), said
