"""How often a caller may ask: the real handler, a real Valkey, and what is left when that goes away."""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from typing import Any

import pytest
import redis

from functions.query.problems import QUOTA_EXCEEDED
from rag.cache import Cache
from rag.throttling import Bucket, Throttle
from tests.integration.deployment import Deployment, Reply

COLLECTIONS = ("GET", "/v1/collections")


@pytest.fixture
def limited(deployment: Deployment) -> Deployment:
    """Three requests an hour for each key, five for the tenant."""
    deployment.settings |= {
        "RAG_RATE_LIMIT_REQUESTS": "3",
        "RAG_RATE_LIMIT_WINDOW": "3600",
        "RAG_TENANT_RATE_LIMIT_REQUESTS": "5",
    }
    return deployment


def ask(deployment: Deployment, key: str, **event: Any) -> Reply:
    return deployment.ask(*COLLECTIONS, principal=f"key:{key}", **event)


def test_a_key_over_its_limit_is_refused_in_every_sandbox_and_told_when_to_come_back(limited: Deployment) -> None:
    answers = [ask(limited, "one") for _ in range(3)]  # each in a sandbox of its own
    assert [answer.status for answer in answers] == [200] * 3
    assert answers[0].headers["ratelimit-policy"] == '"key";q=3;w=3600, "tenant";q=5;w=3600'
    told = [re.findall(r'"(\w+)";r=(\d+);t=(\d+)', answer.headers["ratelimit"]) for answer in answers]
    assert [(key, int(left), round(int(seconds), -2)) for levels in told for key, left, seconds in levels] == [
        *(("key", 2, 1200), ("tenant", 4, 700)),
        *(("key", 1, 2400), ("tenant", 3, 1400)),
        *(("key", 0, 3600), ("tenant", 2, 2200)),
    ]
    refused = ask(limited, "one")
    assert (refused.status, refused.headers["content-type"]) == (429, "application/problem+json")
    assert 1100 <= int(refused.headers["retry-after"]) <= 1200
    problem = refused.json
    assert (problem["type"], problem["violated-policies"]) == (QUOTA_EXCEEDED, ["key"])
    assert problem["detail"].startswith("this key may make 3 requests in 3600 s; try again in ")


def test_all_keys_of_a_tenant_share_its_limit_and_no_other_tenant_does(limited: Deployment) -> None:
    other, _ = limited.tenants.create("second")
    statuses = [ask(limited, key).status for key in ("one", "one", "one", "two", "two", "two")]
    assert statuses == [200] * 5 + [429]
    assert ask(limited, "three").json["violated-policies"] == ["tenant"]
    assert [ask(limited, "one", tenant=other).status for _ in range(3)] == [200] * 3


def test_nothing_is_done_for_who_is_refused(limited: Deployment) -> None:
    for _ in range(3):
        ask(limited, "one")
    # Neither the body is looked at, nor the role, nor the database.
    for body in ({"question": 7}, {"question": "What is it?"}):
        event = {"principal": "key:one", "role": "reader", "database_url": "postgresql://nobody@127.0.0.1:1/none"}
        assert limited.ask("POST", "/v1/query", body, **event).status == 429
    assert limited.model.requests == []


def test_who_shows_no_credential_takes_nothing_from_anybody(limited: Deployment) -> None:
    assert [limited.ask(*COLLECTIONS, anonymous=True).status for _ in range(10)] == [401] * 10
    public = [
        limited.ask("GET", path, anonymous=True) for path in ("/health", "/openapi.json", "/docs") for _ in range(5)
    ]
    assert {answer.status for answer in public} == {200}
    assert not any("ratelimit" in answer.headers for answer in public)
    assert ask(limited, "one").headers["ratelimit"].startswith('"key";r=2')


def test_a_keys_and_a_tenants_own_numbers_come_before_the_deployments(limited: Deployment) -> None:
    own = {"requests_per_minute": "1", "tenant_requests_per_minute": "0"}
    answer = ask(limited, "one", limits=own)
    assert answer.headers["ratelimit-policy"] == '"key";q=1;w=60'
    assert ask(limited, "one", limits=own).status == 429
    unlimited = {"requests_per_minute": "0", "tenant_requests_per_minute": "0"}
    answers = [ask(limited, "two", limits=unlimited) for _ in range(10)]
    assert [(answer.status, "ratelimit" in answer.headers) for answer in answers] == [(200, False)] * 10


def test_a_refusal_is_counted(limited: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(4):
        ask(limited, "one")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "RateLimitHits" in line]
    assert [line["RateLimitHits"] for line in lines] == [[1.0]]


def test_the_buckets_expire_and_name_nobody_but_the_tenant(limited: Deployment, valkey: Any) -> None:
    ask(limited, "one")
    with redis.Redis.from_url(valkey.url) as client:
        found = {key.decode(): client.ttl(key) for key in client.scan_iter()}
    assert len(found) == 2
    assert all(key.startswith(f"rate:{{{limited.tenant}}}:") for key in found)
    assert all(0 < seconds <= 1200 for seconds in found.values())


def test_a_bucket_of_garbage_is_a_full_one_and_one_from_the_future_is_empty_for_a_window(valkey: Any) -> None:
    throttle = Throttle(Cache(valkey.url, lambda: "", signing=lambda: "", ttl_seconds=60))
    bucket = Bucket.of_tenant(uuid.uuid4(), 5, 1)
    with redis.Redis.from_url(valkey.url) as client:
        client.set(bucket.name, "garbage")
        assert throttle.admit([bucket]).levels[0].remaining == 4
        client.set(bucket.name, str(10**18))
        assert not throttle.admit([bucket]).admitted
        time.sleep(0.25)
        assert throttle.admit([bucket]).admitted


def test_many_sandboxes_at_once_let_through_what_the_bucket_holds(valkey: Any) -> None:
    bucket = Bucket.of_tenant(uuid.uuid4(), 100, 3600)
    admitted: list[bool] = []
    start = threading.Barrier(10)

    def sandbox() -> None:
        throttle = Throttle(Cache(valkey.url, lambda: "", signing=lambda: "", ttl_seconds=60))
        start.wait()
        admitted.extend(throttle.admit([bucket]).admitted for _ in range(20))

    threads = [threading.Thread(target=sandbox) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(admitted), sum(admitted)) == (200, 100)


def test_it_takes_one_round_trip(valkey: Any) -> None:
    cache = Cache(valkey.url, lambda: "", signing=lambda: "", ttl_seconds=60)
    throttle, tenant = Throttle(cache), uuid.uuid4()
    buckets = [Bucket.of_key(tenant, "key:one", 100, 60), Bucket.of_tenant(tenant, 1000, 60)]
    throttle.admit(buckets)
    with redis.Redis.from_url(valkey.url) as client:
        before = client.info("commandstats")
        for _ in range(10):
            throttle.admit(buckets)
        after = client.info("commandstats")
    asked = {
        name: after[name]["calls"] - before.get(name, {"calls": 0})["calls"]
        for name in ("cmdstat_evalsha", "cmdstat_eval")
        if name in after
    }
    assert asked["cmdstat_evalsha"] == 10
    assert asked.get("cmdstat_eval", 0) == 0
