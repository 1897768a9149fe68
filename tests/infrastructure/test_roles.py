from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from cdk.roles import BOUNDARY
from cdk.stages import STAGES, Stage
from tests.infrastructure.conftest import Templates
from tests.infrastructure.reading import as_list, granted, properties, resources, starting, text

bounded = pytest.mark.parametrize("stage", [s for s in STAGES if s.permissions_boundary], ids=lambda stage: stage.name)


@bounded
def test_no_role_is_without_the_boundary(templates: Templates, stage: Stage) -> None:
    for stack in templates[stage.name].values():
        for name, role in resources(stack, "AWS::IAM::Role").items():
            assert "PermissionsBoundary" in role["Properties"], name


@bounded
def test_the_boundary_lets_through_whatever_a_role_is_granted(templates: Templates, stage: Stage) -> None:
    refused = {
        f"{name}: {action}"
        for stack in ("data", "service", "monitoring")
        for name, statement in granted(templates[stage.name][stack])
        for action in as_list(statement["Action"])
        if not any(fnmatchcase(allowed.lower(), action.lower()) for allowed in BOUNDARY)
    }
    assert refused == set()


@bounded
def test_the_boundary_names_each_action_and_none_that_gives_rights(templates: Templates, stage: Stage) -> None:
    policy = starting(templates[stage.name]["data"], "AWS::IAM::ManagedPolicy", "boundary")["Properties"]
    [statement] = policy["PolicyDocument"]["Statement"]
    assert statement["Action"] == sorted(set(BOUNDARY))
    assert not [action for action in BOUNDARY if "*" in action or action.startswith(("iam:", "sts:", "organizations:"))]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_services_that_say_for_whom_they_act_take_a_role_for_this_account_only(
    templates: Templates, stage: Stage
) -> None:
    trusted = {
        text(statement["Principal"]): statement.get("Condition")
        for role in properties(templates[stage.name]["data"], "AWS::IAM::Role")
        for statement in as_list(role["AssumeRolePolicyDocument"]["Statement"])
    }
    mine = {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}
    saying = {service for service in trusted if "vpc-flow-logs" in service or "monitoring.rds" in service}
    assert len(saying) == (2 if stage.enhanced_monitoring else 1)
    assert all(trusted[service] == mine for service in saying)
