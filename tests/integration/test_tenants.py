"""Administrators make tenants through the handler, on a real database."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest

from rag.errors import InvalidRequestError, NotFoundError
from tests.integration.deployment import Context, Deployment, sample


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
    event = sample("authorize/api_key.json") | {"headers": {"x-api-key": made["api_key"]}}
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


@pytest.mark.parametrize(
    "event",
    [
        {},
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
        "requests_per_day": None,
        "tokens_per_day": 1,
    }
    assert deployment.ask("POST", "/v1/search", {"query": "the first of them"}).status == 429
    assert deployment.ask("POST", "/v1/search", {"query": "the second of them"}, tenant=other).status == 200
    tenants(deployment, mine | {"tokens_per_day": None})
    assert deployment.ask("POST", "/v1/search", {"query": "the third of them"}).status == 200


def test_nobodys_limit_is_refused(deployment: Deployment) -> None:
    with pytest.raises(NotFoundError):
        tenants(deployment, sample("tenants/limit.json"))
