"""What the deployment guide tells people to type exists."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from cdk.stages import STAGES, Stage
from functions.table import FUNCTIONS
from tests.unit.test_workflows import COMMANDS, commands

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "deployment.md").read_text()


def test_every_command_of_the_guide_exists() -> None:
    assert commands("\n".join(re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL))) == []
    assert commands("\n".join(re.findall(r"`((?:uv run|npx) [^`]*)`", GUIDE))) == []


def test_every_client_command_is_said_to_work_against_a_stage_or_not_to() -> None:
    [said] = re.findall(r"^(`put`.*?)\n\n", GUIDE, re.MULTILINE | re.DOTALL)
    assert {name.split()[0] for name in re.findall(r"`([a-z ]+)`", said)} == COMMANDS


def test_every_option_of_a_stage_in_the_guide_exists() -> None:
    table = GUIDE.split("## Options of a stage")[1].split("## ")[0]
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert named
    assert named <= {field.name for field in fields(Stage)}


def test_every_function_that_the_guide_invokes_exists() -> None:
    invoked = re.findall(r"--function-name rag-dev-(\w+)", GUIDE)
    assert invoked
    assert set(invoked) <= {row.name for row in FUNCTIONS}


def test_the_days_of_recovery_are_those_of_the_stages() -> None:
    first, second, third = (stage.recovery_days for stage in STAGES)
    assert f"{first}, {second} and {third} days in dev, staging and prod" in GUIDE


def test_every_stage_can_be_deployed_by_the_guides_own_words() -> None:
    assert set(re.findall(r'cdk deploy "(\w+)/\*"', GUIDE)) == {stage.name for stage in STAGES}
