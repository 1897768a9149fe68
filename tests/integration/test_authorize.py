"""Who is let in, through the authorizer's handler, on a real database."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from rag import calling, keys
from rag.errors import UnavailableError
from rag.types import Caller
from tests.integration.deployment import Context, Deployment, presenting, sample

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
    return presenting(*(headers or {}).items())


def administer(deployment: Deployment, statement: str, *values: str, rows: int = 1) -> None:
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        assert connection.execute(statement.encode(), values).rowcount == rows


@pytest.mark.parametrize("name", SAMPLES)
def test_a_live_key_is_let_in_as_its_tenant(deployment: Deployment, name: str) -> None:
    verdict = authorize(deployment, with_key(name, deployment.key))
    principal = f"key:{deployment.key[4:12]}"
    assert verdict["principalId"] == principal
    assert verdict["context"] == calling.context(Caller(deployment.tenant, principal, "admin"))


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
    "no credential": lambda _: {},
    "empty": lambda _: {"x-api-key": ""},
    "malformed": lambda _: {"x-api-key": SAMPLE_KEY},
    "well formed and unknown": lambda _: {"x-api-key": keys.new()[0]},
    "a letter short": lambda key: {"x-api-key": key[:-1]},
    "another letter": lambda key: {"x-api-key": key[:20] + ("a" if key[20] != "a" else "b") + key[21:]},
    "two keys": lambda key: {"x-api-key": f"{key},{key}"},
    "no Latin letter": lambda _: {"x-api-key": "rag_é\0ключ.secret"},
    "a space that is none": lambda key: {"x-api-key": f"{key}\u00a0"},
    "another key beside it": lambda key: {"x-api-key": key, "authorization": f"Bearer {keys.new()[0]}"},
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


def test_no_headers_at_all_are_unauthorized(deployment: Deployment) -> None:
    for headers in ({"headers": None, "multiValueHeaders": None}, {"headers": {}, "multiValueHeaders": {}}):
        with pytest.raises(Exception, match=r"^Unauthorized$"):
            authorize(deployment, sample("authorize/api_key.json") | headers)


def test_a_header_that_came_twice_must_say_the_same_twice(deployment: Deployment) -> None:
    mine, other = ("x-api-key", deployment.key), ("X-Api-Key", keys.new()[0])
    for both in ([mine, other], [other, mine], [mine, ("x-api-key", other[1])], [("x-api-key", other[1]), mine]):
        with pytest.raises(Exception, match=r"^Unauthorized$"):
            authorize(deployment, presenting(*both))
    same = presenting(mine, mine, ("authorization", f"Bearer {deployment.key}"))
    assert authorize(deployment, same)["context"]["tenant_id"] == str(deployment.tenant)


def test_a_key_in_the_query_string_is_not_looked_at(deployment: Deployment) -> None:
    for name in ("x-api-key", "api_key", "access_token", "authorization"):
        asked = {"queryStringParameters": {name: deployment.key}, "path": f"/v1/search?{name}={deployment.key}"}
        asked["multiValueQueryStringParameters"] = {name: [deployment.key]}
        with pytest.raises(Exception, match=r"^Unauthorized$"):
            authorize(deployment, presenting() | asked)


def test_what_a_key_is_limited_to_is_told(deployment: Deployment) -> None:
    administer(deployment, "update api_keys set collections = '{manuals,staff}', groups = '{finance}'")
    verdict = authorize(deployment, presenting(("x-api-key", deployment.key)))
    told = Caller(deployment.tenant, f"key:{deployment.key[4:12]}", "admin", ("manuals", "staff"), ("finance",))
    assert verdict["context"] == calling.context(told)


def last_use(deployment: Deployment) -> datetime | None:
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        [(used,)] = connection.execute("select last_used_at from api_keys")
    return used


def noted(deployment: Deployment, after: datetime | None) -> datetime:
    """The note of the last use, once it is another than this."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if (used := last_use(deployment)) != after:
            assert used is not None
            return used
        time.sleep(0.01)
    pytest.fail("the use was not noted")


def test_the_last_use_of_a_key_is_noted_once_a_minute(deployment: Deployment) -> None:
    from functions.authorize.handler import handler

    event = presenting(("x-api-key", deployment.key))
    with deployment.function("rag_authorize"):
        handler(event, Context())
        first = noted(deployment, None)
        for _ in range(3):
            handler(event, Context())
        time.sleep(0.1)
        assert last_use(deployment) == first
        administer(deployment, "update api_keys set last_used_at = last_used_at - interval '61 seconds'")
        handler(event, Context())
        assert noted(deployment, first - timedelta(seconds=61)) > first


def test_a_note_that_cannot_be_made_keeps_nobody_waiting_and_nobody_out(deployment: Deployment) -> None:
    from functions.authorize.handler import handler

    event = presenting(("x-api-key", deployment.key))
    seconds = []

    def three_times() -> None:
        for _ in range(3):
            began = time.monotonic()
            assert handler(event, Context())["principalId"].startswith("key:")
            seconds.append(time.monotonic() - began)

    superuser = deployment.database.superuser_dsn()
    with deployment.function("rag_authorize"):
        with psycopg.connect(superuser) as holding:
            holding.execute("select from api_keys for update")
            three_times()
            assert last_use(deployment) is None
        administer(deployment, "revoke update (last_used_at) on api_keys from rag_authorize", rows=-1)
        three_times()
        assert last_use(deployment) is None
        administer(deployment, "grant update (last_used_at) on api_keys to rag_authorize", rows=-1)
        three_times()
        noted(deployment, None)
    assert max(seconds) < 4.5  # a lock is waited for for five


def test_the_authorizer_can_say_that_a_key_is_used_now_and_nothing_else(deployment: Deployment) -> None:
    refused = [
        "update api_keys set last_used_at = now() - interval '1 day'",
        "update api_keys set last_used_at = null",
        "update api_keys set role = 'admin'",
        "update api_keys set expires_at = null",
        "delete from api_keys",
        "select name from api_keys",
        "select * from tenants",
    ]
    with psycopg.connect(deployment.database.dsn("rag_authorize"), autocommit=True) as connection:
        for statement in refused:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())
        assert connection.execute("update api_keys set last_used_at = now()").rowcount == 1


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
