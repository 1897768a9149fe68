"""A document that failed is asked for again by the API, and its next ingest really begins."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests import fake_model
from tests.integration.deployment import Deployment, notification
from tests.integration.test_ingest import Inbox, rows, store

pytestmark = pytest.mark.slow

EMPTY = b"  "


@pytest.fixture
def inbox(deployment: Deployment) -> Iterator[Inbox]:
    opened = Inbox(deployment.aws)
    deployment.settings["RAG_RETRY_QUEUE_URL"] = opened.url
    yield opened
    opened.delete()


def messages(inbox: Inbox) -> list[str]:
    """What lies in the queue."""
    got = inbox.sqs.receive_message(QueueUrl=inbox.url, MaxNumberOfMessages=10, VisibilityTimeout=0)
    return [message["Body"] for message in got.get("Messages", [])]


def failed(deployment: Deployment, key: str = "empty.md") -> str:
    """The path of a document that failed for a reason of its own."""
    deployment.put(key, EMPTY)
    document = deployment.documents()[key]
    assert (document["status"], document["error"]["code"]) == ("failed", "EMPTY")
    return f"/v1/documents/{document['id']}"


def test_the_very_same_version_of_a_failed_document_is_ingested_again(deployment: Deployment, inbox: Inbox) -> None:
    path = failed(deployment)
    runs = "select count(*) from ingestions"
    [(before,)] = rows(deployment, runs)
    reply = deployment.ask("POST", f"{path}/retry")
    assert (reply.status, reply.json["status"]) == (202, "uploaded")
    waiting = deployment.ask("GET", path).json
    assert (waiting["status"], waiting["error"]) == ("uploaded", None)
    [body] = messages(inbox)
    assert deployment.ingest(body) == {"batchItemFailures": []}
    again = deployment.ask("GET", path).json
    assert (again["status"], again["error"]["code"]) == ("failed", "EMPTY")
    assert rows(deployment, runs) == [(before + 1,)]


def test_what_was_given_up_becomes_ready_after_a_retry(deployment: Deployment, inbox: Inbox) -> None:
    object_key = store(deployment, "one.md", "This is a note about larches.")
    deployment.model.script = [fake_model.status(400)]
    deployment.ingest(notification(object_key), receives=5)
    document = deployment.documents()["one.md"]
    assert (document["status"], document["error"]["code"]) == ("failed", "INTERNAL")
    assert deployment.ask("POST", f"/v1/documents/{document['id']}/retry").status == 202
    deployment.ingest(*messages(inbox))
    assert deployment.documents()["one.md"]["status"] == "ready"


def test_the_message_is_the_object_as_the_bucket_would_name_it(deployment: Deployment, inbox: Inbox) -> None:
    key = "a b/+größe%.md"
    assert deployment.ask("POST", f"{failed(deployment, key)}/retry").status == 202
    [body] = messages(inbox)
    [record] = json.loads(body)["Records"]
    [as_from_s3] = json.loads(notification(f"{deployment.tenant}/default/{key}"))["Records"]
    assert record["s3"]["object"]["key"] == as_from_s3["s3"]["object"]["key"]
    assert record["s3"]["bucket"]["name"] == as_from_s3["s3"]["bucket"]["name"]


def test_only_what_failed_is_tried_again(deployment: Deployment, inbox: Inbox) -> None:
    deployment.put("ready.md", "This is ready.")
    ready = deployment.documents()["ready.md"]["id"]
    assert deployment.ask("POST", f"/v1/documents/{ready}/retry").status == 409
    path = failed(deployment)
    assert [deployment.ask("POST", f"{path}/retry").status for _ in range(2)] == [202, 409]
    assert len(messages(inbox)) == 1


def test_a_foreign_document_is_absent_and_a_readers_key_is_not_enough(deployment: Deployment, inbox: Inbox) -> None:
    path = failed(deployment)
    stranger, _ = deployment.tenants.create("stranger")
    absent = f"/v1/documents/{stranger}/retry"
    foreign, unknown = (deployment.ask("POST", one, tenant=stranger) for one in (f"{path}/retry", absent))
    assert (foreign.status, unknown.status) == (404, 404)
    assert deployment.ask("POST", f"{path}/retry", role="reader").status == 403
    assert deployment.ask("GET", path).json["status"] == "failed"
    assert messages(inbox) == []


def test_when_the_queue_takes_nothing_the_document_stays_failed(deployment: Deployment, inbox: Inbox) -> None:
    path = failed(deployment)
    deployment.settings["RAG_RETRY_QUEUE_URL"] = inbox.url + "-absent"
    reply = deployment.ask("POST", f"{path}/retry")
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert deployment.ask("GET", path).json["status"] == "failed"


def test_the_query_function_may_change_no_document_but_by_a_retry(deployment: Deployment, inbox: Inbox) -> None:
    import psycopg

    failed(deployment)
    changes: list[Any] = [
        "update documents set status = 'ready'",
        "update documents set error_message = ''",
        "delete from documents",
    ]
    with psycopg.connect(deployment.database.dsn("rag_query"), autocommit=True) as connection:
        connection.execute("select set_config('app.tenant', %s, false)", [str(deployment.tenant)])
        for change in changes:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(change)
