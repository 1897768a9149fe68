"""Administrators make tenants through the handler, on a real database."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest

from rag import keys
from rag.errors import InvalidRequestError, NotFoundError
from rag.store import access
from tests.integration.deployment import Context, Deployment, presenting, sample


def tenants(deployment: Deployment, event: Any) -> Any:
    from functions.tenants.handler import handler

    with deployment.function("rag_admin"):
        return handler(event, Context())


def everything(deployment: Deployment) -> str:
    """All that the database holds of tenants and keys, as text."""
    query = b"select string_agg(t::text, ' ') || (select string_agg(k::text, ' ') from api_keys k) from tenants t"
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        [row] = connection.execute(query)
    return str(row[0])


def test_a_new_tenant_can_work_with_its_key_at_once(deployment: Deployment) -> None:
    from functions.authorize.handler import handler

    made = tenants(deployment, sample("tenants/create.json"))
    tenant = uuid.UUID(made["tenant_id"])
    event = presenting(("x-api-key", made["api_key"]))
    with deployment.function("rag_authorize"):
        assert handler(event, Context())["context"]["tenant_id"] == str(tenant)
    [collection] = deployment.ask("GET", "/v1/collections", tenant=tenant).json["collections"]
    assert (collection["name"], collection["language"], collection["document_count"]) == ("default", "english", 0)
    assert deployment.ask("POST", "/v1/search", {"query": "anything"}, tenant=tenant).json["hits"] == []


def test_the_key_is_shown_once_and_kept_nowhere(deployment: Deployment, caplog: pytest.LogCaptureFixture) -> None:
    made = tenants(deployment, sample("tenants/create.json"))
    secret = made["api_key"].partition(".")[2]
    logged = str([vars(record) for record in caplog.records])
    assert "tenant created" in logged
    assert made["tenant_id"] in logged
    assert secret not in logged
    assert made["tenant_id"] in everything(deployment)
    assert secret not in everything(deployment)


def test_a_name_is_given_once(deployment: Deployment) -> None:
    tenants(deployment, {"action": "create", "name": "Example Ltd"})
    before = everything(deployment)
    with pytest.raises(InvalidRequestError, match="Example Ltd"):
        tenants(deployment, {"action": "create", "name": " Example Ltd "})
    assert everything(deployment) == before


def is_let_in(deployment: Deployment, api_key: str) -> bool:
    from functions.authorize.handler import handler

    with deployment.function("rag_authorize"):
        try:
            return bool(handler(presenting(("x-api-key", api_key)), Context()))
        except Exception as refused:
            if str(refused) == "Unauthorized":
                return False
            raise


def test_a_tenant_who_lost_all_keys_gets_another_first_one(
    deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    event = sample("tenants/key.json") | {"tenant_id": str(deployment.tenant)}
    made = tenants(deployment, event)
    assert set(made) == {"tenant_id", "api_key"}
    assert [is_let_in(deployment, key) for key in (deployment.key, made["api_key"])] == [True, True]
    assert made["api_key"].partition(".")[2] not in str([vars(record) for record in caplog.records])
    last = tenants(deployment, event | {"revoke_others": True})["api_key"]
    assert [is_let_in(deployment, key) for key in (deployment.key, made["api_key"], last)] == [False, False, True]


def test_nobody_and_who_is_being_erased_gets_no_key(deployment: Deployment) -> None:
    event = sample("tenants/key.json")
    with pytest.raises(NotFoundError):
        tenants(deployment, event)
    tenants(deployment, {"action": "erase", "tenant_id": str(deployment.tenant)})
    before = everything(deployment)
    with pytest.raises(NotFoundError):
        tenants(deployment, event | {"tenant_id": str(deployment.tenant)})
    assert everything(deployment) == before


def test_tenants_are_listed_by_name_page_by_page(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MOST_LISTED", 2)
    for name in ("zebra", "Österreich AG"):
        deployment.tenants.create(name)
    first = tenants(deployment, sample("tenants/list.json"))
    assert [each["name"] for each in first["tenants"]] == ["first", "zebra"]
    assert first["tenants"][0]["tenant_id"] == str(deployment.tenant)
    assert (first["tenants"][0]["live_keys"], first["tenants"][0]["last_used_at"]) == (1, None)
    second = tenants(deployment, sample("tenants/list.json") | {"after": first["next"]})
    assert ([each["name"] for each in second["tenants"]], second["next"]) == (["Österreich AG"], None)


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"action": "list"},
        {"action": "list", "after": "a\0b"},
        {"action": "key", "tenant_id": str(uuid.UUID(int=1))},
        {"action": "key", "tenant_id": str(uuid.UUID(int=1)), "revoke_others": "yes"},
        {"action": "create"},
        {"action": "create", "name": ""},
        {"action": "create", "name": "  "},
        {"action": "create", "name": "x" * 201},
        {"action": "create", "name": "a\0b"},
        {"action": "create", "name": "a\nb"},
        {"action": "create", "name": 5},
        {"action": "drop", "name": "Example Ltd"},
        *(
            {"action": "limit", "tenant_id": str(uuid.UUID(int=1)), "requests_per_day": 1, "tokens_per_day": wrong}
            for wrong in (-1, True, "1", 1.5, 2**63)
        ),
        {"action": "limit", "tenant_id": str(uuid.UUID(int=1)), "requests_per_hour": 1},
        {"action": "limit", "tenant_id": str(uuid.UUID(int=1)), "key_id": 7},
        [],
    ],
    ids=str,
)
def test_another_event_is_refused_and_says_what_is_expected(deployment: Deployment, event: Any) -> None:
    before = everything(deployment)
    with pytest.raises(InvalidRequestError, match=r'\{"action": "create", "name"'):
        tenants(deployment, event)
    assert everything(deployment) == before


def test_a_tenant_is_limited_alone_and_let_go_again(deployment: Deployment) -> None:
    other, _ = deployment.tenants.create("second")
    mine = sample("tenants/limit.json") | {"tenant_id": str(deployment.tenant)}
    assert tenants(deployment, mine | {"tokens_per_day": 1}) == {
        "tenant_id": str(deployment.tenant),
        "requests_per_minute": None,
        "requests_per_day": None,
        "tokens_per_day": 1,
        "tokens_per_month": None,
        "usd_per_day": None,
        "usd_per_month": None,
    }
    assert deployment.ask("POST", "/v1/search", {"query": "the first of them"}).status == 429
    assert deployment.ask("POST", "/v1/search", {"query": "the second of them"}, tenant=other).status == 200
    tenants(deployment, mine | {"tokens_per_day": None})
    assert deployment.ask("POST", "/v1/search", {"query": "the third of them"}).status == 200


def test_nobodys_limit_is_refused(deployment: Deployment) -> None:
    with pytest.raises(NotFoundError):
        tenants(deployment, sample("tenants/limit.json"))


def test_a_key_is_limited_alone_and_its_successor_as_it_was(deployment: Deployment) -> None:
    mine = {"action": "limit", "tenant_id": str(deployment.tenant), "key_id": keys.parse(deployment.key)[0]}
    told = tenants(deployment, mine | {"tokens_per_day": 1, "requests_per_minute": 7})
    assert (told["key_id"], told["tokens_per_day"], told["requests_per_minute"]) == (mine["key_id"], 1, 7)
    principal = f"key:{mine['key_id']}"
    refused = deployment.ask("POST", "/v1/search", {"query": "the first of them"}, principal=principal)
    assert refused.status == 429
    assert refused.json["detail"].startswith("this key's budget of 1 tokens for today has no room for this")
    assert deployment.ask("POST", "/v1/search", {"query": "the second of them"}, principal="key:other000").status == 200
    rotated = deployment.ask("POST", f"/v1/keys/{mine['key_id']}/rotate").json
    principal = f"key:{rotated['id']}"
    assert deployment.ask("POST", "/v1/search", {"query": "the third of them"}, principal=principal).status == 429


def test_a_limit_of_a_key_that_is_not_the_tenants_is_refused(deployment: Deployment) -> None:
    other, _ = deployment.tenants.create("second")
    key_id = keys.parse(deployment.key)[0]
    with pytest.raises(NotFoundError):
        tenants(deployment, {"action": "limit", "tenant_id": str(other), "key_id": key_id})


def test_a_limit_in_usd_needs_prices(deployment: Deployment) -> None:
    mine = {"action": "limit", "tenant_id": str(deployment.tenant), "usd_per_month": 12.5}
    with pytest.raises(InvalidRequestError, match="USD_PER_MILLION_TOKENS"):
        tenants(deployment, mine)
    for model in ("EMBEDDING", "PROMPT", "COMPLETION"):
        deployment.settings[f"RAG_{model}_USD_PER_MILLION_TOKENS"] = "1"
    assert tenants(deployment, mine)["usd_per_month"] == 12.5
