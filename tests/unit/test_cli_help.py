"""What `rag --help` teaches, what docs/cli.md promises, and that both are what the commands do."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from local import cli
from local.cli.app import app
from tests.unit.scripted_api import KEY, Api, serving

DOCUMENT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
SHARED = {"--url", "--api-key", "--token", "--data", "--json"}


def _commands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every command by its full name, groups left out."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    for word, below in command.commands.items():
        yield from _commands(below, f"{name} {word}".strip())


COMMANDS = dict(_commands(typer.main.get_command(app)))


def _options(command: Any) -> set[str]:
    named = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    return {option for parameter in named for option in [*parameter.opts, *parameter.secondary_opts]}


def _section(name: str) -> str:
    found = re.search(rf"^## rag {name}\n(.*?)(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert found, f"docs/cli.md has no section on rag {name}"
    return found[1]


def _documented_options(text: str) -> set[str]:
    cells = re.findall(r"^\| (`--.*?) \|", text, re.MULTILINE)
    return {option for cell in cells for option in re.findall(r"--[a-z-]+", cell)}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_each_command_shows_examples_of_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*name.split(), "--help"]) == 0
    printed = capsys.readouterr().out
    assert f"rag {name}" in printed.split("Examples:")[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_use_only_options_that_the_command_has(name: str) -> None:
    examples = [line for line in COMMANDS[name].epilog.splitlines() if f"rag {name}" in line]
    used = {
        option
        for line in examples
        for call in re.findall(rf"rag {name}([^|#)]*)", line)
        for option in re.findall(r"--[a-z-]+", call)
    }
    assert used <= _options(COMMANDS[name])


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_documented_with_exactly_its_options(name: str) -> None:
    own = _options(COMMANDS[name])
    if own >= SHARED:
        own -= SHARED
    assert _documented_options(_section(name)) == own


def test_the_options_that_all_share_are_documented_once() -> None:
    assert _documented_options(DOCUMENT.split("\n## rag ", 1)[0]) == SHARED


def test_no_command_is_documented_that_does_not_exist() -> None:
    assert set(re.findall(r"^## rag (.+)$", DOCUMENT, re.MULTILINE)) == set(COMMANDS)


def test_every_command_of_the_list_is_said_in_a_whole_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["--help"])
    listed = capsys.readouterr().out.split("Commands:")[1].split("Start here:")[0]
    assert "..." not in listed


def test_no_layout_mark_of_the_help_is_left_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ["", *COMMANDS]:
        cli.run([*name.split(), "--help"])
    assert "\b" not in capsys.readouterr().out


def test_help_does_not_wait_for_the_libraries_that_the_commands_need() -> None:
    program = "import sys; from local import cli; cli.run(['--help']); print(*sys.modules)"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert not {"rich", "httpx", "pydantic", "local.platform", "boto3"} & set(printed.splitlines()[-1].split())


def _examples() -> dict[str, Any]:
    """The JSON blocks by the name beside their language: ```json put."""
    return {name: json.loads(text) for name, text in re.findall(r"```json ([a-z ]+)\n(.*?)```", DOCUMENT, re.DOTALL)}


def _shape(value: Any) -> Any:
    """Names of fields and kinds of values; a list has the shape of its first member."""
    if isinstance(value, dict):
        return {name: _shape(field) for name, field in value.items()}
    if isinstance(value, list):
        return [_shape(value[0])] if value else []
    return type(value).__name__


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    with serving() as api:
        monkeypatch.setenv("RAG_URL", api.url)
        monkeypatch.setenv("RAG_API_KEY", KEY)
        yield api


def _printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    cli.run([*arguments, "--json"])
    printed = capsys.readouterr()
    return json.loads(printed.out or printed.err)


def test_put_prints_the_documented_json(api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("text")
    assert _shape(_printed(capsys, "put", str(tmp_path))) == _shape(_examples()["put"])


def test_documents_and_delete_print_the_documented_json(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.add("handbook.pdf")
    assert _shape(_printed(capsys, "documents")) == _shape(_examples()["documents"])
    assert _shape(_printed(capsys, "delete", "handbook.pdf", "--wait")) == _shape(_examples()["delete"])


def test_retry_prints_the_documented_json(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.add("scan.pdf", status="failed", error={"code": "NO_TEXT", "message": "a scan"})
    assert _shape(_printed(capsys, "retry", "scan.pdf")) == _shape(_examples()["retry"])


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("ask", "/v1/query"),
        ("search", "/v1/search"),
        ("collections", "/v1/collections"),
        ("conversations", "/v1/conversations"),
        ("erasures", "/v1/erasures"),
        ("keys list", "/v1/keys"),
        ("keys create", "/v1/keys"),
        ("keys revoke", "/v1/keys/aB3dE5gH"),
        ("keys rotate", "/v1/keys/aB3dE5gH/rotate"),
    ],
)
def test_replies_of_the_api_are_printed_as_they_are(
    api: Api, capsys: pytest.CaptureFixture[str], name: str, path: str
) -> None:
    api.reply(path, _examples()[name])
    given = {"keys create": "name", "keys revoke": "aB3dE5gH", "keys rotate": "aB3dE5gH", "ask": "?", "search": "?"}
    assert _printed(capsys, *name.split(), *([given[name]] if name in given else [])) == _examples()[name]


def test_status_prints_the_documented_json(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.reply("/health", _examples()["status"]["health"])
    api.reply("/v1/collections", {"collections": []})
    assert _shape(_printed(capsys, "status")) == _shape(_examples()["status"])


def test_errors_print_the_documented_json(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.reply("/v1/documents", {"detail": "no", "request_id": "r-1"}, 401)
    assert _shape(_printed(capsys, "documents")) == _shape(_examples()["error"])
