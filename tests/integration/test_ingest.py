"""Ingest through its handler, on real services: whatever events do, the index ends as the bucket is."""

from __future__ import annotations

import itertools
import json
import random
import resource
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from rag import wiring
from rag.types import Delivery, Location
from tests import fake_model
from tests.integration.deployment import BUCKET, Context, Deployment, before_reply, notification, sample
from tests.lexeme_counts import LEXEME_COUNTS

pytestmark = pytest.mark.slow

DONE: dict[str, Any] = {"batchItemFailures": []}
SAMPLE_TENANT = "0c6f9a52-6d0b-4d7a-9a53-5f0d3c1e2b11"
PLACES = ("trains", "canals", "bridges", "tunnels")


def paragraph(place: str, year: int = 1850) -> str:
    """About eighty words, so that four of them make four chunks."""
    return f"In {year} the {place} were measured. " + f"All the {place} of the county were walked and drawn again. " * 7


def handbook(**years: int) -> str:
    return "\n\n".join(f"# On {place}\n\n{paragraph(place, years.get(place, 1850))}" for place in PLACES)


class Inbox:
    """A real queue, so that messages come with receipt handles that mean something."""

    def __init__(self, aws: Any) -> None:
        self.sqs = aws.client("sqs")
        attributes = {"VisibilityTimeout": "600"}
        self.url = self.sqs.create_queue(QueueName=f"ingest-{uuid.uuid4()}", Attributes=attributes)["QueueUrl"]

    def deliver(self, *bodies: str) -> list[dict[str, Any]]:
        """Send messages and receive them, as records of an SQS event in the order sent."""
        return self.receive([self.sqs.send_message(QueueUrl=self.url, MessageBody=one)["MessageId"] for one in bodies])

    def receive(self, ids: list[str]) -> list[dict[str, Any]]:
        """Wait for these messages, well below the time that the queue itself would hide them."""
        template = sample("ingest/object_created.json")["Records"][0]
        came: dict[str, Any] = {}
        for _ in range(10):
            got = self.sqs.receive_message(
                QueueUrl=self.url, MaxNumberOfMessages=10, WaitTimeSeconds=5, MessageSystemAttributeNames=["All"]
            )
            for one in got.get("Messages", []):
                names = {"messageId": one["MessageId"], "receiptHandle": one["ReceiptHandle"], "body": one["Body"]}
                came[one["MessageId"]] = {**template, **names, "attributes": one["Attributes"]}
            if came.keys() >= set(ids):
                break
        return [came[identity] for identity in ids]

    def all(self) -> list[dict[str, Any]]:
        """What can be received now."""
        template = sample("ingest/object_created.json")["Records"][0]
        got = self.sqs.receive_message(
            QueueUrl=self.url, MaxNumberOfMessages=10, MessageSystemAttributeNames=["All"]
        ).get("Messages", [])
        return [
            {
                **template,
                "messageId": one["MessageId"],
                "receiptHandle": one["ReceiptHandle"],
                "body": one["Body"],
                "attributes": one["Attributes"],
            }
            for one in got
        ]

    def acknowledge(self, record: dict[str, Any]) -> None:
        self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=record["receiptHandle"])

    def count(self) -> int:
        """How many messages the queue still has, seen or not."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)

    def delete(self) -> None:
        self.sqs.delete_queue(QueueUrl=self.url)


@pytest.fixture
def inbox(deployment: Deployment) -> Iterator[Inbox]:
    opened = Inbox(deployment.aws)
    deployment.settings["RAG_QUEUE_URL"] = opened.url
    yield opened
    opened.delete()


def deliver(deployment: Deployment, records: list[dict[str, Any]], **settings: str) -> Any:
    from functions.ingest.handler import handler

    with deployment.function("rag_ingest", **settings):
        return handler({"Records": records}, Context())


def own(deployment: Deployment, name: str) -> list[dict[str, Any]]:
    """A sample event's records, whose documents are this deployment's tenant's."""
    text = json.dumps(sample(name)).replace(SAMPLE_TENANT, str(deployment.tenant))
    event = json.loads(text.replace(SAMPLE_TENANT.upper(), str(deployment.tenant).upper()))
    return list(event["Records"])


def store(deployment: Deployment, key: str, body: str | bytes, *, tenant: Any = None) -> str:
    """Put an object into the bucket and tell nobody; its object key."""
    object_key = f"{tenant or deployment.tenant}/default/{key}"
    deployment.s3.put_object(Bucket=BUCKET, Key=object_key, Body=body)
    return object_key


def rows(deployment: Deployment, query: str) -> list[tuple[Any, ...]]:
    """What a superuser sees, behind row-level security."""
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        return connection.execute(query.encode()).fetchall()


def contents(deployment: Deployment) -> list[str]:
    return [text for (text,) in rows(deployment, "select content from chunks order by document_id, position")]


TABLES = """
    select distinct table_name from information_schema.columns
    where table_schema = 'public' and (column_name = 'document_id' or table_name = 'documents')
"""
LEXEMES = f"""
    select coalesce(sum(abs(frequency)), 0) from (
      select sum(document_frequency) as frequency from {LEXEME_COUNTS} group by lexeme
    ) as sums
"""
TOTALS = "select coalesce(sum(document_count + chunk_count + lexeme_count), 0) from collection_statistics"


def counts(deployment: Deployment) -> dict[str, int]:
    """How many rows each table has that is about documents."""
    return {table: len(rows(deployment, f"table {table}")) for (table,) in rows(deployment, TABLES)}


