"""The last net: nothing in a template changes unseen, and nothing that holds state is replaced."""

from __future__ import annotations

import copy
import difflib
from pathlib import Path
from typing import Any

import pytest

from cdk.templates import Templates
from tests.infrastructure.create_only import STATEFUL, from_schemas, schemas_beside
from tests.infrastructure.replacement import CREATE_ONLY, replaced
from tests.infrastructure.snapshot import as_text, committed, normalised


def test_every_template_is_as_its_snapshot_says(templates: Templates) -> None:
    now, before = normalised(templates), committed()
    assert set(now) == set(before)
    differences = [
        line
        for stage in now
        for line in difflib.unified_diff(
            as_text(before[stage]).splitlines(),
            as_text(now[stage]).splitlines(),
            f"snapshots/{stage}.json",
            "synthesised",
            lineterm="",
        )
    ]
    assert not differences, "\n".join([*differences[:200], "If this is meant: uv run poe snapshots"])


def test_a_deployment_replaces_nothing_that_holds_state(templates: Templates) -> None:
    lost = replaced(committed(), normalised(templates))
    assert not lost, "\n".join(lost)


def test_every_stage_has_state_that_the_gate_watches(templates: Templates) -> None:
    for stacks in templates.values():
        watched = [each["Type"] for template in stacks.values() for each in template["Resources"].values()]
        assert {"AWS::RDS::DBInstance", "AWS::S3::Bucket", "AWS::EC2::VPC"} <= set(watched) & set(CREATE_ONLY)


DATABASE = {
    "Type": "AWS::RDS::DBInstance",
    "DeletionPolicy": "Snapshot",
    "Properties": {"DBInstanceIdentifier": "rag", "Engine": "postgres", "KmsKeyId": "one", "AllocatedStorage": "20"},
}
BUCKET = {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "documents"}}


def stack(**resources: dict[str, Any]) -> Templates:
    return {"dev": {"data": {"Resources": copy.deepcopy(resources)}}}


def test_a_renamed_logical_id_is_a_deletion() -> None:
    [said] = replaced(stack(Documents=BUCKET), stack(Files=BUCKET))
    assert said == "dev/data/Documents (AWS::S3::Bucket): deleted: its logical id is gone"


def test_a_resource_that_moves_to_another_stack_is_a_deletion() -> None:
    after: Templates = {"dev": {"data": {"Resources": {}}, "service": {"Resources": {"Documents": BUCKET}}}}
    assert "deleted" in "".join(replaced(stack(Documents=BUCKET), after))


@pytest.mark.parametrize("name", ["DBInstanceIdentifier", "Engine", "KmsKeyId"])
def test_a_changed_create_only_property_is_a_replacement(name: str) -> None:
    after = stack(Database=DATABASE)
    after["dev"]["data"]["Resources"]["Database"]["Properties"][name] = "another"
    [said] = replaced(stack(Database=DATABASE), after)
    assert f"replaced: {name} changes" in said


def test_a_renamed_bucket_is_a_replacement() -> None:
    renamed = BUCKET | {"Properties": {"BucketName": "files"}}
    assert "replaced: BucketName" in "".join(replaced(stack(Documents=BUCKET), stack(Documents=renamed)))


def test_a_weaker_deletion_policy_is_told() -> None:
    weaker = DATABASE | {"DeletionPolicy": "Delete"}
    assert "no longer kept" in "".join(replaced(stack(Database=DATABASE), stack(Database=weaker)))


def test_more_storage_replaces_nothing() -> None:
    larger = DATABASE | {"Properties": DATABASE["Properties"] | {"AllocatedStorage": "40"}}  # type: ignore[operator]
    assert replaced(stack(Database=DATABASE), stack(Database=larger)) == []


def test_only_hashes_are_left_out_of_a_snapshot() -> None:
    before = {
        "S3Key": "0" * 64 + ".zip",
        "Ref": "QueryCurrentVersion1E5F5F0A" + "a1" * 16,
        "Name": "rag-dev",
        "Other": "ab" * 16,
    }
    [[template]] = [list(stacks.values()) for stacks in normalised({"dev": {"data": before}}).values()]
    assert template == {
        "S3Key": "<hash>.zip",
        "Ref": "QueryCurrentVersion1E5F5F0A<hash>",
        "Name": "rag-dev",
        "Other": "ab" * 16,
    }


@pytest.mark.slow
def test_the_table_of_create_only_properties_is_what_the_schemas_say(lint_environment: Path) -> None:
    assert set(CREATE_ONLY) == set(STATEFUL)
    assert from_schemas(schemas_beside(lint_environment)) == CREATE_ONLY
