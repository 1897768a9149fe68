from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cdk.stages import PROD, STAGES, Stage
from tests.infrastructure.conftest import Templates
from tests.infrastructure.reading import only, resources, template_of, text

REPOSITORY = "octo-org/octo-repo"


@pytest.fixture(scope="module")
def delivered() -> dict[str, Any]:
    """The stack of a stage whose row names a repository, which none of ours does."""
    return template_of(replace(PROD, github_repository=REPOSITORY), "delivery")


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_without_a_repository_there_is_only_a_policy_that_a_person_is_given(templates: Templates, stage: Stage) -> None:
    assert {found["Type"] for found in templates[stage.name]["delivery"]["Resources"].values()} == {
        "AWS::IAM::ManagedPolicy"
    }


def test_who_deploys_may_take_the_roles_of_the_bootstrap_and_do_nothing_else(delivered: dict[str, Any]) -> None:
    [statement] = only(delivered, "AWS::IAM::ManagedPolicy")["PolicyDocument"]["Statement"]
    assert statement["Action"] == "sts:AssumeRole"
    assert len(statement["Resource"]) == 3
    assert all("role/cdk-hnb659fds-" in text(role) and "*" not in text(role) for role in statement["Resource"])


def test_the_role_is_of_one_repository_and_one_environment(delivered: dict[str, Any]) -> None:
    [statement] = only(delivered, "AWS::IAM::Role")["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    issuer = "token.actions.githubusercontent.com"
    assert statement["Condition"] == {
        "StringEquals": {f"{issuer}:aud": "sts.amazonaws.com", f"{issuer}:sub": f"repo:{REPOSITORY}:environment:prod"}
    }


def test_the_policy_is_also_the_most_that_the_role_can_ever_do(delivered: dict[str, Any]) -> None:
    role = only(delivered, "AWS::IAM::Role")
    assert role["ManagedPolicyArns"] == [role["PermissionsBoundary"]]
    assert not resources(delivered, "AWS::IAM::Policy")


def test_the_provider_is_made_unless_the_account_has_it(delivered: dict[str, Any]) -> None:
    assert only(delivered, "AWS::IAM::OIDCProvider")["ClientIdList"] == ["sts.amazonaws.com"]
    row = replace(PROD, github_repository=REPOSITORY, github_provider=False)
    template = template_of(row, "delivery")
    assert not resources(template, "AWS::IAM::OIDCProvider")
    assert "oidc-provider/token.actions" in text(only(template, "AWS::IAM::Role"))
