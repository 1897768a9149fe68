"""What became of a document is told: at least once, never before its commit, and whoever is away for a while."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from local.aws import EVENTS
from rag import wiring
from rag.types import Delivery, Location
from tests import fake_model
from tests.integration.deployment import BUCKET, Context, Deployment, notification, sample
from tests.integration.receiver import Receiver, receiving
from tests.integration.test_ingest import Inbox, rows, store

pytestmark = pytest.mark.slow

QUIET = {"buried": 0, "told": 0, "left": 0, "given_up": 0}
SECRET = "whsec_" + "c2VjcmV0IHRoYXQgb25seSB0aGUgdHdvIG9mIHVzIGtub3c="
UNREACHABLE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def bus(deployment: Deployment, tmp_path: Path) -> None:
    deployment.settings["RAG_EVENT_BUS"] = f"bus-{uuid.uuid4()}"


@pytest.fixture(autouse=True)
def dead(deployment: Deployment) -> Iterator[Inbox]:
    """The dead letters of ingest."""
    opened = Inbox(deployment.aws)
    deployment.settings["RAG_DEAD_LETTER_QUEUE_URL"] = opened.url
    yield opened
    opened.delete()


@pytest.fixture
def receiver(deployment: Deployment) -> Iterator[Receiver]:
    """Where the webhook leads to."""
    with receiving() as made:
        name = f"webhook-{uuid.uuid4()}"
        deployment.aws.client("secretsmanager").create_secret(Name=name, SecretString=SECRET)
        deployment.settings |= {"RAG_WEBHOOK_URL": made.url, "RAG_WEBHOOK_SECRET": name}
        yield made


def notify(deployment: Deployment, **settings: str) -> Any:
    from functions.notify.handler import handler

    with deployment.function("rag_ingest", **settings):
        return handler(sample("notify/schedule.json"), Context(55))


def events(deployment: Deployment) -> list[dict[str, Any]]:
    """What this deployment's bus was given."""
    file = deployment.aws.directory / EVENTS
    every = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [event for event in every if event["bus"] == deployment.settings["RAG_EVENT_BUS"]]


def told(deployment: Deployment) -> list[tuple[str, str]]:
    return [(event["detail"]["key"], event["detail"]["status"]) for event in events(deployment)]


def waiting(deployment: Deployment) -> int:
    return len(rows(deployment, "table notifications"))


def make_due(deployment: Deployment) -> None:
    """Let the time pass that a failed attempt is put off."""
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        connection.execute("update notifications set due_at = now() where not provisional")