def held(deployment: Deployment) -> dict[str, int]:
    """What there is of documents: rows, but for the history, and the sums of the statistics."""
    found = counts(deployment)
    del found["ingestions"], found["notifications"]  # the history, and what is still to be told
    [[lexemes], [totals]] = rows(deployment, LEXEMES), rows(deployment, TOTALS)
    return {**found, "lexeme_statistics": int(lexemes[0]), "collection_statistics": int(totals[0])}


def embedded(deployment: Deployment) -> list[str]:
    """Every text that the model was sent for embedding."""
    return [text for request in deployment.model.requests for text in request.get("input", [])]


def test_a_created_object_becomes_a_document_that_is_found(deployment: Deployment) -> None:
    [record] = own(deployment, "ingest/object_created.json")
    store(deployment, "policies/refunds and returns.md", "# Refunds\n\nRefunds take nine days.")
    assert deliver(deployment, [record]) == DONE
    document = deployment.documents()["policies/refunds and returns.md"]
    assert (document["status"], document["error"], document["chunk_count"]) == ("ready", None, 1)
    assert (document["title"], document["media_type"], document["size"]) == ("Refunds", "text/markdown", 34)
    [hit] = deployment.ask("POST", "/v1/search", {"query": "refunds"}).json["hits"]
    assert "Refunds take nine days." in hit["content"]


def test_a_delete_marker_takes_every_row_of_the_document(deployment: Deployment) -> None:
    object_key = deployment.put("policies/old.md", handbook())
    assert all(held(deployment)[table] for table in ("documents", "chunks", "embeddings", "lexeme_statistics"))
    deployment.s3.delete_object(Bucket=BUCKET, Key=object_key)
    assert deliver(deployment, own(deployment, "ingest/delete_marker.json")) == DONE
    assert set(held(deployment).values()) == {0}
    assert deployment.documents() == {}


def test_a_late_created_event_of_a_deleted_object_brings_nothing_back(deployment: Deployment) -> None:
    object_key = deployment.put("note.txt", "a note")
    deployment.s3.delete_object(Bucket=BUCKET, Key=object_key)
    deployment.ingest(notification(object_key, event="ObjectRemoved:DeleteMarkerCreated"))
    assert deployment.ingest(notification(object_key)) == DONE
    assert set(held(deployment).values()) == {0}


def test_a_late_delete_event_of_an_object_that_is_back_removes_nothing(deployment: Deployment) -> None:
    object_key = deployment.put("note.txt", "a note")
    assert deployment.ingest(notification(object_key, event="ObjectRemoved:DeleteMarkerCreated")) == DONE
    assert deployment.documents()["note.txt"]["status"] == "ready"


def test_a_replaced_object_leaves_only_its_new_version(deployment: Deployment) -> None:
    deployment.put("note.txt", handbook())
    deployment.put("note.txt", "Nothing but one line about rivers.")
    assert contents(deployment) == ["Nothing but one line about rivers."]
    assert counts(deployment)["embeddings"] == 1
    lexemes = rows(deployment, f"select lexeme from {LEXEME_COUNTS} group by 1 having sum(document_frequency) <> 0")
    assert len(lexemes) == len(["nothing", "but", "one", "line", "about", "rivers"])


def test_an_object_overwritten_while_it_is_embedded_ends_as_the_new_one_unmixed(deployment: Deployment) -> None:
    object_key = store(deployment, "note.md", handbook())
    deployment.model.script = [before_reply(lambda: store(deployment, "note.md", handbook(trains=1900, canals=1901)))]
    assert deployment.ingest(notification(object_key)) == DONE
    found = " ".join(contents(deployment))
    assert ("In 1900 the trains" in found, "In 1901 the canals" in found) == (True, True)
    assert found.count("were measured") == 4
    newest = deployment.s3.head_object(Bucket=BUCKET, Key=object_key)["VersionId"]
    assert deployment.documents()["note.md"]["version_id"] == newest
    told = rows(deployment, f"select version_id = '{newest}', outcome from ingestions order by id")
    assert told == [(False, "superseded"), (True, "ready")]


def test_a_document_tells_its_whole_story_the_newest_first(deployment: Deployment, inbox: Inbox) -> None:
    object_key = deployment.put("note.md", handbook())
    first = deployment.documents()["note.md"]["version_id"]
    [record] = inbox.deliver(notification(store(deployment, "note.md", handbook(trains=1900))))
    second = deployment.s3.head_object(Bucket=BUCKET, Key=object_key)["VersionId"]
    deployment.model.script = [fake_model.status(400)]
    price = {"embedding_usd_per_million_tokens": "20"}
    assert deliver(deployment, [record], **price)["batchItemFailures"]
    record["attributes"]["ApproximateReceiveCount"] = "2"
    assert deliver(deployment, [record], **price) == DONE
    path = f"/v1/documents/{deployment.documents()['note.md']['id']}"
    told = deployment.ask("GET", path).json["history"]
    assert [(one["attempt"], one["version_id"], one["outcome"]) for one in told] == [
        (2, second, "ready"),
        (1, second, "interrupted"),
        (1, first, "ready"),
    ]
    assert [one["error"] for one in told] == [
        None,
        {"code": "LATER", "message": "the model is not available: status 400"},
        None,
    ]
    assert [(one["model_calls"], one["chunk_count"], one["embedded_count"]) for one in told] == [
        (1, 4, 1),
        (1, 0, 0),
        (1, 4, 4),
    ]
    assert told[0]["cost_usd"] == pytest.approx(told[0]["tokens"] * 20e-6)
    assert [one["tokens"] for one in told] == [1, 0, 1]
    assert told[2]["cost_usd"] is None
    assert set(told[0]["durations_ms"]) == {"fetch", "parse", "embed", "store"}
    assert deployment.ask("GET", path, tenant=uuid.uuid4()).status == 404


