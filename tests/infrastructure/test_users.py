"""People sign in with a second factor, by a page that keeps no secret, as one of three roles."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from cdk.stages import DEV, STAGES
from cdk.templates import Templates
from cdk.users import ROLES
from rag.oidc import Issuer
from rag.settings import Settings
from rag.types import Role
from tests.infrastructure.reading import only, properties, resources, starting, template_of

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
    # His address is all that he may write: role and tenant are groups, into which administrators put him.
    assert client["WriteAttributes"] == ["email"]


def test_prod_keeps_its_users_and_looks_out_for_stolen_passwords(templates: Templates) -> None:
    [pool] = resources(templates["prod"]["service"], "AWS::Cognito::UserPool").values()
    assert pool["DeletionPolicy"] == "Retain"
    assert pool["Properties"]["DeletionProtection"] == "ACTIVE"
    assert pool["Properties"]["UserPoolAddOns"]["AdvancedSecurityMode"] == "ENFORCED"


@pytest.mark.parametrize("stage", NAMES)
def test_the_authorizer_takes_access_tokens_of_the_page_of_this_pool_and_of_nobody_else(
    templates: Templates, stage: str
) -> None:
    service = templates[stage]["service"]
    authorize = starting(service, "AWS::Lambda::Function", "Authorize")["Properties"]["Environment"]["Variables"]
    [pool], [client] = (resources(service, f"AWS::Cognito::UserPool{kind}") for kind in ("", "Client"))
    filled = {"AWS::Region": "eu-central-1", "AWS::URLSuffix": "amazonaws.com", pool: "pool-1", client: "client-1"}
    parts = authorize["RAG_OIDC"]["Fn::Join"][1]
    [told] = Settings(oidc="".join(part if isinstance(part, str) else filled[part["Ref"]] for part in parts)).oidc
    assert told.issuer == "https://cognito-idp.eu-central-1.amazonaws.com/pool-1"
    assert (told.client_ids, told.audiences) == (("client-1",), ())
    assert (told.require, told.groups_claim) == ({"token_use": "access"}, "cognito:groups")
    assert set(told.roles) == set(ROLES)


def test_a_companys_own_issuer_is_accepted_where_the_stage_names_it() -> None:
    own = Issuer(issuer="https://acme.example", audiences=("rag",), subject_prefix="acme:")
    service = template_of(replace(DEV, issuers=(own,)), "service")
    told = starting(service, "AWS::Lambda::Function", "Authorize")["Properties"]["Environment"]["Variables"]["RAG_OIDC"]
    assert told["Fn::Join"][1][-1].endswith(
        ', {"issuer": "https://acme.example", "audiences": ["rag"], "subject_prefix": "acme:"}]'
    )
