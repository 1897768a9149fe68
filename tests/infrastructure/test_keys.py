from __future__ import annotations

import pytest

from cdk.stages import STAGES, Stage
from tests.infrastructure.conftest import Templates
from tests.infrastructure.reading import properties, resources, text

per_stage = pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)


@per_stage
def test_there_is_a_key_for_data_one_for_logs_and_one_for_backups_or_none(templates: Templates, stage: Stage) -> None:
    aliases = {alias["AliasName"] for alias in properties(templates[stage.name]["data"], "AWS::KMS::Alias")}
    assert aliases == ({f"alias/rag/{stage.name}/{n}" for n in ("data", "logs", "backup")} if stage.own_keys else set())


@per_stage
def test_keys_rotate_and_outlive_their_stack(templates: Templates, stage: Stage) -> None:
    keys = resources(templates[stage.name]["data"], "AWS::KMS::Key").values()
    assert len(keys) == (3 if stage.own_keys else 0)
    for key in keys:
        assert key["Properties"]["EnableKeyRotation"] is True
        assert (key["DeletionPolicy"], key["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")


@per_stage
def test_no_key_is_open_to_everybody_and_a_service_only_acts_for_this_account(
    templates: Templates, stage: Stage
) -> None:
    statements = [
        statement
        for key in properties(templates[stage.name]["data"], "AWS::KMS::Key")
        for statement in key["KeyPolicy"]["Statement"]
    ]
    assert bool(statements) == stage.own_keys
    assert not [s for s in statements if s["Principal"] == "*" or s["Principal"].get("AWS") == "*"]
    for statement in statements:
        if "Service" in statement["Principal"]:
            assert "AWS::AccountId" in text(statement["Condition"])