def test_an_object_deleted_while_it_is_embedded_leaves_nothing(deployment: Deployment) -> None:
    object_key = store(deployment, "note.md", handbook())
    deployment.model.script = [before_reply(lambda: deployment.s3.delete_object(Bucket=BUCKET, Key=object_key))]
    assert deployment.ingest(notification(object_key)) == DONE
    assert set(held(deployment).values()) == {0}


def test_an_object_that_never_holds_still_goes_back_to_the_queue(deployment: Deployment, inbox: Inbox) -> None:
    object_key = store(deployment, "note.md", "draft")
    drafts = iter(range(100))
    rewrite = before_reply(lambda: store(deployment, "note.md", f"draft number {next(drafts)}"))
    deployment.model.script = [rewrite] * 10
    [record] = inbox.deliver(notification(object_key))
    assert deliver(deployment, [record]) == {"batchItemFailures": [{"itemIdentifier": record["messageId"]}]}
    assert contents(deployment) == []
    deployment.model.script = []
    assert deployment.ingest(notification(object_key)) == DONE
    assert contents(deployment) == [f"draft number {next(drafts) - 1}"]


def test_the_same_event_five_times_makes_one_version_and_no_extra_call(deployment: Deployment) -> None:
    body = notification(store(deployment, "note.md", handbook()))
    assert deployment.ingest(body, body) == DONE
    calls, state = len(deployment.model.requests), rows(deployment, "select * from documents")
    for _ in range(3):
        assert deployment.ingest(body) == DONE
    assert len(deployment.model.requests) == calls == 1
    assert rows(deployment, "select * from documents") == state
    assert counts(deployment) == {
        "audit_documents": 0,
        "chunks": 4,
        "documents": 1,
        "embeddings": 4,
        "erasures": 0,
        "ingestions": 1,
        "notifications": 1,
        "pending_chunks": 0,
        "pending_documents": 0,
        "pending_embeddings": 0,
        "recognised_pages": 0,
    }


@pytest.mark.fault("A9")
def test_one_poison_message_of_a_batch_fails_alone(deployment: Deployment, inbox: Inbox) -> None:
    for key in ("one.md", "two.md"):
        store(deployment, key, f"This is {key}.")
    bodies = [record["body"] for record in own(deployment, "ingest/batch_with_poison.json")]
    records = inbox.deliver(*bodies)
    assert deliver(deployment, records) == {"batchItemFailures": [{"itemIdentifier": records[1]["messageId"]}]}
    assert {key: one["status"] for key, one in deployment.documents().items()} == {"one.md": "ready", "two.md": "ready"}


@pytest.mark.fault("A8")
@pytest.mark.parametrize(
    "poison",
    [
        "",
        "[]",
        '"Records"',
        '{"Records": null}',
        '{"Records": [1]}',
        '{"Records": [{"s3": null}]}',
        '{"Records": [{"s3": {"object": {}}}]}',
        '{"Records": [{"s3": {"object": {"key": 5}}}]}',
        "[" * 100_000,
    ],
    ids=lambda text: text[:40] or "empty",
)
def test_what_is_no_notification_fails_and_hinders_nobody(deployment: Deployment, poison: str) -> None:
    good = notification(store(deployment, "good.txt", "A good document."))
    # Its receipt handle means nothing to a queue: even the failure to put a failure off is the poison's own affair.
    assert deployment.ingest(good, poison, good) == {"batchItemFailures": [{"itemIdentifier": "1"}]}
    assert deployment.documents()["good.txt"]["status"] == "ready"


@pytest.mark.fault("A8")
@pytest.mark.parametrize("name", ["ingest/test_event.json", "ingest/nobodys_keys.json"])
def test_what_is_nobodys_document_is_acknowledged_and_touches_nothing(deployment: Deployment, name: str) -> None:
    records = own(deployment, name)
    for record in records:
        for named in json.loads(record["body"]).get("Records", []):
            deployment.s3.put_object(Bucket=BUCKET, Key=named["s3"]["object"]["key"].replace("%20", " "), Body=b"text")
    assert deliver(deployment, records) == DONE
    assert set(counts(deployment).values()) == {0}
    assert deployment.model.requests == []


@pytest.mark.fault("A7")
def test_an_empty_object_that_stands_for_a_folder_is_no_document(deployment: Deployment) -> None:
    assert deployment.ingest(notification(store(deployment, "folder/", b""))) == DONE
    assert set(counts(deployment).values()) == {0}


@pytest.mark.fault("A8")
def test_what_came_by_eventbridge_or_sns_is_ingested_as_well(deployment: Deployment) -> None:
    keys = [store(deployment, key, f"This is {key}.") for key in ("é +%.txt", "b.txt")]
    detail = {"bucket": {"name": BUCKET}, "object": {"key": keys[0]}}
    eventbridge = {"source": "aws.s3", "detail-type": "Object Created", "detail": detail}
    sns = {"Type": "Notification", "TopicArn": "arn:aws:sns:us-east-1:1:topic", "Message": notification(keys[1])}
    assert deployment.ingest(json.dumps(eventbridge), json.dumps(sns)) == DONE
    assert {key: one["status"] for key, one in deployment.documents().items()} == {
        "é +%.txt": "ready",
        "b.txt": "ready",
    }


