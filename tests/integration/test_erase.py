"""What is erased is gone from everywhere, and nothing that was on its way brings it back."""

from __future__ import annotations

import json
import time
import uuid
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
import redis

from tests.integration.deployment import (
    BUCKET,
    Context,
    Deployment,
    before_reply,
    notification,
    presenting,
    sample,
)

TEXT = "# Zeppelins\n\nA zeppelin is filled with helium. It carries nineteen passengers over the lake."
# Receipts stay, and who did what; and which models there are.
KEPT = {"erasures", "audit_log", "audit_documents", "embedding_spaces", "schema_migrations"}


def erased(deployment: Deployment, path: str) -> Any:
    """Ask for an erasure, have it done, and return the receipt."""
    begun = deployment.ask("DELETE", path)
    assert begun.status == 202, begun.json
    assert begun.json["status"] == "pending"
    assert deployment.erase(begun.json) == {"batchItemFailures": []}
    return deployment.ask("GET", f"/v1/erasures/{begun.json['id']}").json


def kept_for(receipt: Any) -> timedelta:
    """How long after the erasure the last backup that may hold it is gone."""
    return datetime.fromisoformat(receipt["backups_expire_at"]) - datetime.fromisoformat(receipt["finished_at"])


def rows_with(deployment: Deployment, text: str, *, but: set[str] = KEPT) -> dict[str, int]:
    """Table → rows in which this stands, in any column."""
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        tables = connection.execute("select tablename from pg_tables where schemaname = 'public'").fetchall()
        counts = {
            table: connection.execute(
                f"select count(*) from {table} as t where t::text like '%%' || %s || '%%'".encode(), [text]
            ).fetchall()[0][0]
            for (table,) in tables
            if table not in but
        }
    return {table: count for table, count in counts.items() if count}


def versions(deployment: Deployment, prefix: str) -> list[str]:
    page = deployment.s3.list_object_versions(Bucket=BUCKET, Prefix=prefix)
    return [each["VersionId"] for kind in ("Versions", "DeleteMarkers") for each in page.get(kind, [])]


def cached(deployment: Deployment, tenant: Any = None) -> list[str]:
    with redis.Redis.from_url(deployment.settings["RAG_REDIS_URL"], decode_responses=True) as client:
        kinds = ("answer", "embedding")
        return sorted(
            key for kind in kinds for key in client.scan_iter(match=f"{kind}:{tenant or deployment.tenant}:*")
        )


def hits(deployment: Deployment, query: str = "zeppelin", **more: Any) -> list[str]:
    reply = deployment.ask("POST", "/v1/search", {"query": query, **more})
    return [hit["key"] for hit in reply.json["hits"]] if reply.status == 200 else []


def test_an_erased_document_leaves_rows_versions_and_answers_nowhere(deployment: Deployment) -> None:
    object_key = deployment.put("air/zeppelin.md", "An older text of zeppelins.")
    deployment.put("air/zeppelin.md", TEXT)
    deployment.s3.put_object(Bucket=BUCKET, Key=f"{object_key}.metadata.json", Body=b'{"year": 1912}')
    deployment.put("air/balloon.md", "A balloon needs no engine.")
    deployment.ask("POST", "/v1/query", {"question": "What is a zeppelin filled with?"})
    document = deployment.documents()["air/zeppelin.md"]
    assert [key.partition(":")[0] for key in cached(deployment)] == ["answer", "embedding"]

    deployment.settings["RAG_BACKUP_DAYS"] = "7"
    receipt = erased(deployment, f"/v1/documents/{document['id']}")

    assert receipt["status"] == "done"
    assert (receipt["scope"], receipt["document_id"], receipt["collection"]) == ("document", document["id"], "default")
    assert receipt["removed"] == {
        "documents": 1,
        "chunks": document["chunk_count"],
        "collections": 0,
        "object_versions": 3,
        "cached_answers": 1,
        "conversations": 0,
        "feedback": 0,
        "kept_answers": 0,
        "audit_rows": 0,
    }
    assert receipt["caches_expire_at"] > receipt["finished_at"]
    assert kept_for(receipt) == timedelta(days=7)
    assert cached(deployment) == []
    assert hits(deployment) == ["air/balloon.md"]
    assert rows_with(deployment, document["id"]) == {}
    assert rows_with(deployment, "zeppelin", but={"embedding_spaces"}) == {}
    assert versions(deployment, object_key) == []
    [collection] = deployment.ask("GET", "/v1/collections").json["collections"]
    assert (collection["document_count"], collection["chunk_count"]) == (1, 1)


