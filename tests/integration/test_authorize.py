"""Who is let in, through the authorizer's handler, on a real database."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from rag import keys
from rag.errors import UnavailableError
from tests.integration.deployment import Context, Deployment, sample

pytestmark = pytest.mark.slow

SAMPLES = ("authorize/api_key.json", "authorize/bearer.json")
SAMPLE_KEY = "rag_aB3dE5gH.secret"


def authorize(deployment: Deployment, event: Any, **settings: str) -> Any:
    from functions.authorize.handler import handler

    with deployment.function("rag_authorize", **settings):
        return handler(event, Context())


def with_key(name: str, key: str) -> Any:
    return json.loads(json.dumps(sample(name)).replace(SAMPLE_KEY, key))


def with_headers(headers: dict[str, str] | None) -> Any:
    return sample("authorize/api_key.json") | {"headers": headers}


def administer(deployment: Deployment, statement: str, *values: str) -> None:
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        assert connection.execute(statement.encode(), values).rowcount == 1


@pytest.mark.parametrize("name", SAMPLES)
def test_a_live_key_is_let_in_as_its_tenant(deployment: Deployment, name: str) -> None:
    verdict = authorize(deployment, with_key(name, deployment.key))
    principal = f"key:{deployment.key[4:12]}"
    assert verdict["principalId"] == principal
    assert verdict["context"] == {"tenant_id": str(deployment.tenant), "principal": principal, "role": "admin"}


def test_the_policy_allows_this_stage_and_nothing_beyond(deployment: Deployment) -> None:
    verdict = authorize(deployment, with_key("authorize/api_key.json", deployment.key))
    [statement] = verdict["policyDocument"]["Statement"]
    assert statement == {
        "Action": "execute-api:Invoke",
        "Effect": "Allow",
        "Resource": "arn:aws:execute-api:us-east-1:123456789012:a1b2c3d4e5/dev/*",
    }


def test_the_context_is_strings_which_is_all_that_api_gateway_passes_on(deployment: Deployment) -> None:
    verdict = authorize(deployment, with_key("authorize/api_key.json", deployment.key))
    assert {type(value) for value in verdict["context"].values()} == {str}
    assert deployment.key not in json.dumps(verdict)


HEADERS: list[Callable[[str], dict[str, str]]] = [
    lambda key: {"X-Api-Key": key},
    lambda key: {"X-API-KEY": f" {key} "},
    lambda key: {"Authorization": f"Bearer {key}"},
    lambda key: {"AUTHORIZATION": f"bearer  {key}"},
]


@pytest.mark.parametrize("headers", HEADERS)
def test_header_names_are_read_in_any_case(deployment: Deployment, headers: Callable[[str], dict[str, str]]) -> None:
    verdict = authorize(deployment, with_headers(headers(deployment.key)))
    assert verdict["context"]["tenant_id"] == str(deployment.tenant)


REFUSED: dict[str, Callable[[str], dict[str, str] | None]] = {
    "no headers": lambda _: None,
    "no credential": lambda _: {},
    "empty": lambda _: {"x-api-key": ""},
    "malformed": lambda _: {"x-api-key": SAMPLE_KEY},
    "well formed and unknown": lambda _: {"x-api-key": keys.new()[0]},
    "a letter short": lambda key: {"x-api-key": key[:-1]},
    "another letter": lambda key: {"x-api-key": key[:20] + ("a" if key[20] != "a" else "b") + key[21:]},
    "two keys": lambda key: {"x-api-key": f"{key},{key}"},
    "no Latin letter": lambda _: {"x-api-key": "rag_é\0ключ.secret"},
    "the scheme alone": lambda _: {"authorization": "Bearer"},
    "another scheme": lambda key: {"authorization": f"Basic {key}"},
    "no scheme": lambda key: {"authorization": key},
}


@pytest.mark.parametrize("headers", REFUSED.values(), ids=REFUSED)
def test_anything_else_is_unauthorized_in_the_one_word_that_becomes_401(
    deployment: Deployment, headers: Callable[[str], dict[str, str] | None]
) -> None:
    with pytest.raises(Exception) as refused:  # noqa: PT011 (its whole text is compared)
        authorize(deployment, with_headers(headers(deployment.key)))
    assert str(refused.value) == "Unauthorized"


def test_a_key_id_with_another_secret_is_refused(deployment: Deployment) -> None:
    forged, key_id, _ = keys.new()
    administer(deployment, "update api_keys set id = %s", key_id)  # the id is known, its digest another
    with pytest.raises(Exception, match=r"^Unauthorized$"):
        authorize(deployment, with_headers({"x-api-key": forged}))


@pytest.mark.parametrize(
    "ending",
    [
        "update api_keys set revoked_at = now()",
        "update api_keys set expires_at = now() - interval '1 second'",
    ],
)
def test_a_key_that_ended_is_refused(deployment: Deployment, ending: str) -> None:
    administer(deployment, ending)
    with pytest.raises(Exception, match=r"^Unauthorized$"):
        authorize(deployment, with_headers({"x-api-key": deployment.key}))


def test_when_the_database_is_down_nobody_is_told_that_their_key_is_wrong(deployment: Deployment) -> None:
    dead = deployment.database.dsn("rag_authorize").replace(str(deployment.database.server.port), "1")
    with pytest.raises(UnavailableError, match="database"):
        authorize(deployment, with_headers({"x-api-key": deployment.key}), database_url=dead)
