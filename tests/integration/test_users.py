"""Users by access tokens, through the authorizer's handler: a real issuer, a real database."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from rag import calling
from rag.errors import UnavailableError
from rag.store.database import Database
from rag.store.erasures import ErasureRequests
from rag.types import Caller
from tests.integration.deployment import Context, Deployment, sample
from tests.issuer import Issuer, public, rsa_key, serving

pytestmark = pytest.mark.slow

SAMPLE_TOKEN = "eyJhbGciOiJSUzI1NiJ9.e30.c2lnbmF0dXJl"


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with serving(Issuer()) as served:
        yield served


def authorize(deployment: Deployment, token: str, *oidc: str, headers: dict[str, str] | None = None) -> Any:
    from functions.authorize.handler import handler

    event = json.loads(json.dumps(sample("authorize/token.json")).replace(SAMPLE_TOKEN, token))
    event["headers"] |= headers or {}
    event["multiValueHeaders"] |= {name: [value] for name, value in (headers or {}).items()}
    with deployment.function("rag_authorize", **({"oidc": oidc[0]} if oidc else {})):
        return handler(event, Context())


def test_a_user_is_let_in_as_the_claims_say(deployment: Deployment, issuer: Issuer) -> None:
    token = issuer.token(deployment.tenant, email="ann@example.com", email_verified=True)
    verdict = authorize(deployment, token, issuer.setting())
    assert verdict["principalId"] == "user:u-1"
    expected = Caller(deployment.tenant, "user:u-1", "writer", None, ("finance",), "ann@example.com")
    assert calling.caller(verdict["context"]) == expected
    [statement] = verdict["policyDocument"]["Statement"]
    assert (statement["Effect"], statement["Resource"].rpartition("/")[2]) == ("Allow", "*")
    assert token not in json.dumps(verdict)


def test_a_token_of_cognitos_kind_is_let_in_by_its_client(deployment: Deployment, issuer: Issuer) -> None:
    setting = issuer.setting(
        audiences=[],
        client_ids=["page"],
        groups_claim="cognito:groups",
        tenant_group_prefix="tenant:",
        require={"token_use": "access"},
    )
    groups = ["admin", f"tenant:{deployment.tenant}"]
    said: dict[str, Any] = {"aud": None, "client_id": "page", "token_use": "access", "cognito:groups": groups}
    said |= {"tenant_id": None, "groups": None}
    verdict = authorize(deployment, issuer.token(deployment.tenant, **said), setting)
    assert verdict["context"]["role"] == "admin"
    for wrong in ({"token_use": "id"}, {"token_use": None}, {"client_id": "other"}, {"aud": "page"}):
        with pytest.raises(Exception, match=r"^Unauthorized$"):
            authorize(deployment, issuer.token(deployment.tenant, **(said | wrong)), setting)


def test_whoever_has_no_role_is_told_so_and_not_that_the_token_is_wrong(deployment: Deployment, issuer: Issuer) -> None:
    verdict = authorize(deployment, issuer.token(deployment.tenant, groups=["finance"]), issuer.setting())
    assert verdict["policyDocument"]["Statement"][0]["Effect"] == "Deny"
    assert "context" not in verdict


def test_a_user_of_no_tenant_is_refused(deployment: Deployment, issuer: Issuer) -> None:
    with pytest.raises(Exception, match=r"^Unauthorized$"):
        authorize(deployment, issuer.token(uuid.uuid4()), issuer.setting())


def test_a_user_is_refused_from_the_moment_that_the_tenant_is_to_be_erased(
    deployment: Deployment, issuer: Issuer
) -> None:
    token = issuer.token(deployment.tenant)
    assert authorize(deployment, token, issuer.setting())
    admin = Database(deployment.database.url("rag_admin"), lambda: deployment.database.passwords["rag_admin"])
    ErasureRequests(admin).request_of_tenant(deployment.tenant, "administrator")
    admin.close()
    with pytest.raises(Exception, match=r"^Unauthorized$"):
        authorize(deployment, token, issuer.setting())


def test_the_authorizer_reads_which_tenants_there_are_and_nothing_of_them(deployment: Deployment) -> None:
    with psycopg.connect(deployment.database.dsn("rag_authorize"), autocommit=True) as connection:
        assert connection.execute("select id from tenants").fetchall() == [(deployment.tenant,)]
        for refused in ("select name from tenants", "select key from erasures", "select 1 from documents"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(refused.encode())


def test_keys_and_tokens_stand_beside_each_other(deployment: Deployment, issuer: Issuer) -> None:
    token = issuer.token(deployment.tenant)
    key = f"key:{deployment.key[4:12]}"
    assert authorize(deployment, deployment.key, issuer.setting())["principalId"] == key
    for other in (deployment.key, token):
        with pytest.raises(Exception, match=r"^Unauthorized$"):
            authorize(deployment, token, issuer.setting(), headers={"x-api-key": other})
    assert issuer.fetches == []


def test_where_no_issuer_is_named_no_token_is_accepted(deployment: Deployment, issuer: Issuer) -> None:
    with pytest.raises(Exception, match=r"^Unauthorized$"):
        authorize(deployment, issuer.token(deployment.tenant))
    assert issuer.fetches == []


def test_each_issuer_speaks_with_its_own_keys_for_its_own_tenant(deployment: Deployment, issuer: Issuer) -> None:
    second, _ = deployment.tenants.create("second")
    with serving(Issuer()) as other:
        other.published = [public("one", rsa_key(1))]
        named = [*json.loads(issuer.setting()), *json.loads(other.setting(tenant_id=str(second), subject_prefix="b:"))]
        # Signed by the first one's key, in the name of the second.
        with pytest.raises(Exception, match=r"^Unauthorized$"):
            authorize(deployment, issuer.token(deployment.tenant, iss=other.url), json.dumps(named))
        import jwt

        theirs = jwt.encode(other.claims(deployment.tenant), rsa_key(1), "RS256", {"kid": "one"})
        verdict = authorize(deployment, theirs, json.dumps(named))
    assert (verdict["principalId"], verdict["context"]["tenant_id"]) == ("user:b:u-1", str(second))


def test_an_issuer_that_is_down_is_nobodys_fault(deployment: Deployment, issuer: Issuer) -> None:
    issuer.down = True
    with pytest.raises(UnavailableError, match="cannot be read"):
        authorize(deployment, issuer.token(deployment.tenant), issuer.setting())


def test_clocks_may_differ_by_a_minute_and_not_by_more(deployment: Deployment, issuer: Issuer) -> None:
    now = int(time.time())
    for late in (30, 50):
        assert authorize(deployment, issuer.token(deployment.tenant, exp=now - late, iat=now - 900), issuer.setting())
        assert authorize(deployment, issuer.token(deployment.tenant, iat=now + late, nbf=now + late), issuer.setting())
    for said in ({"exp": now - 70, "iat": now - 900}, {"iat": now + 90}, {"nbf": now + 90}):
        with pytest.raises(Exception, match=r"^Unauthorized$"):
            authorize(deployment, issuer.token(deployment.tenant, **said), issuer.setting())