def test_a_neighbour_whose_key_begins_alike_is_spared(deployment: Deployment) -> None:
    deployment.put("plan", TEXT)
    neighbour = deployment.put("plan.md", "Another plan.")
    erased(deployment, f"/v1/documents/{deployment.documents()['plan']['id']}")
    assert set(deployment.documents()) == {"plan.md"}
    assert len(versions(deployment, neighbour)) == 1


def test_a_late_event_brings_nothing_back_while_the_erasure_is_under_way(deployment: Deployment) -> None:
    object_key = deployment.put("late.md", TEXT)
    document = deployment.documents()["late.md"]
    begun = deployment.ask("DELETE", f"/v1/documents/{document['id']}").json
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        connection.execute("delete from documents")
        connection.execute("delete from ingestions")
    # The object is still there, and its event comes once more.
    assert deployment.ingest(notification(object_key)) == {"batchItemFailures": []}
    assert rows_with(deployment, document["id"]) == {}
    assert deployment.erase(begun) == {"batchItemFailures": []}
    assert deployment.ingest(notification(object_key)) == {"batchItemFailures": []}
    assert rows_with(deployment, document["id"]) == {}
    assert versions(deployment, object_key) == []


def test_a_document_that_is_erased_while_it_is_embedded_is_not_indexed(deployment: Deployment) -> None:
    object_key = f"{deployment.tenant}/default/slow.md"
    deployment.put("slow.md", "The version before.")
    document = deployment.documents()["slow.md"]
    deployment.s3.put_object(Bucket=BUCKET, Key=object_key, Body=TEXT.encode())
    begun: list[Any] = []

    def ask_for_erasure() -> None:
        with psycopg.connect(deployment.database.superuser_dsn()) as connection:
            row = connection.execute(
                "insert into erasures (tenant_id, scope, collection, document_id, key, requested_by)"
                " values (%s, 'document', 'default', %s, 'slow.md', 'test') returning id",
                [deployment.tenant, document["id"]],
            ).fetchall()
        begun.append({"id": str(row[0][0])})

    deployment.model.script = [before_reply(ask_for_erasure)]
    assert deployment.ingest(notification(object_key)) == {"batchItemFailures": []}
    assert "zeppelin" not in str(rows_with(deployment, "zeppelin"))
    assert rows_with(deployment, "zeppelin") == {}
    assert deployment.erase(begun[0]) == {"batchItemFailures": []}
    assert deployment.documents() == {}
    assert versions(deployment, object_key) == []


def test_what_is_uploaded_after_an_erasure_was_asked_for_is_a_new_document(deployment: Deployment) -> None:
    object_key = deployment.put("again.md", TEXT)
    begun = deployment.ask("DELETE", f"/v1/documents/{deployment.documents()['again.md']['id']}").json
    # In the same second, which is all that S3 tells of a version's time.
    deployment.s3.put_object(Bucket=BUCKET, Key=object_key, Body=b"The second life of a zeppelin.")
    assert deployment.erase(begun) == {"batchItemFailures": []}
    assert len(versions(deployment, object_key)) == 1
    time.sleep(1.1)
    deployment.put("again.md", "The third life of a zeppelin.")
    assert hits(deployment) == ["again.md"]


