"""What a function is told on AWS is what it is told on a laptop, and what can be set."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cdk.stages import STAGES
from cdk.templates import Templates
from functions.table import FUNCTIONS, OWNER, ROLES, FunctionRow
from local import environment
from local.aws import Credentials
from rag.settings import PREFIX, Settings
from tests.infrastructure.reading import properties

CASES = [(stage.name, row) for stage in STAGES for row in FUNCTIONS]
ON_AWS = pytest.mark.parametrize(("stage", "row"), CASES, ids=[f"{row.name}-{stage}" for stage, row in CASES])
# Why a name stands on one side only.
ONLY_ON_A_LAPTOP = {
    "RAG_TOKENIZER_PATH": "the laptop's model has its tokenizer here; of a model elsewhere tokens are estimated",
    "RAG_ROLE_SECRETS": "passwords of roles: on AWS they log in by IAM",
    "RAG_WEBHOOK_SECRET": "a stage has one with a webhook only; here its address may be given at any time",
}
NOT_BY_IAM = {"RAG_DATABASE_SECRET": "on AWS only the owner logs in by a password"}


def variables(templates: Templates, stage: str, row: FunctionRow) -> dict[str, Any]:
    [found] = [
        each["Environment"]["Variables"]
        for each in properties(templates[stage]["service"], "AWS::Lambda::Function")
        if each.get("FunctionName") == f"rag-{stage}-{row.name}"
    ]
    return dict(found)


def resolved(value: Any) -> str:
    """As CloudFormation would fill it in, with a word for what only AWS knows."""
    match value:
        case str():
            return value
        case {"Fn::Join": [separator, parts]}:
            return str(separator).join(map(resolved, parts))
        case _:
            return "only-aws-knows"


@ON_AWS
def test_every_variable_can_be_set(templates: Templates, stage: str, row: FunctionRow) -> None:
    given = {name: resolved(value) for name, value in variables(templates, stage, row).items()}
    settings = Settings.from_environment(given)
    assert settings.stage == stage
    assert settings.database_auth == ("password" if row.role == OWNER else "iam")
    assert f"//{row.role}@" in settings.database_url
    assert "sslmode=verify-full" in settings.database_url
    assert settings.redis_url.startswith(("rediss://", "") if "cache" in row.uses else "")


@ON_AWS
def test_the_laptop_is_told_the_same(templates: Templates, stage: str, row: FunctionRow) -> None:
    addresses = environment.Addresses(
        aws_url="http://aws",
        queue_url="http://queue",
        maintenance_queue_url="http://maintenance",
        erasure_queue_url="http://erase",
        postgres_port=1,
        redis_port=2,
        aws_credentials=Credentials("id", "secret"),
    )
    local = set(environment.settings_of(row, addresses, environment.local_model("http://model/v1")))
    deployed = {name for name in variables(templates, stage, row) if name.startswith(PREFIX)}
    unneeded = set(ONLY_ON_A_LAPTOP) | (set() if row.role == OWNER else set(NOT_BY_IAM))
    assert deployed == local - unneeded


@pytest.mark.parametrize("stage", [stage.name for stage in STAGES])
def test_migrate_lets_every_role_in_by_iam(templates: Templates, stage: str) -> None:
    [migrate] = [row for row in FUNCTIONS if "roles" in row.uses]
    assert json.loads(variables(templates, stage, migrate)["RAG_IAM_ROLES"]) == list(ROLES)


@ON_AWS
def test_secrets_are_named_and_never_held(templates: Templates, stage: str, row: FunctionRow) -> None:
    given = variables(templates, stage, row)
    secrets = {name: value for name, value in given.items() if name.endswith("_SECRET")}
    assert all(isinstance(value, dict) and set(value) <= {"Ref", "Fn::ImportValue"} for value in secrets.values())
