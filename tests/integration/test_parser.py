"""The bounded child on real documents and on documents made to break it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rag.errors import DocumentError
from rag.limits import Limits
from rag.parser import Parser
from rag.types import Parsed, Section
from tests.integration.outcomes import LEAK, REFUSED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow

Outcomes = dict[str, Parsed | DocumentError]

_WORDS = {
    "adversarial/zen_of_python_corrupted.pdf": "Errors should never pass silently",
    "docx/testWORD_numbered_list.docx": "I’m a little text box",
    "eml/email-no-utf8-2008-07-16.062410.eml": "סלבה היקר",
    "html/fake-html-cp1252.html": "Die schöne Frau",
    "md/umlauts-non-utf8.md": "äöüß",
    "pptx/prs-notes.pptx": "Notes",
    "txt/chardet-big5.txt": "維基",
    "txt/chardet-koi8-r.txt": "гимназ",
    "txt/chardet-euc-jp.txt": "の",
    "csv/test_mskanji.csv": "名前: 佐藤太郎",
    "csv/stanley-cups-utf-16.csv": "Team: Maple Leafs | Location: TOR | Stanley Cups: 13",
}


@pytest.fixture(scope="module")
def parser() -> Iterator[Parser]:
    parser = Parser()
    yield parser
    parser.close()


@pytest.fixture(scope="module")
def documents(shared_data: Path) -> Path:
    return shared_data / "documents"


@pytest.fixture(scope="module")
def outcomes(parser: Parser, documents: Path) -> Outcomes:
    files = sorted(path for path in documents.glob("*/*") if path.is_file())
    return {str(path.relative_to(documents)): _outcome(parser, path) for path in files}


def _outcome(parser: Parser, path: Path) -> Parsed | DocumentError:
    try:
        return parser.parse(path, path.name)
    except DocumentError as error:
        return error


def _text(parsed: Parsed) -> str:
    [section] = parsed.sections
    return section.text


def _refusal(parser: Parser, path: Path) -> DocumentError:
    with pytest.raises(DocumentError) as caught:
        parser.parse(path, path.name)
    return caught.value


def _written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _until(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


# The test set


@pytest.mark.data
def test_every_document_ends_as_it_should(outcomes: Outcomes) -> None:
    refused = {name: outcome.code for name, outcome in outcomes.items() if isinstance(outcome, DocumentError)}

    assert refused == REFUSED


@pytest.mark.data
def test_the_outcomes_are_those_the_documents_come_with(outcomes: Outcomes, documents: Path) -> None:
    for line in (documents / "expected.jsonl").read_text(encoding="utf-8").splitlines():
        expected = json.loads(line)
        refused = isinstance(outcomes[expected["file"]], DocumentError)
        assert ("reject" if refused else "index") in expected["expect"], expected


@pytest.mark.data
def test_no_outcome_holds_another_file_or_a_script(outcomes: Outcomes) -> None:
    for name, outcome in outcomes.items():
        text = str(outcome) if isinstance(outcome, DocumentError) else "\n".join(s.text for s in outcome.sections)
        assert LEAK not in text, name
        if name.startswith("html/example-with-scripts"):
            assert "function(" not in text
            assert "{display:" not in text.replace(" ", "")


@pytest.mark.data
@pytest.mark.parametrize("name", sorted(_WORDS))
def test_the_words_of_a_document_are_found(outcomes: Outcomes, name: str) -> None:
    parsed = outcomes[name]

    assert isinstance(parsed, Parsed), parsed
    assert _WORDS[name] in "\n".join(section.text for section in parsed.sections)


@pytest.mark.data
def test_answers_stand_on_their_pages(outcomes: Outcomes, documents: Path) -> None:
    questions = [json.loads(line) for line in (documents / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    answerable = [question for question in questions if question["answerable"]]
    found = 0
    for question in answerable:
        pages = question.get("pages_with_answer") or [question["page"]]
        parsed = outcomes[question["file"]]
        assert isinstance(parsed, Parsed)
        texts = [section.text for section in parsed.sections if pages == [None] or section.page in pages]
        found += any(question["answer_substring"] in text.replace("’", "'") for text in texts)

    assert found == len(answerable)


# Bounds


def test_a_document_that_takes_too_long_is_given_up_and_the_next_one_is_read(tmp_path: Path) -> None:
    parser = Parser(wall_seconds=4)
    slow = _written(tmp_path, "slow.txt", b"A line of words, and no end.\n" * 3_000_000)

    assert _refusal(parser, slow).code == "PARSE_TIMEOUT"
    assert _text(parser.parse(_written(tmp_path, "quick.txt", b"Quick."), "quick.txt")) == "Quick."
    parser.close()


@pytest.mark.parametrize(
    ("name", "start", "repeated"),
    [("python.json", b"[1", b',{"a":1}'), ("native.rtf", b"{\\rtf1 ", b"word \\par ")],
)
def test_a_document_that_takes_too_much_memory_is_given_up(
    tmp_path: Path, name: str, start: bytes, repeated: bytes
) -> None:
    parser = Parser(memory_mebibytes=300)

    assert _refusal(parser, _written(tmp_path, name, start + repeated * 2_000_000)).code == "PARSE_MEMORY"
    parser.close()


def test_the_limits_reach_the_child(tmp_path: Path) -> None:
    path = _written(tmp_path, "a.txt", b"words and more words")

    small = Parser(limits=Limits(characters=10))
    assert _refusal(small, path).code == "TOO_MUCH_TEXT"
    small.close()


def test_a_helper_killed_from_outside_is_replaced_without_the_document_noticing(tmp_path: Path) -> None:
    others = _helpers(os.getpid())
    parser = Parser()
    path = _written(tmp_path, "a.txt", b"Still here.")
    parser.parse(path, "a.txt")

    (pid,) = _helpers(os.getpid()) - others
    os.kill(pid, signal.SIGKILL)

    assert _text(parser.parse(path, "a.txt")) == "Still here."
    parser.close()
    assert _helpers(os.getpid()) == others


def test_a_section_comes_from_the_child_with_all_that_it_is(parser: Parser, tmp_path: Path) -> None:
    path = _written(tmp_path, "a.csv", b"Team,City,Cups\nMaple Leafs,Toronto,13\n")

    text = "Team | City | Cups\nTeam: Maple Leafs | City: Toronto | Cups: 13"
    assert list(parser.parse(path, "a.csv").sections) == [Section(text, rows="\n")]


def test_many_threads_share_one_parser(parser: Parser, tmp_path: Path) -> None:
    found: dict[int, str] = {}

    def parse(number: int) -> None:
        path = _written(tmp_path, f"{number}.txt", f"Number {number}.".encode())
        found[number] = _text(parser.parse(path, path.name))

    threads = [threading.Thread(target=parse, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == {number: f"Number {number}." for number in range(8)}


# What the child may do


@pytest.mark.skipif(sys.platform != "linux", reason="the system call filter is Linux's")
@pytest.mark.parametrize(
    "attempt",
    [
        "socket.socket()",
        "socket.create_connection(('127.0.0.1', 9))",
        "os.execv('/bin/true', ['true'])",
        "os.kill(os.getppid(), 0)",
        "signal.pidfd_send_signal(0, 0)",
        "subprocess.run(['true'])",
    ],
)
def test_a_confined_process_reaches_no_network_and_starts_no_program(attempt: str) -> None:
    program = f"""
        import os, signal, socket, subprocess, sys
        from rag.confinement import Bounds, confine
        confine(Bounds(10, 10, 1024))
        try:
            {attempt}
        except PermissionError:
            sys.exit(42)
    """

    assert subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False).returncode == 42


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_helper_holds_none_of_our_secrets_and_a_private_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    others = _helpers(os.getpid())
    parser = Parser()
    parser.parse(_written(tmp_path, "a.txt", b"Hello."), "a.txt")

    (pid,) = _helpers(os.getpid()) - others
    directory = Path(f"/proc/{pid}/cwd").readlink()

    assert b"hush-hush" not in Path(f"/proc/{pid}/environ").read_bytes()
    assert directory.stat().st_mode & 0o077 == 0
    parser.close()
    assert not directory.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nothing_is_left_when_the_process_that_parses_is_killed(tmp_path: Path) -> None:
    path = _written(tmp_path, "a.txt", b"A line of words, and no end.\n" * 3_000_000)
    program = f"""
        from pathlib import Path
        from rag.parser import Parser
        Parser().parse(Path({str(path)!r}), "a.txt")
    """
    owner = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)])
    assert _until(lambda: any(_children(helper) for helper in _helpers(owner.pid)))
    (helper,) = _helpers(owner.pid)
    (child,) = _children(helper)
    directory = Path(f"/proc/{helper}/cwd").readlink()

    owner.kill()
    owner.wait()

    assert _until(lambda: not _alive(helper) and not _alive(child) and not directory.exists())


def _helpers(owner: int) -> set[int]:
    return {pid for pid in _children(owner) if _alive(pid) and _is_helper(pid)}


def _is_helper(pid: int) -> bool:
    return b"rag.parser_child" in Path(f"/proc/{pid}/cmdline").read_bytes()


def _children(owner: int) -> list[int]:
    listings = Path(f"/proc/{owner}/task").glob("*/children")
    return [int(pid) for listing in listings for pid in listing.read_text(encoding="utf-8").split()]