def test_asking_twice_is_asking_once(deployment: Deployment) -> None:
    deployment.put("twice.md", TEXT)
    path = f"/v1/documents/{deployment.documents()['twice.md']['id']}"
    first, second = deployment.ask("DELETE", path), deployment.ask("DELETE", path)
    assert first.json["id"] == second.json["id"]
    deployment.erase(first.json)
    deployment.erase(first.json)
    assert deployment.ask("GET", f"/v1/erasures/{first.json['id']}").json["removed"]["documents"] == 1
    assert deployment.ask("DELETE", path).status == 404


def test_a_collection_goes_in_pages_and_goes_on_where_time_ran_out(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rag.store import erasures

    monkeypatch.setattr(erasures, "DOCUMENTS_AT_ONCE", 2)
    for number in range(5):
        deployment.put(f"{number}.md", f"{TEXT} {number}", collection="fleet")
    deployment.put("kept.md", TEXT)
    deployment.ask("POST", "/v1/query", {"question": "What is a zeppelin filled with?", "collection": "fleet"})
    queue = deployment.aws.client("sqs").create_queue(QueueName=f"erase-{uuid.uuid4().hex}")["QueueUrl"]

    begun = deployment.ask("DELETE", "/v1/collections/fleet").json
    assert deployment.erase(begun, seconds=20, erasure_queue_url=queue) == {"batchItemFailures": []}
    half = deployment.ask("GET", f"/v1/erasures/{begun['id']}").json
    assert (half["status"], half["removed"]["documents"]) == ("pending", 2)
    [message] = deployment.aws.client("sqs").receive_message(QueueUrl=queue)["Messages"]
    assert json.loads(message["Body"])["erasure_id"] == begun["id"]

    assert deployment.erase(begun) == {"batchItemFailures": []}
    receipt = deployment.ask("GET", f"/v1/erasures/{begun['id']}").json
    assert receipt["status"] == "done"
    assert receipt["removed"]["documents"] == 5
    assert receipt["removed"]["collections"] == 1
    assert receipt["removed"]["object_versions"] == 5
    assert receipt["removed"]["cached_answers"] >= 1
    assert versions(deployment, f"{deployment.tenant}/fleet/") == []
    assert [item["name"] for item in deployment.ask("GET", "/v1/collections").json["collections"]] == ["default"]
    assert rows_with(deployment, "fleet") == {}
    assert hits(deployment) == ["kept.md"]


def test_a_tenant_leaves_its_receipts_and_nothing_else(deployment: Deployment) -> None:
    from functions.authorize.handler import handler as authorize
    from functions.tenants.handler import handler as tenants

    with deployment.function("rag_admin"):
        made = tenants(sample("tenants/create.json"), Context())
    tenant = uuid.UUID(made["tenant_id"])
    deployment.put("mine.md", TEXT, tenant=tenant)
    deployment.put("ours.md", TEXT)
    deployment.ask("POST", "/v1/query", {"question": "What is a zeppelin?", "conversation": True}, tenant=tenant)
    event = presenting(("x-api-key", made["api_key"]))
    deployment.ask("POST", "/v1/query", {"question": "What is a zeppelin?"})

    with deployment.function("rag_admin"):
        begun = tenants(sample("tenants/erase.json") | {"tenant_id": str(tenant)}, Context())
    with deployment.function("rag_authorize"), pytest.raises(Exception, match="Unauthorized"):
        authorize(event, Context())
    assert deployment.erase(begun, tenant=tenant) == {"batchItemFailures": []}

    assert rows_with(deployment, str(tenant)) == {}
    assert versions(deployment, f"{tenant}/") == []
    assert cached(deployment, tenant) == []
    asked = sample("tenants/erasures.json") | {"tenant_id": str(tenant)}
    with deployment.function("rag_admin", backup_days="7"):
        [receipt] = tenants(asked, Context())["erasures"]
    assert receipt["status"] == "done"
    assert kept_for(receipt) == timedelta(days=7)
    with deployment.function("rag_admin"):
        [unkept] = tenants(asked, Context())["erasures"]
    assert unkept == receipt | {"backups_expire_at": None}
    assert receipt["removed"]["documents"] == 1
    # Another tenant notices nothing, not even of the answers in the cache.
    assert [key.partition(":")[0] for key in cached(deployment)] == ["answer", "embedding"]
    assert hits(deployment) == ["ours.md"]
    # What is still uploaded in its name is nobody's.
    deployment.put("mine.md", TEXT, tenant=tenant)
    assert rows_with(deployment, str(tenant)) == {}


def test_the_schedule_finds_what_no_message_came_for(deployment: Deployment) -> None:
    from functions.erase.handler import handler

    deployment.put("lost.md", TEXT)
    begun = deployment.ask("DELETE", f"/v1/documents/{deployment.documents()['lost.md']['id']}").json
    with deployment.function("rag_erase"):
        assert handler(sample("erase/schedule.json"), Context()) == {"unfinished": 0}
    assert deployment.ask("GET", f"/v1/erasures/{begun['id']}").json["status"] == "done"
    [listed] = deployment.ask("GET", "/v1/erasures").json["erasures"]
    assert listed["id"] == begun["id"]


def test_a_cache_that_is_away_keeps_the_receipt_open(deployment: Deployment) -> None:
    deployment.put("open.md", TEXT)
    begun = deployment.ask("DELETE", f"/v1/documents/{deployment.documents()['open.md']['id']}").json
    assert deployment.erase(begun, redis_url="redis://127.0.0.1:1/0")["batchItemFailures"]
    assert deployment.ask("GET", f"/v1/erasures/{begun['id']}").json["status"] == "pending"
    assert deployment.documents() == {}
    assert deployment.erase(begun) == {"batchItemFailures": []}
    assert deployment.ask("GET", f"/v1/erasures/{begun['id']}").json["status"] == "done"


def test_a_stranger_can_neither_erase_nor_read_receipts(deployment: Deployment) -> None:
    deployment.put("mine.md", TEXT)
    document = deployment.documents()["mine.md"]
    stranger, _ = deployment.tenants.create("second")
    assert deployment.ask("DELETE", f"/v1/documents/{document['id']}", tenant=stranger).status == 404
    assert deployment.ask("DELETE", "/v1/collections/absent").status == 404
    assert deployment.ask("DELETE", f"/v1/documents/{document['id']}", role="reader").status == 403
    assert deployment.ask("DELETE", "/v1/collections/default", role="writer").status == 403
    begun = deployment.ask("DELETE", f"/v1/documents/{document['id']}").json
    foreign = deployment.ask("GET", f"/v1/erasures/{begun['id']}", tenant=stranger)
    absent = deployment.ask("GET", f"/v1/erasures/{uuid.uuid4()}", tenant=stranger)
    assert (foreign.status, absent.status) == (404, 404)
    assert deployment.ask("GET", "/v1/erasures", tenant=stranger).json["erasures"] == []


def test_a_message_that_names_no_erasure_is_left_to_the_dead_letters(deployment: Deployment) -> None:
    from functions.erase.handler import handler

    event = sample("erase/message.json")
    event["Records"][0]["body"] = "[]"
    with deployment.function("rag_erase"):
        assert len(handler(event, Context())["batchItemFailures"]) == 1


def test_what_is_of_a_document_goes_with_it(deployment: Deployment) -> None:
    # They outlive the document on purpose, or are removed by name.
    alone = {"ingestions", "erasures", "audit_documents"}
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        naming = connection.execute(
            "select c.relname from pg_attribute a join pg_class c on c.oid = a.attrelid"
            " where a.attname = 'document_id' and c.relkind = 'r'"
        ).fetchall()
        references = connection.execute(
            "select conrelid::regclass::text, confrelid::regclass::text from pg_constraint"
            " where contype = 'f' and confdeltype = 'c'"
        ).fetchall()
    parents: dict[str, set[str]] = {}
    for table, parent in references:
        parents.setdefault(table, set()).add(parent)
    # By themselves, or by what they are a part of.
    going = {"documents"}
    while added := {table for table, of in parents.items() if of & going} - going:
        going |= added
    assert {name for (name,) in naming} - going == alone
