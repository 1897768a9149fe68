"""People sign in with a second factor, by a page that keeps no secret, as one of three roles."""

from __future__ import annotations

from typing import get_args

import pytest

from cdk.stages import STAGES
from cdk.templates import Templates
from cdk.users import ROLES
from rag.types import Role
from tests.infrastructure.reading import only, properties, resources

NAMES = [stage.name for stage in STAGES]


def test_the_roles_are_those_of_api_keys() -> None:
    assert set(ROLES) == set(get_args(Role))


@pytest.mark.parametrize("stage", NAMES)
def test_nobody_signs_up_and_everybody_has_a_second_factor(templates: Templates, stage: str) -> None:
    pool = only(templates[stage]["service"], "AWS::Cognito::UserPool")
    assert pool["AdminCreateUserConfig"]["AllowAdminCreateUserOnly"] is True
    assert (pool["MfaConfiguration"], pool["EnabledMfas"]) == ("ON", ["SOFTWARE_TOKEN_MFA"])
    assert pool["Policies"]["PasswordPolicy"]["MinimumLength"] >= 14
    groups = properties(templates[stage]["service"], "AWS::Cognito::UserPoolGroup")
    assert {group["GroupName"] for group in groups} == set(ROLES)


@pytest.mark.parametrize("stage", NAMES)
def test_a_page_signs_in_by_a_code_and_tells_nobody_who_exists(templates: Templates, stage: str) -> None:
    client = only(templates[stage]["service"], "AWS::Cognito::UserPoolClient")
    assert client["GenerateSecret"] is False
    assert client["AllowedOAuthFlows"] == ["code"]
    assert client["PreventUserExistenceErrors"] == "ENABLED"
    assert client["EnableTokenRevocation"] is True
    # Of which tenant somebody is, is nothing that he may write.
    assert "custom:tenant_id" not in client["WriteAttributes"]


def test_prod_keeps_its_users_and_looks_out_for_stolen_passwords(templates: Templates) -> None:
    [pool] = resources(templates["prod"]["service"], "AWS::Cognito::UserPool").values()
    assert pool["DeletionPolicy"] == "Retain"
    assert pool["Properties"]["DeletionProtection"] == "ACTIVE"
    assert pool["Properties"]["UserPoolAddOns"]["AdvancedSecurityMode"] == "ENFORCED"