@pytest.mark.fault("A12")
def test_what_is_ignored_is_counted_and_acknowledged(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    own = store(deployment, ".rag/a.txt", "Made of a document.")
    assert deployment.ingest(notification(own), '{"Event": "s3:TestEvent"}') == DONE
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"_aws"' in line]
    assert {line["reason"]: line["EventsIgnored"] for line in lines if "reason" in line} == {
        "own": [1.0],
        "empty": [1.0],
    }
    assert [line["OwnObjectsRefused"] for line in lines if "OwnObjectsRefused" in line] == [[1.0]]
    assert set(counts(deployment).values()) == {0}
    assert deployment.ask("POST", "/v1/documents", {"key": ".rag/a.txt"}).status == 422


@contextmanager
def announced(deployment: Deployment, inbox: Inbox) -> Iterator[None]:
    """S3 tells the queue of every object of the tenant, whoever writes it."""
    s3 = deployment.s3
    arn = inbox.sqs.get_queue_attributes(QueueUrl=inbox.url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    rules = [{"Name": "prefix", "Value": f"{deployment.tenant}/"}]
    every = {"QueueArn": arn, "Events": ["s3:ObjectCreated:*"], "Filter": {"Key": {"FilterRules": rules}}}
    s3.put_bucket_notification_configuration(Bucket=BUCKET, NotificationConfiguration={"QueueConfigurations": [every]})
    try:
        yield
    finally:
        s3.put_bucket_notification_configuration(Bucket=BUCKET, NotificationConfiguration={})


def invocations(deployment: Deployment, inbox: Inbox, *, most: int) -> int:
    """How many it takes until the queue is empty, each with one message; what feeds on itself ends at `most`."""
    count = 0
    while count < most and (records := inbox.all()):
        for record in records:
            assert deliver(deployment, [record]) == DONE
            inbox.acknowledge(record)
            count += 1
    return count


@pytest.mark.faults_full
def test_an_upload_is_one_invocation_and_what_is_written_below_it_is_refused(
    deployment: Deployment, inbox: Inbox, record_fault: Any
) -> None:
    uploads = 10
    with announced(deployment, inbox):
        [_] = inbox.all()  # S3's test event
        inbox.sqs.purge_queue(QueueUrl=inbox.url)
        for number in range(uploads):
            store(deployment, f"alone-{number}.txt", f"Note {number} is alone.")
        alone = invocations(deployment, inbox, most=10 * uploads)
        written = itertools.count()
        deployment.model.always = before_reply(
            lambda: store(deployment, f".rag/{next(written)}.txt", "Made of a document.")
        )
        for number in range(uploads):
            store(deployment, f"written-{number}.txt", f"Note {number} has something written beside it.")
        beside = invocations(deployment, inbox, most=10 * uploads)
    [(documents, runs)] = rows(deployment, "select count(*), (select count(*) from ingestions) from documents")
    record_fault(
        "A12",
        injected=uploads,
        violations=abs(alone - uploads) + abs(beside - 2 * uploads) + abs(runs - 2 * uploads),
        figure=f"{alone / uploads:g} invocations per upload; of {beside - uploads} objects written below the input "
        f"{beside - uploads - (documents - 2 * uploads)} refused, {runs / (2 * uploads):g} ingestions per upload",
    )
    assert (alone, beside, documents, runs) == (uploads, 2 * uploads, 2 * uploads, 2 * uploads)


@pytest.mark.fault("A6")
def test_deleting_an_old_version_changes_nothing_and_removing_the_marker_brings_the_document_back(
    deployment: Deployment,
) -> None:
    object_key = store(deployment, "note.txt", "The old words.")
    old = deployment.s3.head_object(Bucket=BUCKET, Key=object_key)["VersionId"]
    deployment.put("note.txt", "The new words.")
    deployment.s3.delete_object(Bucket=BUCKET, Key=object_key, VersionId=old)
    removed = notification(object_key, event="ObjectRemoved:Delete")
    assert deployment.ingest(removed) == DONE
    assert contents(deployment) == ["The new words."]
    marker = deployment.s3.delete_object(Bucket=BUCKET, Key=object_key)["VersionId"]
    assert deployment.ingest(notification(object_key, event="ObjectRemoved:DeleteMarkerCreated")) == DONE
    assert contents(deployment) == []
    deployment.s3.delete_object(Bucket=BUCKET, Key=object_key, VersionId=marker)
    assert deployment.ingest(removed) == DONE
    assert contents(deployment) == ["The new words."]


@pytest.mark.fault("A8")
def test_an_empty_notification_is_acknowledged(deployment: Deployment) -> None:
    assert deployment.ingest('{"Records": []}', '{"Event": "s3:TestEvent"}') == DONE
    assert set(counts(deployment).values()) == {0}


@pytest.mark.faults_full
def test_keys_come_back_as_they_were_whatever_is_in_them(deployment: Deployment, record_fault: Any) -> None:
    keys = [
        *(f"{letter}-{number}.txt" for number, letter in enumerate(" !\"$&'()*+,:;<=>@[\\]^`{|}~")),
        "%00.txt",
        "\N{SYMBOL FOR NULL}\t.txt",
        "no extension",
        ".hidden.txt",
        "with spaces  and+plus.txt",
        "100%25 %41.txt",
        "café/été.txt",
        "cafe\u0301.txt",
        "\N{PARTY POPPER} \N{RIGHT-TO-LEFT OVERRIDE}.txt",
        "a/../b.txt",
        "../up.txt",
        "//doubled//.txt",
        "?#&='\"\\.txt",
        "\N{LATIN SMALL LETTER E WITH ACUTE}" * 448 + ".txt",
    ]
    # S3 takes 1,024 bytes, tenant and collection among them.
    keys.append("k" * (1024 - len(f"{deployment.tenant}/default/")))
    assert (len(keys), len(keys[-2].encode())) == (41, 900)
    bodies = [notification(store(deployment, key, f"document {n}")) for n, key in enumerate(keys)]
    assert deployment.ingest(*bodies) == DONE
    found = {key: one["status"] for key, one in deployment.documents().items()}
    held = dict(rows(deployment, "select key, content from documents d join chunks c on c.document_id = d.id"))
    right = [found.get(key) == "ready" and held.get(key) == f"document {n}" for n, key in enumerate(keys)]
    back, beside = right.count(True), len(found.keys() - set(keys))
    figure = f"{back} of {len(keys)} keys came back as they were, {beside} others"
    record_fault("A7", injected=len(keys), violations=len(keys) - back + beside, figure=figure)
    assert (right, beside) == ([True] * len(keys), 0)


def test_an_unknown_tenants_object_is_acknowledged_and_makes_no_row(deployment: Deployment) -> None:
    stranger = store(deployment, "note.txt", "text", tenant=uuid.uuid4())
    own_key = store(deployment, "note.txt", "text")
    assert deployment.ingest(notification(stranger), notification(own_key)) == DONE
    assert rows(deployment, "select count(*), count(distinct tenant_id) from documents") == [(1, 1)]


FAILURES = [
    (b"", "EMPTY", {}),
    (b" \n\t \n", "EMPTY", {}),
    (random.Random(7).randbytes(4096), "UNSUPPORTED", {}),
    (b"%PDF-1.7\n% and then nothing that a PDF has", "CORRUPT", {}),
    (b"more than ten bytes of text", "TOO_LARGE", {"max_document_bytes": "10"}),
]


@pytest.mark.parametrize(("body", "code", "settings"), FAILURES, ids=["empty", "blank", "noise", "torn", "large"])
def test_a_failed_document_says_why_and_keeps_nothing_of_the_version_before(
    deployment: Deployment, body: bytes, code: str, settings: dict[str, str]
) -> None:
    deployment.put("report.dat", handbook())
    event = notification(store(deployment, "report.dat", body))
    assert deployment.ingest(event, **settings) == DONE
    document = deployment.documents()["report.dat"]
    assert (document["status"], document["error"]["code"], document["chunk_count"]) == ("failed", code, 0)
    assert len(document["error"]["message"]) > 10
    assert held(deployment) == dict.fromkeys(held(deployment), 0) | {"documents": 1}
    assert rows(deployment, "select outcome, error_code from ingestions order by id desc limit 1") == [("failed", code)]


def test_a_failed_document_that_is_replaced_becomes_ready_and_its_error_goes(deployment: Deployment) -> None:
    deployment.put("note.txt", "")
    assert deployment.documents()["note.txt"]["status"] == "failed"
    deployment.put("note.txt", "Now there is something in it.")
    document = deployment.documents()["note.txt"]
    assert (document["status"], document["error"], document["chunk_count"]) == ("ready", None, 1)


def test_when_the_model_is_down_the_message_fails_and_comes_back_when_the_model_asks(
    deployment: Deployment, inbox: Inbox
) -> None:
    [record] = inbox.deliver(notification(store(deployment, "note.txt", "A note about rivers.")))
    deployment.model.script = [fake_model.status(400, Retry_After="1")]
    assert deliver(deployment, [record]) == {"batchItemFailures": [{"itemIdentifier": record["messageId"]}]}
    document = deployment.documents()["note.txt"]
    assert (document["status"], document["error"], document["chunk_count"]) == ("processing", None, 0)
    [again] = inbox.receive([record["messageId"]])
    assert again["attributes"]["ApproximateReceiveCount"] == "2"
    assert deliver(deployment, [again]) == DONE
    assert deployment.documents()["note.txt"]["status"] == "ready"


def test_while_the_model_is_down_the_version_before_stays_searchable(deployment: Deployment, inbox: Inbox) -> None:
    deployment.put("note.txt", "Old words about rivers.")
    [record] = inbox.deliver(notification(store(deployment, "note.txt", "New words about lakes.")))
    deployment.model.script = [fake_model.status(400)]
    assert deliver(deployment, [record])["batchItemFailures"]
    [hit] = deployment.ask("POST", "/v1/search", {"query": "rivers", "mode": "lexical"}).json["hits"]
    assert hit["content"] == "Old words about rivers."


def test_the_last_delivery_writes_the_failure_on_the_document_and_still_fails(deployment: Deployment) -> None:
    event = notification(store(deployment, "note.txt", "A note about rivers."))
    deployment.model.script = [fake_model.status(400)]
    failed = deployment.ingest(event, receives=3, max_receives="3")
    assert failed == {"batchItemFailures": [{"itemIdentifier": "0"}]}
    document = deployment.documents()["note.txt"]
    assert (document["status"], document["error"]["code"]) == ("failed", "INTERNAL")
    assert document["error"]["message"] == "given up after 3 deliveries: the model is not available: status 400"


def test_the_last_delivery_fails_only_the_document_that_failed(deployment: Deployment) -> None:
    keys = [store(deployment, key, f"This is {key}.") for key in ("good.txt", "bad.txt")]
    deployment.model.script = [before_reply(lambda: None), fake_model.status(400)]
    assert deployment.ingest(notification(*keys), receives=5)["batchItemFailures"]
    states = {key: one["status"] for key, one in deployment.documents().items()}
    assert states == {"good.txt": "ready", "bad.txt": "failed"}


def test_a_document_that_was_given_up_keeps_its_version_before_and_becomes_ready_when_delivered_again(
    deployment: Deployment,
) -> None:
    deployment.put("note.txt", "Old words about rivers.")
    event = notification(store(deployment, "note.txt", "New words about lakes."))
    deployment.model.script = [fake_model.status(400)]
    assert deployment.ingest(event, receives=5)["batchItemFailures"]
    assert deployment.documents()["note.txt"]["status"] == "failed"
    search = {"query": "words", "mode": "lexical"}
    [hit] = deployment.ask("POST", "/v1/search", search).json["hits"]
    assert hit["content"] == "Old words about rivers."
    assert deployment.ingest(event) == DONE
    assert deployment.documents()["note.txt"]["status"] == "ready"
    [hit] = deployment.ask("POST", "/v1/search", search).json["hits"]
    assert hit["content"] == "New words about lakes."


def vectors(vector: list[float]) -> fake_model.Reply:
    return lambda handler, body: fake_model.send_json(handler, fake_model.embeddings([vector] * len(body["input"])))


BAD_VECTORS = {
    "not a number": [1.0, float("nan"), 1.0, 1.0],
    "infinite": [1.0, float("inf"), 1.0, 1.0],
    "zero": [0.0] * 4,
    "narrow": [1.0] * 3,
    "wide": [1.0] * 5,
}


@pytest.mark.parametrize("vector", BAD_VECTORS.values(), ids=BAD_VECTORS)
def test_a_vector_that_is_no_use_is_never_stored(
    deployment: Deployment, inbox: Inbox, monkeypatch: pytest.MonkeyPatch, vector: list[float]
) -> None:
    monkeypatch.setattr("rag.llm.BACKOFF_SECONDS", 0.0)
    deployment.model.script = [vectors(vector)] * 3
    [record] = inbox.deliver(notification(store(deployment, "note.txt", "A note about rivers.")))
    assert deliver(deployment, [record])["batchItemFailures"]
    assert deployment.model.script == []
    assert (counts(deployment)["embeddings"], counts(deployment)["pending_embeddings"]) == (0, 0)
    assert deployment.documents()["note.txt"]["status"] == "processing"


def test_a_changed_document_embeds_its_changed_chunks_only(deployment: Deployment) -> None:
    deployment.put("note.md", handbook())
    assert len(embedded(deployment)) == 4
    deployment.model.requests.clear()
    deployment.put("note.md", handbook(canals=1900))
    [text] = embedded(deployment)
    assert "In 1900 the canals" in text
    assert len(contents(deployment)) == 4
    assert rows(deployment, "select chunk_count, embedded_count from ingestions order by id") == [(4, 4), (4, 1)]


def test_what_was_embedded_before_the_model_went_down_is_not_embedded_again(
    deployment: Deployment, inbox: Inbox
) -> None:
    [record] = inbox.deliver(notification(store(deployment, "note.md", handbook())))
    deployment.model.script = [before_reply(lambda: None), before_reply(lambda: None), fake_model.status(400)]
    assert deliver(deployment, [record], batch_size="1")["batchItemFailures"]
    # The fourth may have been under way when the third failed.
    kept = len(embedded(deployment)) - 1
    assert (counts(deployment)["pending_embeddings"], counts(deployment)["chunks"]) == (kept, 0)
    assert kept in {2, 3}
    deployment.model.requests.clear()
    assert deliver(deployment, [record], batch_size="1") == DONE
    assert len(embedded(deployment)) == 4 - kept
    assert (counts(deployment)["pending_embeddings"], counts(deployment)["chunks"]) == (0, 4)


def test_the_same_content_as_a_new_version_leaves_the_same_rows(deployment: Deployment) -> None:
    def state() -> list[Any]:
        return [
            rows(deployment, "select * from chunks order by id"),
            rows(deployment, "select * from embeddings order by chunk_id"),
            rows(
                deployment,
                "select id, key, status, content_hash, size, media_type, title, chunk_count, created_at from documents",
            ),
        ]

    deployment.put("note.md", handbook())
    first = state()
    deployment.model.requests.clear()
    deployment.put("note.md", handbook())
    assert state() == first
    assert len(set(rows(deployment, "select version_id from ingestions"))) == 2
    assert embedded(deployment) == []


def test_documents_of_one_batch_wait_for_the_model_at_the_same_time(deployment: Deployment) -> None:
    all_there = threading.Barrier(3)

    def reply(handler: Any, body: dict[str, Any]) -> None:
        all_there.wait(60)  # which one after another never are
        fake_model.send_json(handler, fake_model.embeddings([[1.0] * 4 for _ in body["input"]]))

    bodies = [notification(store(deployment, f"{number}.txt", paragraph(f"n{number}"))) for number in range(3)]
    deployment.model.script = [reply] * 3
    assert deployment.ingest(*bodies, ingest_threads="3") == DONE
    assert [item["status"] for item in deployment.documents().values()] == ["ready"] * 3


def test_several_messages_of_one_document_in_a_batch_embed_it_once(deployment: Deployment) -> None:
    bodies = [notification(store(deployment, f"{number % 2}.txt", paragraph(f"n{number % 2}"))) for number in range(6)]
    assert deployment.ingest(*bodies) == DONE
    texts = embedded(deployment)
    assert len(texts) == len(set(texts)) == len(contents(deployment))


def test_documents_that_wait_in_a_batch_are_visible_as_uploaded(deployment: Deployment) -> None:
    bodies = [notification(store(deployment, f"{n}.txt", f"This is document {n}.")) for n in range(3)]
    seen: list[Any] = []
    look = before_reply(lambda: seen.extend(rows(deployment, "select key, status from documents order by key")))
    deployment.model.script = [look]
    assert deployment.ingest(*bodies, ingest_threads="1") == DONE
    assert seen == [("0.txt", "processing"), ("1.txt", "uploaded"), ("2.txt", "uploaded")]


def test_when_the_database_is_down_every_message_fails_and_none_is_lost(deployment: Deployment, inbox: Inbox) -> None:
    records = inbox.deliver(*(notification(store(deployment, f"{n}.txt", "text")) for n in range(2)))
    dead = deployment.database.dsn("rag_ingest").replace(str(deployment.database.server.port), "1")
    failed = deliver(deployment, records, database_url=dead)
    ids = [record["messageId"] for record in records]
    assert [one["itemIdentifier"] for one in failed["batchItemFailures"]] == ids
    assert deliver(deployment, inbox.receive(ids)) == DONE
    assert {one["status"] for one in deployment.documents().values()} == {"ready"}


def sidecar(deployment: Deployment, key: str, content: Any) -> str:
    """Put a sidecar beside a document and return its event."""
    text = content if isinstance(content, (str, bytes)) else json.dumps(content)
    return notification(store(deployment, key + ".metadata.json", text))


def shown(deployment: Deployment, key: str) -> tuple[Any, Any]:
    document = deployment.documents()[key]
    return document["metadata"], document["metadata_error"]


def test_a_sidecar_may_come_before_with_or_after_its_document(deployment: Deployment) -> None:
    assert deployment.ingest(sidecar(deployment, "before.txt", {"n": 1})) == DONE
    assert set(counts(deployment).values()) == {0}
    deployment.put("before.txt", "A note.")
    both = [sidecar(deployment, "with.txt", {"n": 2}), notification(store(deployment, "with.txt", "Another note."))]
    assert deployment.ingest(*both) == DONE
    deployment.put("after.txt", "A third note.")
    assert deployment.ingest(sidecar(deployment, "after.txt", {"n": 3})) == DONE
    found = {key: shown(deployment, key) for key in deployment.documents()}
    assert found == {"before.txt": ({"n": 1}, None), "with.txt": ({"n": 2}, None), "after.txt": ({"n": 3}, None)}
    assert len(embedded(deployment)) == 3


def test_a_sidecar_changes_metadata_and_neither_chunks_nor_embeddings(deployment: Deployment) -> None:
    deployment.put("note.md", handbook())
    before = [sorted(rows(deployment, f"table {table}")) for table in ("chunks", "embeddings")]
    calls = len(deployment.model.requests)
    assert deployment.ingest(sidecar(deployment, "note.md", {"year": 2020, "lang": "en"})) == DONE
    assert deployment.ingest(sidecar(deployment, "note.md", {"year": 2021})) == DONE
    assert shown(deployment, "note.md") == ({"year": 2021}, None)
    assert [sorted(rows(deployment, f"table {table}")) for table in ("chunks", "embeddings")] == before
    assert len(deployment.model.requests) == calls


def test_a_sidecar_that_goes_takes_its_metadata_and_leaves_what_came_with_the_upload(deployment: Deployment) -> None:
    beside = f"{deployment.tenant}/default/note.txt.metadata.json"
    place = {"Bucket": BUCKET, "Key": f"{deployment.tenant}/default/note.txt"}
    deployment.s3.put_object(**place, Body=b"A note.", Metadata={"rag-metadata": '{"lang": "de"}'})
    assert deployment.ingest(notification(place["Key"]), sidecar(deployment, "note.txt", {"year": 2020})) == DONE
    assert shown(deployment, "note.txt") == ({"year": 2020}, None)
    deployment.s3.delete_object(Bucket=BUCKET, Key=beside)
    assert deployment.ingest(notification(beside, event="ObjectRemoved:DeleteMarkerCreated")) == DONE
    assert shown(deployment, "note.txt") == ({"lang": "de"}, None)


@pytest.mark.parametrize("torn", ["{", '{"a": {"b": 1}}', '{"a": "' + "x" * 17_000 + '"}', b"\xff"])
def test_a_sidecar_that_cannot_be_used_is_shown_and_leaves_what_there_was(deployment: Deployment, torn: Any) -> None:
    deployment.put("note.txt", "A note about rivers.")
    assert deployment.ingest(sidecar(deployment, "note.txt", {"year": 2020})) == DONE
    assert deployment.ingest(sidecar(deployment, "note.txt", torn)) == DONE
    metadata, error = shown(deployment, "note.txt")
    assert (metadata, error.startswith("the sidecar: ")) == ({"year": 2020}, True)
    deployment.put("note.txt", "A new note about rivers.")
    assert shown(deployment, "note.txt") == (metadata, error)
    [hit] = deployment.ask("POST", "/v1/search", {"query": "rivers", "filters": {"year": 2020}}).json["hits"]
    assert hit["content"] == "A new note about rivers."
    assert deployment.ingest(sidecar(deployment, "note.txt", {"year": 2021})) == DONE
    assert shown(deployment, "note.txt") == ({"year": 2021}, None)


def test_events_of_document_and_sidecar_in_any_order_and_number_end_as_the_bucket_is(deployment: Deployment) -> None:
    chance = random.Random(11)
    for history in range(12):
        key, events = f"{history}.txt", []
        for step in range(6):
            suffix = chance.choice(["", ".metadata.json"])
            object_key = f"{deployment.tenant}/default/{key}{suffix}"
            if chance.random() < 0.25:
                deployment.s3.delete_object(Bucket=BUCKET, Key=object_key)
                events.append(notification(object_key, event="ObjectRemoved:DeleteMarkerCreated"))
            elif suffix:
                events.append(sidecar(deployment, key, {"step": step}))
            else:
                events.append(notification(store(deployment, key, f"words of step {step}")))
            # Some are delivered before the next thing happens, with some of those before them once more.
            if chance.random() < 0.5:
                assert deployment.ingest(*chance.sample(events, chance.randint(1, len(events)))) == DONE
        chance.shuffle(events)
        assert deployment.ingest(*events) == DONE
        assert state(deployment, key) == wanted(deployment, key)


def state(deployment: Deployment, key: str) -> Any:
    query = "select metadata, content from documents d join chunks c on c.document_id = d.id"
    found = rows(deployment, f"{query} where key = '{key}'")
    return found[0] if found else None


def wanted(deployment: Deployment, key: str) -> Any:
    def content(name: str) -> bytes | None:
        listed = deployment.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{deployment.tenant}/default/{name}")
        object_key = f"{deployment.tenant}/default/{name}"
        if object_key not in {one["Key"] for one in listed.get("Contents", [])}:
            return None
        return bytes(deployment.s3.get_object(Bucket=BUCKET, Key=object_key)["Body"].read())

    body, beside = content(key), content(key + ".metadata.json")
    return None if body is None else (json.loads(beside or "{}"), body.decode())


def test_a_sidecar_that_changes_while_its_document_is_embedded_is_the_one_that_counts(deployment: Deployment) -> None:
    object_key = store(deployment, "note.md", handbook())
    sidecar(deployment, "note.md", {"year": 1})
    late: list[str] = []

    def change() -> None:
        late.append(sidecar(deployment, "note.md", {"year": 2}))

    deployment.model.script = [before_reply(change)]
    assert deployment.ingest(notification(object_key)) == DONE
    assert shown(deployment, "note.md") == ({"year": 2}, None)
    assert deployment.ingest(*late) == DONE
    assert (shown(deployment, "note.md"), len(embedded(deployment))) == (({"year": 2}, None), 4)


def test_a_sidecars_message_that_fails_for_good_leaves_its_document_ready(deployment: Deployment, inbox: Inbox) -> None:
    deployment.put("note.txt", "A note.")
    records = inbox.deliver(sidecar(deployment, "note.txt", {"year": 1}))
    dead = deployment.database.dsn("rag_ingest").replace(str(deployment.database.server.port), "1")
    assert deliver(deployment, records, database_url=dead, max_receives="1")["batchItemFailures"]
    assert deployment.documents()["note.txt"]["status"] == "ready"
    assert deliver(deployment, inbox.receive([records[0]["messageId"]])) == DONE
    assert shown(deployment, "note.txt") == ({"year": 1}, None)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As a full disk, but for this process alone: what it writes beyond this many bytes is refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.fault("B7")
def test_a_document_for_which_there_is_no_room_fails_alone_and_leaves_nothing(
    deployment: Deployment, inbox: Inbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    deployment.put("first.md", "The parser has started.")
    started = set(tmp_path.rglob("*"))
    large = notification(store(deployment, "large.md", "A long line about rivers. " * 200_000))
    for receives in (1, 5):
        small = notification(store(deployment, f"small-{receives}.md", "A note about lakes."))
        with files_of_at_most(1_000_000):
            failed = deployment.ingest(large, small, receives=receives)
        assert failed == {"batchItemFailures": [{"itemIdentifier": "0"}]}
    assert set(tmp_path.rglob("*")) == started
    found = {key: one["status"] for key, one in deployment.documents().items()}
    assert found == {"first.md": "ready", "small-1.md": "ready", "small-5.md": "ready", "large.md": "failed"}
    assert deployment.documents()["large.md"]["error"]["code"] == "DISK_FULL"
    assert deployment.ingest(large) == DONE
    assert deployment.documents()["large.md"]["status"] == "ready"


@pytest.mark.fault("A10")
def test_what_a_sandbox_ended_over_is_worked_off_last_and_the_others_are_acknowledged_before(
    deployment: Deployment, inbox: Inbox
) -> None:
    """The first delivery's sandbox ended while it was at `poison.md`: its row says so."""
    keys = ["poison.md", "one.md", "two.md"]
    records = inbox.deliver(*(notification(store(deployment, key, f"This is {key}.")) for key in keys))
    with deployment.function("rag_ingest"):
        begin(deployment, "poison.md", records[0]["messageId"])
    for record in records:
        record["attributes"]["ApproximateReceiveCount"] = "2"
    left: list[int] = []

    def look(handler: Any, body: dict[str, Any]) -> None:
        if "poison" in str(body):
            left.append(inbox.count())
        fake_model.send_json(handler, fake_model.embeddings([fake_model.unit(text, 4) for text in body["input"]]))

    deployment.model.script = [look] * 3
    assert deliver(deployment, records) == DONE
    assert left == [1]
    assert {one["status"] for one in deployment.documents().values()} == {"ready"}


def begin(deployment: Deployment, key: str, message_id: str) -> None:
    location = Location(deployment.tenant, "default", key)
    version = wiring.bucket().head(location.object_key)
    collection = wiring.index_store().collection(location, create=True)
    assert version
    assert collection
    delivery = Delivery(message_id)
    assert wiring.index_store().begin(location, collection, version, delivery, lease_seconds=600) == "new"
