"""Every function of the table is deployed as its row says, with rights of its own and no more."""

from __future__ import annotations

from typing import Any

import pytest

from cdk.stages import STAGES
from cdk.templates import Templates
from functions.table import (
    ANSWER,
    ERASE,
    FUNCTIONS,
    INGEST,
    MAINTAIN,
    NOTIFY,
    OWNER,
    QUERY,
    RECONCILE,
    TENANTS,
    FunctionRow,
)
from rag.settings import Settings
from rag.telemetry import NAMESPACE
from tests.infrastructure.reading import as_list, only, properties, resources, starting, text

CASES = [(stage.name, row) for stage in STAGES for row in FUNCTIONS]
EACH = pytest.mark.parametrize(("stage", "row"), CASES, ids=[f"{row.name}-{stage}" for stage, row in CASES])
BY_NAME = {stage.name: stage for stage in STAGES}


def deployed(templates: Templates, stage: str, row: FunctionRow) -> dict[str, Any]:
    found = properties(templates[stage]["service"], "AWS::Lambda::Function")
    [function] = [each for each in found if each.get("FunctionName") == f"rag-{stage}-{row.name}"]
    return function


def actions(templates: Templates, stage: str, row: FunctionRow) -> dict[str, list[Any]]:
    """What its role may do → to what."""
    policy = starting(templates[stage]["service"], "AWS::IAM::ManagedPolicy", f"{row.name.capitalize()}Policy")[
        "Properties"
    ]
    allowed: dict[str, list[Any]] = {}
    for statement in policy["PolicyDocument"]["Statement"]:
        for action in as_list(statement["Action"]) if statement["Effect"] == "Allow" else []:
            allowed.setdefault(action, []).extend(as_list(statement["Resource"]))
    return allowed


@EACH
def test_it_has_the_limits_of_its_row(templates: Templates, stage: str, row: FunctionRow) -> None:
    function = deployed(templates, stage, row)
    assert (function["Timeout"], function["MemorySize"], function["Handler"]) == (
        row.timeout_seconds,
        row.memory_mib,
        row.handler,
    )
    variables = function["Environment"]["Variables"]
    assert variables.items() >= row.environment.items()
    assert row.environment["POWERTOOLS_METRICS_NAMESPACE"] == NAMESPACE
    assert variables.get("AWS_LAMBDA_EXEC_WRAPPER") == (f"/var/task/{row.wrapper}" if row.wrapper else None)
    starts_ahead = BY_NAME[stage].snap_start and row.warm
    assert function.get("SnapStart") == ({"ApplyOn": "PublishedVersions"} if starts_ahead else None)


@EACH
def test_what_is_called_is_a_published_version_and_old_ones_go(
    templates: Templates, stage: str, row: FunctionRow
) -> None:
    name = row.name.capitalize()
    alias = starting(templates[stage]["service"], "AWS::Lambda::Alias", f"{name}Live")["Properties"]
    assert alias["Name"] == "live"
    [version] = alias["FunctionVersion"]["Fn::GetAtt"][:1]
    assert templates[stage]["service"]["Resources"][version]["DeletionPolicy"] == "Delete"


@EACH
def test_it_connects_as_its_own_role_only(templates: Templates, stage: str, row: FunctionRow) -> None:
    connecting = actions(templates, stage, row).get("rds-db:connect", [])
    if row.role == OWNER:
        assert connecting == []
    else:
        [user] = connecting
        assert text(user).count(f"/{row.role}") == 1
        assert "*" not in text(user)


@EACH
def test_it_may_do_to_documents_what_its_work_is(templates: Templates, stage: str, row: FunctionRow) -> None:
    reading = {"s3:GetObject", "s3:GetObjectVersion", "s3:ListBucket"}
    wanted = {
        INGEST: reading,
        NOTIFY: reading,
        # It signs uploads in its own name.
        QUERY: reading | {"s3:PutObject"},
        ERASE: {"s3:ListBucketVersions", "s3:DeleteObject", "s3:DeleteObjectVersion"},
        # It reads none; what it writes is the canary.
        RECONCILE: {"s3:ListBucketVersions", "s3:PutObject", "s3:DeleteObject"},
    }
    assert {action for action in actions(templates, stage, row) if action.startswith("s3:")} == wanted.get(row, set())


@EACH
def test_the_right_to_make_interfaces_is_lambdas_and_not_the_codes(
    templates: Templates, stage: str, row: FunctionRow
) -> None:
    policy = starting(templates[stage]["service"], "AWS::IAM::ManagedPolicy", f"{row.name.capitalize()}Policy")
    statements = policy["Properties"]["PolicyDocument"]["Statement"]
    given = {action for action in actions(templates, stage, row) if action.startswith("ec2:")}
    [denied] = [statement for statement in statements if statement["Effect"] == "Deny"]
    assert given == set(denied["Action"])
    assert f"rag-{stage}-{row.name}" in text(denied["Condition"]["ArnEquals"]["lambda:SourceFunctionArn"])


@pytest.mark.parametrize("stage", list(BY_NAME))
def test_nobody_but_people_calls_the_administrators_function(templates: Templates, stage: str) -> None:
    template = templates[stage]["service"]
    for kind in ("AWS::Lambda::Permission", "AWS::Lambda::EventSourceMapping", "AWS::Scheduler::Schedule"):
        assert TENANTS.name.capitalize() not in text(resources(template, kind))


def test_a_new_version_is_tried_on_a_tenth_of_the_requests_and_taken_back(templates: Templates) -> None:
    groups = properties(templates["prod"]["service"], "AWS::CodeDeploy::DeploymentGroup")
    assert {group["DeploymentGroupName"] for group in groups} == {f"rag-prod-{row.name}" for row in (QUERY, ANSWER)}
    for group in groups:
        assert group["DeploymentConfigName"] == "CodeDeployDefault.LambdaCanary10Percent5Minutes"
        assert len(group["AlarmConfiguration"]["Alarms"]) == 2
        assert "DEPLOYMENT_STOP_ON_ALARM" in group["AutoRollbackConfiguration"]["Events"]
    aliases = resources(templates["prod"]["service"], "AWS::Lambda::Alias")
    shifted = {name[: -len("Live") - 8] for name, alias in aliases.items() if "UpdatePolicy" in alias}
    assert shifted == {"Query", "Answer"}
    # An alias waits for its deployment group, which waits for this policy: a reference back would be a cycle.
    policies = resources(templates["prod"]["service"], "AWS::IAM::ManagedPolicy")
    assert not [name for name, policy in policies.items() if name.startswith("Canary") and "Live" in text(policy)]


@pytest.mark.parametrize("stage", ["staging", "prod"])
def test_all_sandboxes_together_leave_connections_over(templates: Templates, stage: str) -> None:
    reserved = [deployed(templates, stage, row)["ReservedConcurrentExecutions"] for row in FUNCTIONS]
    # maintain holds two connections: one has the lock, the other weighs chunks anew; ingest one for each document.
    more = {MAINTAIN: 1, INGEST: Settings().ingest_threads - 1}
    several = [count * deployed(templates, stage, row)["ReservedConcurrentExecutions"] for row, count in more.items()]
    assert sum(reserved) + sum(several) <= 0.8 * BY_NAME[stage].database_connections


@pytest.mark.parametrize("stage", list(BY_NAME))
def test_the_models_key_is_for_the_operator_to_fill(templates: Templates, stage: str) -> None:
    secret = only(templates[stage]["service"], "AWS::SecretsManager::Secret")
    assert "SecretString" not in secret
    assert secret["Name"] == f"rag/{stage}/model"
