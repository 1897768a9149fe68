"""What GitHub runs: pinned, with the least permissions, without keys, and only commands that exist."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from local.cli.app import app
from local.evaluation.collection import read_questions

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# What a job may ask for beyond reading the code, and which may.
WRITES = {
    ("check", "scan"): {"security-events": "write"},
    ("check", "diff"): {"id-token": "write", "pull-requests": "write"},
    ("deploy", "dev"): {"id-token": "write"},
    ("deploy", "staging"): {"id-token": "write"},
    ("deploy", "prod"): {"id-token": "write"},
}
TASKS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["poe"]["tasks"])
COMMANDS = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]  # a group has them
CDK = {"bootstrap", "deploy", "destroy", "diff", "synth"}


def workflow(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


JOBS = [(path.stem, name, job) for path in WORKFLOWS for name, job in workflow(path)["jobs"].items()]


def commands(text: str) -> list[str]:
    """The `poe`, `rag` and `cdk` calls of a script that name something which does not exist."""
    unknown = [f"poe {name}" for name in re.findall(r"\bpoe ([a-z-]+)", text) if name not in TASKS]
    unknown += [f"rag {name}" for name in re.findall(r"\brag ([a-z-]+)", text) if name not in COMMANDS]
    return unknown + [f"cdk {name}" for name in re.findall(r"\bcdk ([a-z-]+)", text) if name not in CDK]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_do_nothing_unless_a_job_says_so(path: Path) -> None:
    assert workflow(path)["permissions"] == {}


@pytest.mark.parametrize(("stem", "name", "job"), JOBS, ids=[f"{stem}-{name}" for stem, name, _ in JOBS])
def test_a_job_has_the_permissions_that_its_work_needs_and_an_end(stem: str, name: str, job: dict[str, Any]) -> None:
    assert job["permissions"] == {"contents": "read"} | WRITES.get((stem, name), {})
    assert job["timeout-minutes"] <= 60


@pytest.mark.parametrize(("stem", "name", "job"), JOBS, ids=[f"{stem}-{name}" for stem, name, _ in JOBS])
def test_a_job_runs_pinned_actions_and_commands_that_exist(stem: str, name: str, job: dict[str, Any]) -> None:
    for step in job["steps"]:
        assert re.fullmatch(r"[\w-]+(/[\w-]+)+@[0-9a-f]{40}", step.get("uses", "a/b@" + "0" * 40)), step
        assert commands(step.get("run", "")) == []
        # An expression in a script is text that somebody else may have written.
        assert "${{" not in step.get("run", "")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_holds_no_key_and_reads_no_secret(path: Path) -> None:
    text = path.read_text()
    assert re.findall(r"secrets\.\w+|AKIA\w+|aws-access-key-id|aws-secret-access-key", text) == []
    assert set(re.findall(r"role-to-assume: (.*)", text)) <= {
        "${{ vars.AWS_DEPLOY_ROLE_ARN }}",
        "${{ vars.AWS_DIFF_ROLE_ARN }}",
        "${{ vars.AWS_SMOKE_ROLE_ARN }}",
    }


def test_every_pin_says_which_version_it_is() -> None:
    lines = [line for path in WORKFLOWS for line in path.read_text().splitlines() if "uses:" in line]
    assert lines
    assert [line for line in lines if not re.search(r"@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line)] == []


def test_the_way_to_prod_leads_through_staging_and_its_gate() -> None:
    jobs = workflow(ROOT / ".github" / "workflows" / "deploy.yml")["jobs"]
    assert {name: job.get("needs") for name, job in jobs.items()} == {"dev": None, "staging": "dev", "prod": "staging"}
    assert {name: job["environment"] for name, job in jobs.items()} == {name: name for name in jobs}
    for name, job in jobs.items():
        [deployed] = [step["run"] for step in job["steps"] if "cdk deploy" in step.get("run", "")]
        assert f'"{name}/*"' in deployed
    assert "rag eval" in json.dumps(jobs["staging"]["steps"])


def test_the_gate_asks_questions_of_documents_that_are_there() -> None:
    questions = read_questions(ROOT / "tests" / "evaluation" / "questions.jsonl")
    assert questions
    lines = (ROOT / "tests" / "evaluation" / "questions.jsonl").read_text().splitlines()
    assert {json.loads(line)["file"] for line in lines} <= {
        path.name for path in (ROOT / "local" / "samples").iterdir()
    }
    assert json.loads((ROOT / "tests" / "evaluation" / "gate.json").read_text()).keys() == {"questions"}


def test_the_cdks_command_line_is_pinned_from_the_public_registry() -> None:
    wanted = json.loads((ROOT / "package.json").read_text())["devDependencies"]
    locked = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    assert wanted == {"aws-cdk": locked["node_modules/aws-cdk"]["version"]}
    for name, package in locked.items():
        if name:
            assert package["resolved"].startswith("https://registry.npmjs.org/")
            assert package["integrity"].startswith("sha512-")


def test_a_command_that_does_not_exist_would_be_seen() -> None:
    assert commands("uv run poe nothing && uv run rag cost --stage dev && npx cdk fly") == ["poe nothing", "cdk fly"]
