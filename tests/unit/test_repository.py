"""Facts that stand in two places are equal in both, and the tree holds nothing that is only true of one machine."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import rag
from functions.table import FUNCTIONS
from local import environment
from local.aws import Credentials
from rag.settings import PREFIX, Settings
from rag.store.statements import statements

ROOT = Path(__file__).resolve().parents[2]
STORE = ROOT / "layers" / "rag" / "python" / "rag" / "store"
INDEX_HOSTS = {"pypi.org", "files.pythonhosted.org"}
RUN_METHODS = {"rows", "first_rows", "last_rows", "run", "run_many", "query", "tell", "statement", "_inside"}


@cache
def tracked() -> tuple[Path, ...]:
    """Every file that git has or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("this is not a clone: git cannot say which files are part of the repository")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return tuple(path for path in paths if path.is_file())


def texts() -> Iterator[tuple[str, str]]:
    for path in tracked():
        body = path.read_bytes()
        if b"\0" not in body:
            yield str(path.relative_to(ROOT)), body.decode(errors="replace")


def project() -> Any:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def folders(place: str) -> set[str]:
    return {path.name for path in (ROOT / place).iterdir() if path.is_dir() and path.name != "__pycache__"}


def store_calls() -> set[str]:
    """The names of statements that the store runs, wherever they stand as the first argument of a call."""
    trees = [ast.parse(path.read_text()) for path in STORE.glob("*.py")]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    named = {
        call.args[0].value: getattr(call.func, "attr", getattr(call.func, "id", None))
        for call in calls
        if isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str)
    }
    return {name for name, method in named.items() if method in RUN_METHODS}


def test_the_lock_file_names_the_public_index_and_nothing_else() -> None:
    hosts = set(re.findall(r"https?://([^/\"\s]+)", (ROOT / "uv.lock").read_text()))
    assert hosts == INDEX_HOSTS


def test_no_file_names_a_place_of_one_machine() -> None:
    places = re.compile("|".join(f"/{folder}/" for folder in ("work", "root")))
    assert [name for name, text in texts() if places.search(text)] == []


def test_nothing_is_left_for_later() -> None:
    unfinished = re.compile("|".join(rf"\b{word}\b" for word in ("TO" + "DO", "FIX" + "ME", "X" * 3)) + "|@@[A-Z]+@@")
    assert [name for name, text in texts() if name != "uv.lock" and unfinished.search(text)] == []


def test_the_readme_starts_with_the_two_commands_that_ci_runs() -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    commands = [block.strip() for block in blocks][:2]
    ran = (ROOT / ".ci" / "run").read_text().splitlines()
    assert len(commands) == 2
    assert [command in ran for command in commands] == [True, True]


def test_every_relative_link_of_the_documentation_leads_somewhere() -> None:
    broken = [
        f"{name}: {target}"
        for name, text in texts()
        if name.endswith(".md")
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)
        if not (ROOT / name).parent.joinpath(target).exists()
    ]
    assert broken == []


def test_a_function_is_a_function_everywhere() -> None:
    assert {row.folder for row in FUNCTIONS} == folders("functions")
    assert {row.name for row in FUNCTIONS} == folders("events")
    for row in FUNCTIONS:
        assert (ROOT / "functions" / row.folder / "handler.py").is_file()
        assert list((ROOT / "events" / row.name).glob("*.json"))
        assert (ROOT / "tests" / "integration" / f"test_{row.name}.py").is_file()


def test_what_starts_a_function_in_the_place_of_the_runtime_can_be_executed() -> None:
    wrappers = [ROOT / row.wrapper for row in FUNCTIONS if row.wrapper]
    assert wrappers
    assert [wrapper.stat().st_mode & 0o777 for wrapper in wrappers] == [0o755] * len(wrappers)


def test_a_route_has_one_integration() -> None:
    routes = [route for row in FUNCTIONS for route in row.streams]
    assert len(set(routes)) == len(routes)


def test_every_event_file_is_used_by_a_test() -> None:
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    events = [str(path.relative_to(ROOT / "events")) for path in (ROOT / "events").rglob("*.json")]
    assert [name for name in events if f'"{name}"' not in tests] == []


def test_the_laptop_sets_only_what_can_be_set() -> None:
    every = {PREFIX + name.upper() for name in Settings.model_fields}
    addresses = environment.Addresses(
        "http://aws", "http://queue", "http://maintenance", "http://erase", 1, 2, Credentials("id", "secret")
    )
    model = environment.local_model("http://model/v1")
    for row in FUNCTIONS:
        given = environment.environment_of(row, addresses, model)
        assert {name for name in given if name.startswith(PREFIX)} <= every
        Settings.from_environment(given)


def test_the_version_is_one() -> None:
    assert project()["project"]["version"] == rag.__version__


def test_every_statement_is_run_and_every_statement_that_is_run_exists() -> None:
    assert store_calls() == set(statements())


@pytest.mark.parametrize("folder", ["layers/rag/python/rag/sql/migrations", "docs/decisions"])
def test_each_migration_and_each_decision_has_a_number_of_its_own(folder: str) -> None:
    paths = sorted((ROOT / folder).iterdir())
    assert [int(path.name[:4]) for path in paths] == list(range(1, len(paths) + 1))


def test_each_decision_is_headed_by_its_number() -> None:
    for path in (ROOT / "docs" / "decisions").iterdir():
        assert path.read_text().startswith(f"# {int(path.name[:4])}. "), path.name


def test_no_statement_outlives_its_transaction() -> None:
    outliving = re.compile(
        r"^\s*(set\s+(?!local\b)|prepare|deallocate|listen|discard|declare|create\b)|\btemp(orary)?\s+table\b"
        r"|\bpg(_try)?_advisory_lock\b|\bset_config\([^()]*,\s*false\s*\)|\bwith\s+hold\b",
        re.IGNORECASE,
    )
    parts = [(name, part) for name, sql in statements().items() for part in sql.split(";")]
    assert [name for name, part in parts if outliving.search(part)] == []


def test_only_the_store_and_the_migrations_speak_to_the_database() -> None:
    package = STORE.parent
    speaking = {
        path.relative_to(package).parts[0]
        for path in package.rglob("*.py")
        if re.search(r"^\s*(import|from) psycopg\b", path.read_text(), re.MULTILINE)
    }
    assert speaking == {"store", "migrations.py"}


def contract(start: str) -> Any:
    [found] = [each for each in project()["tool"]["importlinter"]["contracts"] if each["name"].startswith(start)]
    return found


def test_every_module_has_its_place_in_the_one_direction() -> None:
    package = STORE.parent
    modules = {path.stem for path in package.glob("*.py")} - {"__init__"}
    packages = {path.parent.name for path in package.glob("*/__init__.py")}
    placed = {module for layer in contract("One direction")["layers"] for module in re.split(r"\s*[|:]\s*", layer)}
    assert placed == {f"rag.{name}" for name in modules | packages}


def test_every_function_is_kept_from_the_others() -> None:
    assert set(contract("Functions do not know each other")["modules"]) == {
        f"functions.{name}" for name in folders("functions")
    }
