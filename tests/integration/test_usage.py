"""What was used and what it cost is told to whom it concerns; budgets of money and of months stop as those of days."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from rag import keys
from tests.integration.deployment import Deployment, Reply
from tests.integration.test_budgets import QUESTION, allow
from tests.integration.test_ingest import rows

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_day")]


def now() -> datetime:
    return datetime.now(UTC)


def next_month() -> datetime:
    """When it begins."""
    return (now().replace(day=1, hour=0, minute=0, second=0, microsecond=0) + timedelta(days=32)).replace(day=1)


@pytest.fixture
def priced(deployment: Deployment) -> Deployment:
    """A million tokens cost 2 USD to embed, 4 to be read by the chat model and 8 to be written by it."""
    deployment.settings |= {
        "RAG_EMBEDDING_USD_PER_MILLION_TOKENS": "2",
        "RAG_PROMPT_USD_PER_MILLION_TOKENS": "4",
        "RAG_COMPLETION_USD_PER_MILLION_TOKENS": "8",
    }
    deployment.model.says = "Refunds are paid within nine working days. [1]"
    deployment.put("refunds.md", "Refunds are paid within nine working days.")
    return deployment


def usage(deployment: Deployment, **event: Any) -> Any:
    reply = told(deployment, **event)
    assert reply.status == 200, reply.json
    return reply.json


def told(deployment: Deployment, query: dict[str, list[str]] | None = None, **event: Any) -> Reply:
    return deployment.ask("GET", "/v1/usage", multiValueQueryStringParameters=query or {}, **event)


def test_an_administrator_is_told_of_the_whole_tenant_by_day_and_model(priced: Deployment) -> None:
    priced.ask("POST", "/v1/query", QUESTION, principal="key:one")
    found = usage(priced)
    assert (found["scope"], found["first_day"], found["last_day"]) == (
        "tenant",
        now().date().replace(day=1).isoformat(),
        now().date().isoformat(),
    )
    assert [(row["day"], row["model"], row["principal"]) for row in found["usage"]] == [
        (now().date().isoformat(), "fake", None)
    ]
    [row] = found["usage"]
    assert (row["requests"], row["prompt_tokens"], row["completion_tokens"]) == (3, 12, 5)
    assert found["today"] == found["month"] == {name: row[name] for name in found["today"]}
    assert not found["truncated"]


def test_by_key_documents_stand_beside_callers_and_by_month_days_are_added_up(priced: Deployment) -> None:
    priced.ask("POST", "/v1/query", QUESTION, principal="key:one")
    priced.ask("POST", "/v1/search", {"query": "something else"}, principal="user:ann")
    found = usage(priced, query={"by": ["month", "key"]})["usage"]
    assert [(row["month"], row["day"], row["principal"], row["requests"]) for row in found] == [
        (f"{now():%Y-%m}", None, "ingest", 1),
        (f"{now():%Y-%m}", None, "key:one", 2),
        (f"{now():%Y-%m}", None, "user:ann", 1),
    ]


def test_the_two_tables_never_differ(priced: Deployment) -> None:
    for number in range(3):
        priced.ask("POST", "/v1/query", {"question": f"How long do {number} refunds take?"}, principal=f"key:{number}")
    sums = "sum(requests)::int, sum(prompt_tokens)::int, sum(completion_tokens)::int, sum(usd)"
    [whole] = rows(priced, f"select {sums} from model_usage")
    assert rows(priced, f"select {sums} from caller_usage") == [whole]
    assert whole[3] > 0


def test_a_reader_is_told_of_its_own_key_and_limits_alone(priced: Deployment) -> None:
    priced.ask("POST", "/v1/query", QUESTION, principal="key:one")
    allow(priced, priced.tenant, tokens_per_day=1000)
    for role in ("reader", "writer"):
        found = usage(priced, principal="key:two", role=role)
        assert (found["scope"], found["principal"], found["usage"], found["budgets"]) == ("key", "key:two", [], [])
        assert found["month"]["requests"] == 0
    limited_to = usage(priced, principal="key:two", collections='["manuals"]')
    assert limited_to["scope"] == "key"
    assert usage(priced, principal="key:one", role="reader")["month"]["requests"] == 2


def test_another_tenants_usage_is_not_told(priced: Deployment) -> None:
    stranger, _ = priced.tenants.create("second")
    found = usage(priced, tenant=stranger)
    assert (found["usage"], found["month"]["requests"]) == ([], 0)


def test_limits_are_told_with_what_is_left_and_when_they_begin_anew(priced: Deployment) -> None:
    allow(priced, priced.tenant, tokens_per_day=1000, tokens_per_month=5000)
    priced.settings |= {"RAG_RATE_LIMIT_REQUESTS": "100", "RAG_TENANT_RATE_LIMIT_REQUESTS": "1000"}
    found = usage(priced)
    assert [(each["unit"], each["period"], each["limit"], each["used"], each["left"]) for each in found["budgets"]] == [
        ("tokens", "day", 1000, 1, 999),
        ("tokens", "month", 5000, 1, 4999),
    ]
    assert datetime.fromisoformat(found["budgets"][1]["resets_at"]) == next_month()
    assert [(each["of"], each["requests"], each["left"]) for each in found["rate_limits"]] == [
        ("key", 100, 99),
        ("tenant", 1000, 999),
    ]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"first_day": ["2026-02-01"], "last_day": ["2026-01-01"]}, 400),
        ({"first_day": ["2020-01-01"]}, 400),
        ({"first_day": ["yesterday"]}, 422),
        ({"by": ["hour"]}, 422),
        ({"by": ["day"] * 5}, 422),
    ],
    ids=str,
)
def test_what_cannot_be_told_is_refused(deployment: Deployment, query: dict[str, list[str]], status: int) -> None:
    assert told(deployment, query).status == status


def test_calls_cost_what_the_prices_say(priced: Deployment) -> None:
    priced.settings["RAG_CHAT_MODEL"] = "chatter"
    priced.ask("POST", "/v1/query", QUESTION, principal="key:one")
    found = usage(priced, principal="key:one", role="reader")
    spent = {row["model"]: (row["prompt_tokens"], row["completion_tokens"], row["usd"]) for row in found["usage"]}
    (embedded, _, for_embedding), (asked, answered, for_answer) = spent["fake"], spent["chatter"]
    assert for_embedding == pytest.approx(2 * embedded / 1e6)
    assert for_answer == pytest.approx((4 * asked + 8 * answered) / 1e6)
    assert found["month"]["usd"] == pytest.approx(for_embedding + for_answer)


def test_a_budget_in_usd_is_a_hard_stop_until_the_month_ends(priced: Deployment) -> None:
    priced.ask("POST", "/v1/query", QUESTION)
    spent = usage(priced)["month"]["usd"]
    priced.settings["RAG_TENANT_USD_PER_MONTH"] = str(spent)
    refused = priced.ask("POST", "/v1/query", {"question": "How long does shipping take?"})
    assert refused.status == 429
    assert refused.json["detail"].startswith("the tenant's budget of 0.00 USD for this month has no room for this")
    assert datetime.fromisoformat(refused.json["reset_at"]) == next_month()
    assert abs(int(refused.headers["retry-after"]) - (next_month() - datetime.now(UTC)).total_seconds()) < 60


def test_the_month_counts_its_earlier_days_and_not_the_last_ones(priced: Deployment) -> None:
    allow(priced, priced.tenant, tokens_per_month=10_000)
    add = (
        "insert into model_usage (tenant_id, day, model, shard, requests, prompt_tokens, completion_tokens)"
        " values (%s, date_trunc('month', now() at time zone 'utc')::date + %s::int, 'fake', 99, 1, 9999, 0)"
    )
    with psycopg.connect(priced.database.superuser_dsn(), autocommit=True) as connection:
        connection.execute(add.encode(), [priced.tenant, -1])
        assert priced.ask("POST", "/v1/search", {"query": "the first of them"}).status == 200
        connection.execute(add.encode(), [priced.tenant, 0])
        assert priced.ask("POST", "/v1/search", {"query": "the second of them"}).status == 429


def test_a_key_that_has_used_up_its_own_budget_waits_alone(priced: Deployment) -> None:
    key_id = keys.parse(priced.key)[0]
    with psycopg.connect(priced.database.superuser_dsn(), autocommit=True) as connection:
        connection.execute(b"update api_keys set tokens_per_day = 1 where id = %s", [key_id])
    refused = priced.ask("POST", "/v1/search", {"query": "the first of them"}, principal=f"key:{key_id}")
    assert (refused.status, refused.json["detail"].partition(" for today")[0]) == (
        429,
        "this key's budget of 1 tokens",
    )
    for other in ("key:another0", "user:ann"):
        assert priced.ask("POST", "/v1/search", {"query": "the first of them"}, principal=other).status == 200
    [own] = usage(priced, principal=f"key:{key_id}", role="reader")["budgets"]
    assert (own["of"], own["unit"], own["left"]) == ("key", "tokens", 1)
