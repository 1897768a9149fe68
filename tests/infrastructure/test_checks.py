"""Each promise of the table holds in each stage that it is given for, and is broken by the fault that it is about."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cdk.templates import Templates
from tests.infrastructure.checks import api, data, functions, operations, storage
from tests.infrastructure.checks.estate import Estate
from tests.infrastructure.checks.table import ALL, CHECKS, PROTECTED, Check

AREAS = (api, data, functions, operations, storage)
ROWS = [(check, stage) for check in CHECKS for stage in check.stages]


def name(value: Any) -> str:
    return value.find.__name__ if isinstance(value, Check) else str(value)


@pytest.fixture(scope="session")
def estates(templates: Templates, assembly: Path) -> dict[str, Estate]:
    return {stage: Estate.of_stage(stage, stacks, manifest(assembly, stage)) for stage, stacks in templates.items()}


def manifest(assembly: Path, stage: str) -> dict[str, dict[str, Any]]:
    artifacts = json.loads((assembly / f"assembly-{stage}" / "manifest.json").read_text())["artifacts"].values()
    return {each["displayName"]: each["properties"] for each in artifacts if each["type"] == "aws:cloudformation:stack"}


@pytest.mark.parametrize(("check", "stage"), ROWS, ids=name)
def test_a_promise_holds(check: Check, stage: str, estates: dict[str, Estate]) -> None:
    broken = list(check.find(estates[stage]))
    assert not broken, "\n".join([f"{check.area}, {stage}: {check.promise}", *broken])


@pytest.mark.parametrize("check", CHECKS, ids=name)
def test_a_promise_is_broken_by_the_fault_that_it_is_about(check: Check, estates: dict[str, Estate]) -> None:
    estate = estates[check.stages[-1]]
    spoiled = check.spoil.planted(estate)
    assert spoiled.stacks != estate.stacks, f"there is no place for the fault {check.spoil}"
    assert set(check.find(spoiled)) - set(check.find(estate))


def test_a_function_that_anybody_may_call_is_noticed(estates: dict[str, Estate]) -> None:
    stacks = copy.deepcopy(estates["dev"].stacks)
    stacks["service"]["Resources"]["Open"] = {"Type": "AWS::Lambda::Url", "Properties": {"AuthType": "NONE"}}
    open_to_all = Estate(estates["dev"].stage, stacks, estates["dev"].manifest)
    assert list(functions.no_function_has_an_address(open_to_all)) == ["service/Open"]


@pytest.mark.parametrize("stage", PROTECTED)
def test_no_stack_of_a_protected_stage_is_deleted_by_mistake(stage: str, estates: dict[str, Estate]) -> None:
    assert operations.unprotected(estates[stage]) == []


@pytest.mark.parametrize("stage", ALL)
def test_every_stack_says_whose_it_is(stage: str, estates: dict[str, Estate]) -> None:
    assert operations.untagged(estates[stage]) == []


def test_the_table_is_counted(estates: dict[str, Estate]) -> None:
    areas = Counter(check.area for check in CHECKS for _ in check.stages)
    print(f"infra checks: {len(CHECKS)} checks, {len(ROWS)} checks x stages: {dict(areas)}")
    for stage, estate in estates.items():
        everything = functions.wildcards(estate)
        actions = sorted({each.rpartition(": ")[2] for each in everything})
        print(f"{stage}: {len(everything)} wildcards (actions allowed on *): {', '.join(actions)}")
    assert set(estates) == set(ALL)
    assert len({check.find.__name__ for check in CHECKS}) == len(CHECKS)
    assert all(check.promise for check in CHECKS)
