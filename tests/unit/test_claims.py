"""What the claims of a verified token make of its user."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest
from pydantic import ValidationError

from rag import claims
from rag.errors import ForbiddenError, NotAuthorizedError
from rag.oidc import Issuer
from rag.settings import Settings
from rag.types import Caller

TENANT = uuid.UUID("6f1d3c1e-54b5-4b6e-9c63-0b9f2a1d7c55")
ISSUER = Issuer(issuer="https://issuer.example", audiences=("rag",))
NOW = int(time.time())
USER: dict[str, Any] = {"sub": "u-1", "iat": NOW, "exp": NOW + 900, "tenant_id": str(TENANT), "groups": ["reader"]}


def issuer(**others: Any) -> Issuer:
    return Issuer(**{"issuer": "https://issuer.example", "audiences": ["rag"], **others})


def test_the_highest_role_counts_and_every_other_group_is_one() -> None:
    groups = ["reader", "finance", "admin", "staff", "finance"]
    found = claims.caller(USER | {"groups": groups}, ISSUER)
    assert found == Caller(TENANT, "user:u-1", "admin", None, ("finance", "staff"))


def test_groups_give_the_roles_that_the_operator_says() -> None:
    named = issuer(groups_claim="cognito:groups", roles={"staff": "reader", "librarians": "writer"})
    found = claims.caller({**USER, "cognito:groups": ["admin", "staff", "librarians"]}, named)
    assert (found.role, found.groups) == ("writer", ("admin",))


@pytest.mark.parametrize("groups", [[], ["finance"], ["Admin"]])
def test_whoever_has_no_role_is_known_and_may_do_nothing(groups: list[str]) -> None:
    with pytest.raises(ForbiddenError, match="role"):
        claims.caller(USER | {"groups": groups}, ISSUER)


def test_an_address_counts_when_the_issuer_has_verified_it() -> None:
    said = {"email": "Ann@Example.com", "email_verified": True}
    found = claims.caller(USER | said | {"groups": ["reader", "finance"]}, ISSUER)
    assert found.identities == ("user:u-1", "user:ann@example.com", "group:finance")


@pytest.mark.parametrize(
    "said",
    [
        {"email": "ann@example.com"},
        {"email": "ann@example.com", "email_verified": False},
        {"email": "ann@example.com", "email_verified": "true"},
        {"email": "ann@example.com", "email_verified": 1},
        {"email": "ann", "email_verified": True},
        {"email": ["ann@example.com"], "email_verified": True},
        {"email": f"{'a' * 400}@example.com", "email_verified": True},
        {"email_verified": True},
    ],
    ids=repr,
)
def test_any_other_address_is_none(said: dict[str, Any]) -> None:
    assert claims.caller(USER | said, ISSUER).email is None


def test_an_issuer_of_one_tenant_speaks_for_that_one_whatever_it_says() -> None:
    found = claims.caller(
        USER | {"tenant_id": str(uuid.uuid4())}, issuer(tenant_id=str(TENANT), subject_prefix="okta:")
    )
    assert (found.tenant_id, found.principal) == (TENANT, "user:okta:u-1")


BY_GROUP = issuer(tenant_group_prefix="tenant:")


def test_a_tenant_may_be_a_group_which_is_no_other_group() -> None:
    found = claims.caller({**USER, "tenant_id": None, "groups": ["reader", "finance", f"tenant:{TENANT}"]}, BY_GROUP)
    assert (found.tenant_id, found.groups) == (TENANT, ("finance",))


def test_collections_are_limited_to_those_of_the_claim() -> None:
    limited = issuer(collections_claim="collections")
    assert claims.caller(USER | {"collections": ["manuals"]}, limited).collections == ("manuals",)
    assert claims.caller(USER | {"collections": []}, limited).collections == ()
    assert claims.caller(USER | {"collections": ["manuals"]}, ISSUER).collections is None


REFUSED: dict[str, tuple[dict[str, Any], Issuer]] = {
    "collections are not said": ({}, issuer(collections_claim="collections")),
    "collections are a word": ({"collections": "manuals"}, issuer(collections_claim="collections")),
    "no tenant": ({"tenant_id": None}, ISSUER),
    "a list of tenants": ({"tenant_id": [str(TENANT)]}, ISSUER),
    "a number": ({"tenant_id": 7}, ISSUER),
    "two tenants": ({"tenant_id": f"{TENANT} {TENANT}"}, ISSUER),
    "a tenant in braces": ({"tenant_id": f"{{{TENANT}}}"}, ISSUER),
    "a tenant and a line": ({"tenant_id": f"{TENANT}\n"}, ISSUER),
    "no tenant's group": ({"tenant_id": str(TENANT)}, BY_GROUP),
    "two tenants' groups": ({"groups": ["reader", f"tenant:{TENANT}", f"tenant:{uuid.UUID(int=1)}"]}, BY_GROUP),
    "a tenant's group of no id": ({"groups": ["reader", "tenant:acme"]}, BY_GROUP),
    "no subject": ({"sub": ""}, ISSUER),
    "a subject of two lines": ({"sub": "u-1\nforged"}, ISSUER),
    "a subject too long": ({"sub": "u" * 256}, ISSUER),
    "groups that are a word": ({"groups": "admin"}, ISSUER),
    "groups that are an object": ({"groups": {"admin": True}}, ISSUER),
    "a group that is a number": ({"groups": ["admin", 1]}, ISSUER),
    "too many groups": ({"groups": ["admin", *map(str, range(claims.MOST_NAMES))]}, ISSUER),
    "an ID token": ({"token_use": "id"}, ISSUER),
    "another client": ({"client_id": "other"}, issuer(client_ids=["mine"])),
    "no client": ({}, issuer(client_ids=["mine"])),
    "a claim that is required": ({}, issuer(require={"token_use": "access"})),
    "two days": ({"exp": NOW + 2 * 86_400}, ISSUER),
    "before it begins": ({"exp": NOW - 1}, ISSUER),
    "a time in words": ({"exp": str(NOW + 900)}, ISSUER),
    "a time that is true": ({"iat": True}, ISSUER),
    "a beginning in words": ({"nbf": str(NOW)}, ISSUER),
}


@pytest.mark.parametrize(("said", "by"), REFUSED.values(), ids=REFUSED)
def test_a_claim_that_is_not_exactly_what_it_has_to_be_lets_nobody_in(said: dict[str, Any], by: Issuer) -> None:
    with pytest.raises(NotAuthorizedError):
        claims.caller(USER | said, by)


def settings(*issuers: dict[str, Any], stage: str = "prod") -> Settings:
    return Settings(stage=stage, oidc=[Issuer(**each) for each in issuers])


ONE = {"issuer": "https://one.example", "audiences": ["rag"]}
TWO = {"issuer": "https://two.example", "client_ids": ["c"]}


def test_issuers_are_read_from_json() -> None:
    [read] = Settings.from_environment({"RAG_OIDC": '[{"issuer": "https://one.example", "audiences": ["rag"]}]'}).oidc
    assert (read.issuer, read.audiences, read.tenant_claim) == ("https://one.example", ("rag",), "tenant_id")


def test_two_issuers_keep_their_users_apart() -> None:
    assert settings(ONE, TWO | {"subject_prefix": "two:"})
    assert settings(ONE | {"tenant_id": TENANT}, TWO | {"tenant_id": uuid.uuid4()})
    with pytest.raises(ValidationError, match="subject_prefix"):
        settings(ONE, TWO)
    with pytest.raises(ValidationError, match="subject_prefix"):
        settings(ONE | {"tenant_id": TENANT}, TWO | {"tenant_id": TENANT})
    with pytest.raises(ValidationError, match="twice"):
        settings(ONE, ONE | {"subject_prefix": "again:"})


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "http://one.example"},
        {"issuer": "https://"},
        {"issuer": "https://one.example?x=1"},
        {"jwks_uri": "http://one.example/keys"},
    ],
    ids=repr,
)
def test_keys_come_over_tls_but_on_a_laptop(change: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="https"):
        settings(ONE | change)
    assert settings(ONE | change, stage="local")


def test_an_issuer_without_an_audience_is_refused_with_what_to_do() -> None:
    with pytest.raises(ValidationError, match="name the audiences or the client_ids"):
        settings({"issuer": "https://one.example"})