def without_bus(deployment: Deployment, act: Callable[[], Any]) -> Any:
    """EventBridge is down meanwhile; S3 and SQS are not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_EVENTBRIDGE", UNREACHABLE)
        return act()


def test_a_document_that_is_ready_is_told_of_with_its_batch(deployment: Deployment) -> None:
    deployment.put("boats/größe.md", "A note about boats.")
    [event] = events(deployment)
    document = deployment.documents()["boats/größe.md"]
    assert (event["source"], event["detail-type"]) == ("rag.documents", "Document ready")
    detail = event["detail"]
    assert {name: detail[name] for name in ("document_id", "key", "collection", "version_id", "chunk_count")} == {
        "document_id": document["id"],
        **{name: document[name] for name in ("key", "collection", "version_id", "chunk_count")},
    }
    assert (detail["tenant_id"], detail["status"], detail["error"]) == (str(deployment.tenant), "ready", None)
    assert datetime.fromisoformat(detail["uploaded_at"]) <= datetime.fromisoformat(detail["settled_at"])
    assert waiting(deployment) == 0
    assert notify(deployment) == QUIET


def test_a_document_that_failed_is_told_of_with_its_reason(deployment: Deployment) -> None:
    deployment.put("empty.md", b" ")
    [event] = events(deployment)
    assert event["detail-type"] == "Document failed"
    assert event["detail"]["error"] == deployment.documents()["empty.md"]["error"]
    assert event["detail"]["error"]["code"] == "EMPTY"


def test_every_version_is_told_of_once_and_a_repeated_message_is_not(deployment: Deployment) -> None:
    object_key = deployment.put("note.md", "The first words.")
    deployment.put("note.md", "The second words.")
    deployment.ingest(*[notification(object_key)] * 3)
    versions = [event["detail"]["version_id"] for event in events(deployment)]
    assert len(versions) == len(set(versions)) == 2


def test_nothing_is_told_of_a_transaction_that_is_rolled_back(deployment: Deployment) -> None:
    deployment.put("note.md", "A note.")
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        connection.execute("update documents set status = 'failed', error_code = 'CORRUPT', error_message = 'x'")
        assert connection.execute("select count(*) from notifications").fetchone() == (1,)
        connection.rollback()
    assert notify(deployment) == QUIET
    assert told(deployment) == [("note.md", "ready")]


def test_while_the_bus_is_down_documents_become_ready_and_are_told_of_afterwards(deployment: Deployment) -> None:
    for key in ("one.md", "two.md"):
        without_bus(deployment, lambda key=key: deployment.put(key, f"This is {key}."))
    assert {one["status"] for one in deployment.documents().values()} == {"ready"}
    assert (told(deployment), waiting(deployment)) == ([], 2)
    make_due(deployment)
    assert without_bus(deployment, lambda: notify(deployment))["left"] == 2
    # It is put off, so that a run a moment later does not hammer what is down.
    assert notify(deployment) == QUIET
    make_due(deployment)
    assert notify(deployment) == {**QUIET, "told": 2}
    assert sorted(told(deployment)) == [("one.md", "ready"), ("two.md", "ready")]
    assert waiting(deployment) == 0


def test_what_waits_of_every_tenant_is_told_more_than_a_batch_at_once(deployment: Deployment) -> None:
    stranger, _ = deployment.tenants.create("stranger")

    def upload() -> None:
        for number in range(12):
            deployment.put(f"{number}.md", b" ")
        deployment.put("foreign.md", b" ", tenant=stranger)

    without_bus(deployment, upload)
    make_due(deployment)
    assert notify(deployment) == {**QUIET, "told": 13}
    assert {event["detail"]["tenant_id"] for event in events(deployment)} == {str(deployment.tenant), str(stranger)}


def test_how_long_the_oldest_waits_is_measured(deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    without_bus(deployment, lambda: deployment.put("note.md", "A note."))
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        connection.execute("update notifications set settled_at = now() - interval '11 minutes', due_at = now()")
    capsys.readouterr()
    without_bus(deployment, lambda: notify(deployment))
    assert metric(capsys, "OldestNotificationSeconds") >= 660
    make_due(deployment)
    notify(deployment)
    assert metric(capsys, "OldestNotificationSeconds") == 0


def metric(capsys: pytest.CaptureFixture[str], name: str) -> float:
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"_aws"' in line]
    [value] = [line[name][0] for line in lines if name in line]
    return float(value)


def test_a_failure_that_a_running_delivery_may_yet_mend_is_not_told(deployment: Deployment) -> None:
    """At its last delivery a document counts as failed from the beginning."""
    object_key = store(deployment, "note.md", "A note about lighthouses.")
    seen = []

    def look(handler: Any, body: dict[str, Any]) -> None:
        seen.extend(rows(deployment, "select status, due_at > now() + interval '1 minute' from notifications"))
        fake_model.send_json(handler, fake_model.embeddings([fake_model.unit(text, 4) for text in body["input"]]))

    deployment.model.script = [look]
    assert deployment.ingest(notification(object_key), receives=5) == {"batchItemFailures": []}
    assert seen == [("failed", True)]
    assert told(deployment) == [("note.md", "ready")]


def test_a_document_that_is_given_up_is_told_of_with_its_last_delivery(deployment: Deployment) -> None:
    object_key = store(deployment, "note.md", "A note about lighthouses.")
    deployment.model.script = [fake_model.status(400)]
    deployment.ingest(notification(object_key), receives=5)
    [event] = events(deployment)
    assert (event["detail"]["status"], event["detail"]["error"]["code"]) == ("failed", "INTERNAL")
    assert event["detail"]["error"]["message"].startswith("given up after 5 deliveries")


def test_the_webhook_gets_each_message_signed_after_the_bus_had_it(deployment: Deployment, receiver: Receiver) -> None:
    deployment.put("note.md", "A note.")
    assert (told(deployment), receiver.requests) == ([("note.md", "ready")], [])
    make_due(deployment)
    assert notify(deployment) == {**QUIET, "told": 1}
    [request] = receiver.requests
    assert request.is_signed_with(SECRET)
    body = json.loads(request.body)
    [event] = events(deployment)
    assert (body["type"], body["data"]) == ("document.ready", event["detail"])
    assert request.headers["webhook-id"] == event["detail"]["notification_id"]
    assert waiting(deployment) == 0


def test_a_webhook_that_fails_gets_the_same_message_again_and_the_bus_does_not(
    deployment: Deployment, receiver: Receiver
) -> None:
    deployment.put("note.md", "A note.")
    for status in (500, 307, 410):
        receiver.status = status
        make_due(deployment)
        assert notify(deployment) == {**QUIET, "left": 1}
    receiver.status = 204
    make_due(deployment)
    assert notify(deployment) == {**QUIET, "told": 1}
    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1
    assert len(receiver.requests) == 4
    assert told(deployment) == [("note.md", "ready")]


def test_a_webhook_that_never_answers_is_given_up_after_a_day(deployment: Deployment, receiver: Receiver) -> None:
    receiver.status = 500
    deployment.put("note.md", "A note.")
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        connection.execute("update notifications set attempts = 148, due_at = now()")
    assert notify(deployment) == {**QUIET, "left": 1}
    make_due(deployment)
    assert notify(deployment) == {**QUIET, "given_up": 1}
    assert waiting(deployment) == 0


def test_the_document_of_a_dead_letter_fails_once_and_the_letter_stays(deployment: Deployment, dead: Inbox) -> None:
    """The sandbox was killed at every delivery before it could begin: nobody knows of the document."""
    body = notification(store(deployment, "lost.md", "Nobody has ever seen this."))
    dead.sqs.send_message(QueueUrl=dead.url, MessageBody=body)
    assert notify(deployment) == {**QUIET, "buried": 1, "told": 1}
    document = deployment.documents()["lost.md"]
    assert (document["status"], document["error"]["code"]) == ("failed", "INTERNAL")
    assert "dead letters" in document["error"]["message"]
    assert told(deployment) == [("lost.md", "failed")]
    assert notify(deployment) == QUIET
    letters = dead.sqs.receive_message(QueueUrl=dead.url, MaxNumberOfMessages=10).get("Messages", [])
    assert [letter["Body"] for letter in letters] == [body]


def test_a_dead_letter_says_nothing_of_what_is_ready_gone_unreadable_or_nobodys(
    deployment: Deployment, dead: Inbox
) -> None:
    ready = deployment.put("ready.md", "This is ready.")
    nobodys = f"{uuid.uuid4()}/default/x.md"
    deployment.s3.put_object(Bucket=BUCKET, Key=nobodys, Body=b"x")
    gone = f"{deployment.tenant}/default/gone.md"
    for body in (notification(ready, gone), notification(nobodys), "no notification"):
        dead.sqs.send_message(QueueUrl=dead.url, MessageBody=body)
    assert notify(deployment) == QUIET
    assert {key: one["status"] for key, one in deployment.documents().items()} == {"ready.md": "ready"}


def test_a_document_that_is_tried_again_is_not_failed_by_its_old_dead_letter(
    deployment: Deployment, dead: Inbox
) -> None:
    object_key = store(deployment, "lost.md", "Nobody has ever seen this.")
    dead.sqs.send_message(QueueUrl=dead.url, MessageBody=notification(object_key))
    assert notify(deployment)["buried"] == 1
    again = Inbox(deployment.aws)
    deployment.settings["RAG_RETRY_QUEUE_URL"] = again.url
    path = f"/v1/documents/{deployment.documents()['lost.md']['id']}"
    assert deployment.ask("POST", f"{path}/retry").status == 202
    assert notify(deployment) == QUIET
    assert deployment.ask("GET", path).json["status"] == "uploaded"
    deployment.ingest(notification(object_key))
    assert notify(deployment) == QUIET
    assert deployment.ask("GET", path).json["status"] == "ready"
    again.delete()


def test_the_outbox_shows_a_tenant_nothing_of_another(deployment: Deployment) -> None:
    without_bus(deployment, lambda: deployment.put("note.md", "A note."))
    stranger, _ = deployment.tenants.create("stranger")
    with psycopg.connect(deployment.database.dsn("rag_ingest"), autocommit=True) as connection:
        for tenant, count in ((deployment.tenant, 1), (stranger, 0), ("", 0)):
            connection.execute("select set_config('app.tenant', %s, false)", [str(tenant)])
            assert connection.execute("select count(*) from notifications").fetchone() == (count,)
    with (
        psycopg.connect(deployment.database.dsn("rag_query"), autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("table notifications")


def killed(deployment: Deployment, key: str, message_id: str) -> str:
    """A document at whose last delivery the sandbox was killed; its message."""
    location = Location(deployment.tenant, "default", key)
    store(deployment, key, "What kills whoever reads it.")
    with deployment.function("rag_ingest"):
        version = wiring.bucket().head(location.object_key)
        collection = wiring.index_store().collection(location, create=True)
        assert version
        assert collection
        given = {"lease_seconds": 600, "failure": "the last delivery did not end"}
        delivery = Delivery(message_id, 5, last=True)
        assert wiring.index_store().begin(location, collection, version, delivery, **given) == "new"
    return notification(location.object_key)


def test_a_dead_letter_ends_the_lease_of_the_run_that_was_killed_with_it(deployment: Deployment, dead: Inbox) -> None:
    sent = dead.sqs.send_message(QueueUrl=dead.url, MessageBody=notification(f"{deployment.tenant}/default/poison.md"))
    killed(deployment, "poison.md", sent["MessageId"])
    assert told(deployment) == []
    assert notify(deployment) == {**QUIET, "buried": 1, "told": 1}
    assert told(deployment) == [("poison.md", "failed")]
    assert notify(deployment) == QUIET


def test_a_redriven_message_waits_for_the_lease_and_is_not_lost(deployment: Deployment) -> None:
    body = killed(deployment, "poison.md", "the-first")
    assert deployment.ingest(body)["batchItemFailures"]
    assert deployment.documents()["poison.md"]["status"] == "failed"
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        connection.execute("update documents set leased_until = now()")
    assert deployment.ingest(body) == {"batchItemFailures": []}
    assert deployment.documents()["poison.md"]["status"] == "ready"


def test_a_retry_does_not_wait_for_a_run_that_was_killed(deployment: Deployment) -> None:
    body = killed(deployment, "poison.md", "the-first")
    again = Inbox(deployment.aws)
    deployment.settings["RAG_RETRY_QUEUE_URL"] = again.url
    path = f"/v1/documents/{deployment.documents()['poison.md']['id']}"
    assert deployment.ask("POST", f"{path}/retry").status == 202
    assert deployment.ingest(body) == {"batchItemFailures": []}
    assert deployment.ask("GET", path).json["status"] == "ready"
    again.delete()
