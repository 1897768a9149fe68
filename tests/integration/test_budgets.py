"""What tenants use of the models is counted in the database, and a tenant that has used up its day waits alone."""

from __future__ import annotations

import gc
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import pytest

from rag import keys, wiring
from rag.auditing import Entry
from rag.errors import BudgetError, NotFoundError
from rag.spending import Budgets, Reservation, Settlement
from rag.store.database import Database
from rag.store.usage import UsageStore
from tests.integration.deployment import Deployment, notification
from tests.integration.test_ingest import DONE, Inbox, deliver, embedded, rows, store

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_day")]

USED = "select sum(requests)::int, sum(prompt_tokens)::int, sum(completion_tokens)::int from model_usage"
QUESTION = {"question": "How long do refunds take?"}


@pytest.fixture
def inbox(deployment: Deployment) -> Iterator[Inbox]:
    opened = Inbox(deployment.aws)
    deployment.settings["RAG_QUEUE_URL"] = opened.url
    yield opened
    opened.delete()


@pytest.fixture
def filled(deployment: Deployment) -> Deployment:
    deployment.model.says = "Refunds are paid within nine working days. [1]"
    deployment.put("refunds.md", "Refunds are paid within nine working days.")
    return deployment


def allow(deployment: Deployment, tenant: Any, **limits: int | None) -> None:
    with psycopg.connect(deployment.database.dsn("rag_admin"), autocommit=True) as connection:
        for column, limit in limits.items():
            statement = f"update tenants set {column} = %s where id = %s"
            connection.execute(statement.encode(), [limit, tenant])


def left_of_the_day() -> float:
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return (midnight - now).total_seconds()


def test_what_a_tenant_uses_is_counted_by_day_and_model_as_the_model_says(filled: Deployment) -> None:
    assert rows(filled, USED) == [(1, 1, 0)]
    filled.ask("POST", "/v1/query", QUESTION)
    assert rows(filled, USED) == [(3, 12, 5)]
    filled.ask("POST", "/v1/query", QUESTION)
    assert rows(filled, USED) == [(3, 12, 5)]
    assert rows(filled, "select distinct day, tenant_id, usd from model_usage") == [
        (datetime.now(UTC).date(), filled.tenant, 0)
    ]


def test_a_tenant_over_its_budget_is_refused_until_midnight_and_nobody_else_is(filled: Deployment) -> None:
    other, _ = filled.tenants.create("second")
    filled.put("refunds.md", "Refunds are paid within nine working days.", tenant=other)
    filled.settings["RAG_TENANT_REQUESTS_PER_DAY"] = "3"
    assert filled.ask("POST", "/v1/query", QUESTION).status == 200
    refused = filled.ask("POST", "/v1/query", {"question": "How long does shipping take?"})
    assert (refused.status, refused.headers["content-type"]) == (429, "application/problem+json")
    budget, _, then = refused.json["detail"].partition("; ")
    assert budget == "the tenant's budget of 3 requests to models for today has no room for this"
    assert then == "the next day begins at midnight UTC"
    assert abs(int(refused.headers["retry-after"]) - left_of_the_day()) < 60
    others = [filled.ask("POST", "/v1/query", QUESTION, tenant=other).status for _ in range(3)]
    assert others == [200] * 3
    print(f"F9: 1 tenant refused with 429, {len([status for status in others if status != 200])} errors of others")


def test_what_needs_no_model_goes_on_over_the_budget(filled: Deployment) -> None:
    answered = filled.ask("POST", "/v1/query", QUESTION).json
    filled.settings["RAG_TENANT_REQUESTS_PER_DAY"] = "1"
    again = filled.ask("POST", "/v1/query", QUESTION).json
    assert (again["answer"], again["cached"]) == (answered["answer"], True)
    assert filled.ask("POST", "/v1/search", {"query": QUESTION["question"]}).json["degraded"] is None
    assert filled.ask("POST", "/v1/search", {"query": "shipping", "mode": "lexical"}).status == 200
    assert filled.ask("POST", "/v1/search", {"query": "shipping"}).status == 429


def test_a_tenants_own_limits_come_before_the_deployments(filled: Deployment) -> None:
    filled.settings["RAG_TENANT_TOKENS_PER_DAY"] = "1"
    assert filled.ask("POST", "/v1/search", {"query": "the first of them"}).status == 429
    allow(filled, filled.tenant, tokens_per_day=0)
    assert filled.ask("POST", "/v1/search", {"query": "the second of them"}).status == 200
    allow(filled, filled.tenant, tokens_per_day=None, requests_per_day=1)
    assert filled.ask("POST", "/v1/search", {"query": "the third of them"}).status == 429


def test_a_document_over_the_budget_says_so_and_is_indexed_when_there_is_room_again(
    deployment: Deployment, inbox: Inbox
) -> None:
    [record] = inbox.deliver(notification(store(deployment, "note.txt", "A note about rivers.")))
    assert deliver(deployment, [record], tenant_tokens_per_day="1") == DONE
    assert embedded(deployment) == []
    document = deployment.documents()["note.txt"]
    assert (document["status"], document["error"]["code"]) == ("failed", "BUDGET")
    assert document["error"]["message"].startswith("the tenant's budget of 1 tokens for today has no room for this")
    assert rows(deployment, USED) == [(None, None, None)]
    assert held_back(inbox) == 1
    assert deliver(deployment, [record]) == DONE
    assert deployment.documents()["note.txt"]["status"] == "ready"


def test_of_documents_that_wait_for_a_budget_one_a_minute_is_tried(deployment: Deployment, inbox: Inbox) -> None:
    bodies = [notification(store(deployment, f"{n}.txt", f"Note {n} about rivers.")) for n in range(5)]
    assert deliver(deployment, inbox.deliver(*bodies), tenant_tokens_per_day="1", ingest_threads="1") == DONE
    assert {one["error"]["code"] for one in deployment.documents().values()} == {"BUDGET"}
    # The one that was tried has left its mark; the others were put off before anything was read.
    assert rows(deployment, "select count(*)::int from ingestions") == [(1,)]


def test_a_document_that_waited_for_two_nights_is_left_to_its_deliveries(deployment: Deployment, inbox: Inbox) -> None:
    [record] = inbox.deliver(notification(store(deployment, "note.txt", "A note about rivers.")))
    long_ago = str(datetime.now(UTC).timestamp() - 49 * 3600)
    record["messageAttributes"] = {"FirstSent": {"stringValue": long_ago, "dataType": "String"}}
    assert deliver(deployment, [record], tenant_tokens_per_day="1")["batchItemFailures"]
    assert held_back(inbox) == 0


def held_back(inbox: Inbox) -> int:
    """How many messages the queue gives to nobody yet."""
    told = inbox.sqs.get_queue_attributes(QueueUrl=inbox.url, AttributeNames=["All"])["Attributes"]
    return int(told["ApproximateNumberOfMessagesDelayed"])


def test_many_who_count_at_once_lose_nothing_and_exceed_no_limit(
    deployment: Deployment,
) -> None:
    limit, workers, calls = 100, 8, 20
    passed: list[int] = []

    def work() -> None:
        database = Database(deployment.database.url("rag_query"), lambda: deployment.database.passwords["rag_query"])
        mine = UsageStore(database, Budgets(requests_per_day=limit))
        for _ in range(calls):
            try:
                counted = mine.reserve(deployment.tenant, "key:one", "chat", prompt_tokens=10, completion_tokens=10)
            except BudgetError:
                break
            mine.settle(
                Settlement(deployment.tenant, "key:one", "chat", counted.day, 0, prompt_tokens=-4, completion_tokens=-7)
            )
            passed.append(1)
        database.close()

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(passed) == limit
    assert rows(deployment, USED) == [(len(passed), 6 * len(passed), 3 * len(passed))]
    print(f"F9: limit {limit} requests, {workers} sandboxes at once: {len(passed)} let through")


def test_a_call_that_comes_while_another_is_counted_finds_the_room_that_is_left_after_it(
    deployment: Deployment,
) -> None:
    allow(deployment, deployment.tenant, requests_per_day=1)
    database = Database(deployment.database.url("rag_query"), lambda: deployment.database.passwords["rag_query"])
    refused: list[BudgetError] = []

    def second() -> None:
        try:
            UsageStore(database).reserve(deployment.tenant, "key:two", "chat", prompt_tokens=1, completion_tokens=0)
        except BudgetError as error:
            refused.append(error)

    waiting = threading.Thread(target=second)
    with (
        psycopg.connect(deployment.database.dsn("rag_query")) as first,
        psycopg.connect(deployment.database.superuser_dsn(), autocommit=True) as looking,
    ):
        first.execute("select set_config('app.tenant', %s, true)", [str(deployment.tenant)])
        counted = "select day from reserve_usage(%s, 'key:one', 'chat', 0, 1, 0, 0, 0, 0, 0, 0, 0)"
        assert first.execute(counted, [deployment.tenant]).fetchone() == (datetime.now(UTC).date(),)
        waiting.start()
        until = time.monotonic() + 60
        while waiting.is_alive() and not looking.execute("select from pg_locks where not granted").fetchall():
            assert time.monotonic() < until
    waiting.join()
    database.close()
    assert len(refused) == 1
    assert rows(deployment, USED) == [(1, 1, 0)]


def test_a_tenant_sees_and_changes_its_own_usage_only(filled: Deployment) -> None:
    stranger, _ = filled.tenants.create("second")
    with psycopg.connect(filled.database.dsn("rag_query"), autocommit=True) as connection:
        connection.execute("select set_config('app.tenant', %s, false)", [str(stranger)])
        assert connection.execute("select count(*) from model_usage").fetchone() == (0,)
        assert connection.execute("update model_usage set requests = 0").rowcount == 0
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("delete from model_usage")
    assert rows(filled, USED) == [(1, 1, 0)]


def test_a_tenant_that_is_not_there_has_no_budget(deployment: Deployment) -> None:
    with deployment.function("rag_ingest"), pytest.raises(NotFoundError):
        wiring.usage_store().reserve(uuid.uuid4(), "ingest", "chat", prompt_tokens=1, completion_tokens=0)


def test_who_has_no_budget_is_asked_for_none_until_there_is_one(deployment: Deployment) -> None:
    with deployment.function("rag_query"):
        usage = wiring.usage_store()

        def call() -> Reservation:
            counted = usage.reserve(deployment.tenant, "key:one", "chat", prompt_tokens=10, completion_tokens=10)
            usage.settle(
                Settlement(deployment.tenant, "key:one", "chat", counted.day, 1 - counted.requests, 10, 3)
                if counted.day is None
                else Settlement(deployment.tenant, "key:one", "chat", counted.day, 0, 0, -7)
            )
            return counted

        assert [call().day for _ in range(3)] == [None] * 3
        assert rows(deployment, USED) == [(3, 30, 9)]
        allow(deployment, deployment.tenant, requests_per_day=5)
        # The first call after it finds out, and counts.
        assert [call().day for _ in range(2)] == [None, datetime.now(UTC).date()]
        with pytest.raises(BudgetError):
            call()
        allow(deployment, deployment.tenant, requests_per_day=None)
        usage._refused.clear()
        assert call() == Reservation()
    assert rows(deployment, USED) == [(6, 60, 18)]


def test_a_first_budget_of_the_tenant_lets_one_call_of_a_sandbox_through_whoever_calls(deployment: Deployment) -> None:
    callers = [f"key:{number:08}" for number in range(5)]
    with deployment.function("rag_query"):
        usage = wiring.usage_store()

        def call(caller: str) -> Reservation:
            counted = usage.reserve(deployment.tenant, caller, "chat", prompt_tokens=10, completion_tokens=10)
            more = 1 - counted.requests
            usage.settle(Settlement(deployment.tenant, caller, "chat", counted.day, more, 0, 0))
            return counted

        assert {call(caller) for caller in callers} == {Reservation()}
        allow(deployment, deployment.tenant, requests_per_day=6)
        assert call(callers[0]) == Reservation()
        for caller in callers:
            with pytest.raises(BudgetError):
                call(caller)
        allow(deployment, deployment.tenant, requests_per_day=None)
        assert {call(caller) for caller in callers} == {Reservation()}
        allow(deployment, deployment.tenant, requests_per_day=1)
        # Also where it is another caller, of whom nothing was known yet, who is refused.
        for caller in ("key:newcomer", *callers):
            with pytest.raises(BudgetError):
                call(caller)
    assert rows(deployment, USED) == [(11, 0, 0)]


def test_a_refusal_that_is_remembered_holds_nothing_of_the_call_that_was_refused(deployment: Deployment) -> None:
    class Passage:
        """What a request has at hand."""

    def refused(work: Callable[[], object]) -> weakref.ref[Passage]:
        passage = Passage()
        with pytest.raises(BudgetError) as caught:
            work()
        assert caught.value.retry_after_seconds > 0
        return weakref.ref(passage)

    allow(deployment, deployment.tenant, requests_per_day=1)
    with deployment.function("rag_query"):
        usage = wiring.usage_store()
        call = partial(usage.reserve, deployment.tenant, "key:one", "chat", prompt_tokens=1, completion_tokens=0)
        call()
        left = [refused(call), *(refused(lambda: usage.require(deployment.tenant, "key:one")) for _ in range(3))]
        gc.collect()
        assert [each() for each in left] == [None] * 4


def test_a_key_with_a_budget_is_held_to_it_beside_one_without(deployment: Deployment) -> None:
    key_id = keys.parse(deployment.key)[0]
    with psycopg.connect(deployment.database.superuser_dsn(), autocommit=True) as connection:
        connection.execute(b"update api_keys set requests_per_day = 1 where id = %s", [key_id])
    with deployment.function("rag_query"):
        usage = wiring.usage_store()
        for _ in range(3):
            free = usage.reserve(deployment.tenant, "key:another0", "chat", prompt_tokens=1, completion_tokens=0)
            assert free == Reservation()
        counted = usage.reserve(deployment.tenant, f"key:{key_id}", "chat", prompt_tokens=1, completion_tokens=0)
        assert counted.requests == 1
        with pytest.raises(BudgetError, match="this key's budget of 1 requests"):
            usage.reserve(deployment.tenant, f"key:{key_id}", "chat", prompt_tokens=1, completion_tokens=0)


def test_what_is_settled_with_a_row_of_the_audit_log_is_settled_once(deployment: Deployment) -> None:
    """A statement whose answer was lost is sent again, and may have been done the first time."""
    entry = Entry(deployment.tenant, "key:one", "reader", "search", 200, "request", None)
    settlement = Settlement(deployment.tenant, "key:one", "chat", None, 1, 10, 3)
    with deployment.function("rag_query"):
        settling = wiring.usage_store().settling(settlement)
        told = [wiring.audit_store().write(entry, settling=settling) for _ in range(2)]
    assert told == [True, None]
    assert rows(deployment, USED) == [(1, 10, 3)]
