"""Whatever was lost on the way, the index becomes what the bucket is; what waits in vain ends; the chain is proved."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from rag import probing, reconciling, wiring
from rag.types import Delivery, Location, ObjectVersion
from tests.integration.deployment import BUCKET, Context, Deployment, notification, sample

pytestmark = pytest.mark.slow

DIRECTIONS = ("missing", "outdated", "orphaned", "misdescribed")
NO_DRIFT = dict.fromkeys(DIRECTIONS, 0)
AT_ONCE = {"reconcile_settled_seconds": "0", "reconcile_rest_seconds": "0", "canary_seconds": "0"}


class Inbox:
    """The queue that messages are sent to, and what ingest makes of them."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._sqs = deployment.aws.client("sqs")
        self.url = self._sqs.create_queue(QueueName=f"reconcile-{uuid.uuid4()}")["QueueUrl"]

    def bodies(self) -> list[str]:
        """Every message, taken out."""
        found: list[str] = []
        while got := self._sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10).get("Messages"):
            for one in got:
                found.append(one["Body"])
                self._sqs.delete_message(QueueUrl=self.url, ReceiptHandle=one["ReceiptHandle"])
        return found

    def work_off(self) -> int:
        bodies = self.bodies()
        for start in range(0, len(bodies), 10):
            assert self._deployment.ingest(*bodies[start : start + 10]) == {"batchItemFailures": []}
        return len(bodies)

    def delete(self) -> None:
        self._sqs.delete_queue(QueueUrl=self.url)


@pytest.fixture
def inbox(deployment: Deployment) -> Iterator[Inbox]:
    opened = Inbox(deployment)
    yield opened
    opened.delete()


def run(deployment: Deployment, inbox: Inbox, *, event: str = "reconcile/schedule.json", **settings: str) -> Any:
    from functions.reconcile.handler import handler

    with deployment.function("rag_reconcile", **(AT_ONCE | {"retry_queue_url": inbox.url} | settings)):
        return handler(sample(event), Context(300))


def superuser(deployment: Deployment, statement: str, *values: Any) -> list[Any]:
    with psycopg.connect(deployment.database.superuser_dsn(), autocommit=True) as connection:
        cursor = connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def in_bucket(deployment: Deployment) -> dict[str, str]:
    found = deployment.s3.list_object_versions(Bucket=BUCKET, Prefix=f"{deployment.tenant}/")
    return {one["Key"]: one["VersionId"] for one in found.get("Versions", []) if one["IsLatest"]}


def in_index(deployment: Deployment) -> dict[str, str]:
    rows = superuser(
        deployment,
        "select d.tenant_id || '/' || c.name || '/' || d.key, d.version_id from documents d "
        "join collections c on c.id = d.collection_id where d.tenant_id = %s and d.status = 'ready'",
        deployment.tenant,
    )
    return dict(rows)


def compared(told: Any) -> dict[str, Any]:
    return {name: told["compared"][name] for name in ("keys", *DIRECTIONS, "complete")}


def lose_a_tenth(deployment: Deployment) -> None:
    """A hundred events in three collections: of 40 uploads 4 are lost, of 30 new versions 3, of 30 deletions 3."""
    names = [f"{('default', 'a', 'a-b')[number % 3]}/{number:02} é+%.txt" for number in range(40)]
    keys = [f"{deployment.tenant}/{name}" for name in names]
    put, delete = "ObjectCreated:Put", "ObjectRemoved:DeleteMarkerCreated"
    for event, touched, lost in (
        (put, keys, keys[36:]),
        (put, keys[:30], keys[27:30]),
        (delete, keys[:27] + keys[30:33], keys[24:27]),
    ):
        for key in touched:
            if event == put:
                deployment.s3.put_object(Bucket=BUCKET, Key=key, Body=f"{len(touched)} and {key}.".encode())
            else:
                deployment.s3.delete_object(Bucket=BUCKET, Key=key)
        told = [notification(key, event=event) for key in touched if key not in lost]
        assert deployment.ingest(*told) == {"batchItemFailures": []}


@pytest.mark.faults_full
def test_a_tenth_of_the_events_is_lost_and_one_pass_finds_and_heals_all_of_it(
    deployment: Deployment, inbox: Inbox, capsys: pytest.CaptureFixture[str], record_fault: Any
) -> None:
    lose_a_tenth(deployment)
    there, here = in_bucket(deployment), in_index(deployment)
    lost = NO_DRIFT | {
        "missing": len(there.keys() - here.keys()),
        "outdated": sum(here[key] != there[key] for key in there.keys() & here.keys()),
        "orphaned": len(here.keys() - there.keys()),
    }
    assert lost == {"missing": 4, "outdated": 3, "orphaned": 3, "misdescribed": 0}
    capsys.readouterr()
    told = run(deployment, inbox)
    metrics = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"_aws"' in line]
    drift = sum(lost.values())
    found = sum(compared(told)[name] for name in lost)
    assert compared(told) == {"keys": 13, **lost, "complete": True}
    by_direction = {line["direction"]: line["ReconcileDrift"] for line in metrics if "direction" in line}
    assert by_direction == {name: [float(count)] for name, count in lost.items()}
    assert sum(line["ReconcileDrift"][0] for line in metrics if "direction" not in line) == 10
    assert inbox.work_off() == 10
    assert in_index(deployment) == in_bucket(deployment)
    again = compared(run(deployment, inbox))
    left = sum(again[name] for name in lost)
    record_fault(
        "A4",
        injected=drift,
        violations=abs(drift - found) + left,
        figure=f"of 100 events {drift} lost: {found} of {drift} found, {drift - left} of {drift} healed by one pass",
    )
    assert again == {"keys": 10, **NO_DRIFT, "complete": True}


def beside(deployment: Deployment, name: str, said: Any, *, lost: bool = False) -> None:
    """Put a document's sidecar, or delete it where it says nothing; its event is delivered unless it is lost."""
    place = {"Bucket": BUCKET, "Key": f"{deployment.tenant}/{name}.metadata.json"}
    if said is None:
        deployment.s3.delete_object(**place)
    else:
        deployment.s3.put_object(**place, Body=json.dumps(said).encode())
    if not lost:
        assert deployment.ingest(notification(place["Key"])) == {"batchItemFailures": []}


def described(deployment: Deployment) -> dict[str, tuple[Any, Any]]:
    return {key: (one["metadata"], one["allowed_principals"]) for key, one in deployment.documents().items()}


@pytest.mark.fault("A4")
def test_lost_events_of_sidecars_are_found_and_healed_in_both_directions(deployment: Deployment, inbox: Inbox) -> None:
    names = [f"{number:02} é+%.txt" for number in range(10)]
    for name in names:
        deployment.put(name, f"A note of {name}.")
    for name in names[:6]:
        beside(deployment, f"default/{name}", {"year": 1, "allowed_principals": ["group:a"]})
    assert compared(run(deployment, inbox)) == {"keys": 16, **NO_DRIFT, "complete": True}
    before, asked = described(deployment), len(deployment.model.requests)
    beside(deployment, f"default/{names[0]}", {"year": 2, "allowed_principals": ["group:b"]}, lost=True)
    beside(deployment, f"default/{names[1]}", {"year": 2}, lost=True)
    beside(deployment, f"default/{names[2]}", None, lost=True)
    beside(deployment, f"default/{names[6]}", {"allowed_principals": ["user:ann@example.com"]}, lost=True)
    beside(deployment, f"default/{names[7]}", "torn", lost=True)
    beside(deployment, "default/of nothing.txt", {"year": 2}, lost=True)
    assert described(deployment) == before
    drift = {**NO_DRIFT, "misdescribed": 5, "complete": True}
    assert compared(run(deployment, inbox)) == {"keys": 18, **drift}
    assert inbox.work_off() == 5
    healed = {
        names[0]: ({"year": 2}, ["group:b"]),
        names[1]: ({"year": 2}, None),
        names[2]: ({}, None),
        names[6]: ({}, ["user:ann@example.com"]),
    }
    assert described(deployment) == before | healed
    assert deployment.documents()[names[7]]["metadata_error"] is not None
    assert compared(run(deployment, inbox)) == {"keys": 17, **NO_DRIFT, "complete": True}
    assert len(deployment.model.requests) == asked


def test_sidecars_are_compared_once_each_wherever_a_run_goes_on(deployment: Deployment, inbox: Inbox) -> None:
    # Between a document and its sidecar S3 lists whatever begins with the document's name.
    names = [f"default/{key}" for key in ("a", "a-", "a-/b", "a.", "a.metadata", "a.txt", "é")] + ["default-2/a"]
    for name in names:
        key = f"{deployment.tenant}/{name}"
        deployment.s3.put_object(Bucket=BUCKET, Key=key, Body=f"A note of {key}.".encode())
    assert deployment.ingest(*(notification(f"{deployment.tenant}/{name}") for name in names[:4]))
    assert deployment.ingest(*(notification(f"{deployment.tenant}/{name}") for name in names[4:]))
    for name in names:
        beside(deployment, name, {"year": 1}, lost=True)
    parts = [run(deployment, inbox, reconcile_keys="1")["compared"] for _ in range(2 * len(names) + 1)]
    assert [part["complete"] for part in parts] == [False] * 2 * len(names) + [True]
    assert (parts[-1]["pass"]["keys"], parts[-1]["pass"]["misdescribed"]) == (2 * len(names), len(names))
    assert inbox.work_off() == len(names)
    assert compared(run(deployment, inbox)) == {"keys": 2 * len(names), **NO_DRIFT, "complete": True}
    assert [said for said, _ in described(deployment).values()] == [{"year": 1}] * 7


def test_what_happened_a_moment_ago_is_no_drift_yet(deployment: Deployment, inbox: Inbox) -> None:
    object_key = deployment.put("old.txt", "An old note.")
    deployment.s3.delete_object(Bucket=BUCKET, Key=object_key)
    deployment.s3.put_object(Bucket=BUCKET, Key=f"{deployment.tenant}/default/new.txt", Body=b"A new note.")
    told = compared(run(deployment, inbox, reconcile_settled_seconds="900"))
    assert told == {"keys": 2, **NO_DRIFT, "complete": True}
    assert inbox.bodies() == []


def test_a_pass_goes_on_where_the_run_before_ended(deployment: Deployment, inbox: Inbox) -> None:
    for number in range(12):
        deployment.s3.put_object(Bucket=BUCKET, Key=f"{deployment.tenant}/default/{number:02}.txt", Body=b"A note.")
    parts = [run(deployment, inbox, reconcile_keys="5") for _ in range(3)]
    assert [(part["compared"]["keys"], part["compared"]["complete"]) for part in parts] == [
        (5, False),
        (5, False),
        (2, True),
    ]
    assert [part["compared"]["pass"]["missing"] for part in parts] == [5, 10, 12]
    assert inbox.work_off() == 12
    assert in_index(deployment) == in_bucket(deployment)


@pytest.mark.parametrize("event", ["reconcile/schedule.json", "reconcile/now.json"])
def test_each_event_is_answered_by_what_was_done(deployment: Deployment, inbox: Inbox, event: str) -> None:
    told = run(deployment, inbox, event=event)
    assert told["swept"] == {"requeued": 0, "stuck": 0}
    assert (told["compared"]["complete"], told["canary"]) == (True, None)


def test_one_run_at_a_time_and_a_rest_between_passes(deployment: Deployment, inbox: Inbox) -> None:
    assert run(deployment, inbox)["compared"]["complete"]
    assert run(deployment, inbox, reconcile_rest_seconds="3600")["compared"] is None
    at_once = run(deployment, inbox, event="reconcile/now.json", reconcile_rest_seconds="3600")
    assert at_once["compared"]["complete"]
    superuser(deployment, "update reconciliations set ended_at = null, running_until = now() + interval '1 minute'")
    assert run(deployment, inbox)["compared"] is None


def test_folders_sidecars_and_nobodys_objects_are_not_compared(deployment: Deployment, inbox: Inbox) -> None:
    for key in ("default/folder/", "default/a.txt.metadata.json", "Not a collection/a.txt"):
        deployment.s3.put_object(Bucket=BUCKET, Key=f"{deployment.tenant}/{key}", Body=b"")
    deployment.s3.put_object(Bucket=BUCKET, Key=f"{uuid.uuid4()}/default/a.txt", Body=b"A stranger's.")
    assert compared(run(deployment, inbox))["keys"] == 0


def test_a_deletion_marker_that_is_removed_brings_the_document_back(deployment: Deployment, inbox: Inbox) -> None:
    object_key = deployment.put("note.txt", "A note.")
    marker = deployment.s3.delete_object(Bucket=BUCKET, Key=object_key)["VersionId"]
    deployment.ingest(notification(object_key, event="ObjectRemoved:DeleteMarkerCreated"))
    deployment.s3.delete_object(Bucket=BUCKET, Key=object_key, VersionId=marker)
    assert run(deployment, inbox)["compared"]["missing"] == 1
    inbox.work_off()
    assert in_index(deployment) == in_bucket(deployment) != {}


@pytest.mark.faults_full
def test_a_pass_over_many_keys_finds_the_one_whose_event_was_lost(
    deployment: Deployment, inbox: Inbox, record_fault: Any
) -> None:
    count = 2_000
    collection = superuser(
        deployment,
        "insert into collections (tenant_id, name, space_id) select %s, 'many', min(id) from embedding_spaces "
        "returning id",
        deployment.tenant,
    )[0][0]
    rows = []
    for number in range(count):
        place = Location(deployment.tenant, "many", f"{number:05}.txt")
        version = deployment.s3.put_object(Bucket=BUCKET, Key=place.object_key, Body=b"x")["VersionId"]
        rows.append((deployment.tenant, place.document_id, collection, place.key, version))
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        connection.cursor().executemany(
            "insert into documents (tenant_id, id, collection_id, key, version_id, status, error_code) "
            "values (%s, %s, %s, %s, %s, 'failed', 'EMPTY')",
            rows,
        )
    deployment.s3.put_object(Bucket=BUCKET, Key=f"{deployment.tenant}/many/{count // 2:05}.txt", Body=b"y")
    began = time.monotonic()
    told = compared(run(deployment, inbox))
    seconds = time.monotonic() - began
    record_fault(
        "A4",
        injected=1,
        violations=abs(told["outdated"] - 1),
        figure=f"{told['outdated']} of 1 found among {count:,} keys, {seconds / count * 10_000:.1f} s per 10,000 keys",
    )
    assert told == {"keys": count, **NO_DRIFT, "outdated": 1, "complete": True}


def abandoned(deployment: Deployment) -> None:
    """A document that an ingest began with, and whose message is lost."""
    place = Location(deployment.tenant, "default", "note.txt")
    version = deployment.s3.put_object(Bucket=BUCKET, Key=place.object_key, Body=b"A note.")["VersionId"]
    with deployment.function("rag_ingest"):
        store = wiring.index_store()
        collection = store.collection(place, create=True)
        assert collection is not None
        found = ObjectVersion(version, "etag", 7)
        assert store.begin(place, collection, found, Delivery("lost"), lease_seconds=600) == "new"


def sweep(deployment: Deployment, inbox: Inbox, *, after: timedelta) -> tuple[int, int]:
    """As the sweeper does so long from now; how many it asked for again, and how many it gave up on."""
    with deployment.function("rag_reconcile", retry_queue_url=inbox.url):
        swept = reconciling.sweep(
            bucket_name=BUCKET,
            store=wiring.reconciliation_store(),
            queue=wiring.retry_queue(),
            visibility_seconds=3600,
            max_receives=5,
            but=probing.TENANT,
            at=datetime.now(UTC) + after,
        )
    return swept.requeued, swept.stuck


def test_a_document_whose_message_is_lost_is_asked_for_once_and_then_stuck(
    deployment: Deployment, inbox: Inbox
) -> None:
    abandoned(deployment)
    hours = [sweep(deployment, inbox, after=timedelta(hours=number / 2)) for number in range(10)]
    assert sum(requeued for requeued, _ in hours) == 1
    assert [stuck for _, stuck in hours] == [0] * 10
    [body] = inbox.bodies()
    # The promise: the visibility time-out times the deliveries, and ten minutes.
    assert sweep(deployment, inbox, after=timedelta(hours=5, minutes=10)) == (0, 1)
    document = deployment.documents()["note.txt"]
    assert (document["status"], document["error"]["code"]) == ("failed", "STUCK")
    history = deployment.ask("GET", f"/v1/documents/{document['id']}").json["history"]
    assert [(one["outcome"], one["error"]["code"]) for one in history] == [("failed", "STUCK")]
    assert sweep(deployment, inbox, after=timedelta(hours=50)) == (0, 0)
    superuser(deployment, "update documents set leased_until = now()")
    assert deployment.ingest(body) == {"batchItemFailures": []}
    assert deployment.documents()["note.txt"]["status"] == "ready"


def test_the_message_that_the_sweeper_sends_makes_the_document_ready(deployment: Deployment, inbox: Inbox) -> None:
    abandoned(deployment)
    superuser(
        deployment,
        "update documents set updated_at = now() - interval '2 hours', unsettled_at = now() - interval '2 hours', "
        "leased_until = now() - interval '1 hour'",
    )
    assert run(deployment, inbox)["swept"] == {"requeued": 1, "stuck": 0}
    inbox.work_off()
    assert in_index(deployment) == in_bucket(deployment) != {}


def canary(deployment: Deployment, inbox: Inbox) -> Any:
    return run(deployment, inbox, canary_seconds="600")["canary"]


def test_the_canary_is_uploaded_becomes_ready_and_goes_at_the_price_of_one_call(
    deployment: Deployment, inbox: Inbox
) -> None:
    object_key = probing.PLACE.object_key
    assert canary(deployment, inbox)["result"] == "sent"
    assert canary(deployment, inbox)["result"] == "waiting"
    assert deployment.ingest(notification(object_key)) == {"batchItemFailures": []}
    arrived = canary(deployment, inbox)
    assert arrived["result"] == "arrived"
    assert 0 <= arrived["seconds"] < 60
    assert canary(deployment, inbox)["result"] == "waiting"
    assert deployment.ingest(notification(object_key, event="ObjectRemoved:Delete")) == {"batchItemFailures": []}
    assert canary(deployment, inbox)["result"] == "sent"
    assert len(deployment.model.requests) == 1
    assert superuser(deployment, "select count(*) from documents where tenant_id = %s", probing.TENANT) == [(0,)]


def test_a_canary_that_does_not_arrive_has_failed_and_the_next_one_begins(
    deployment: Deployment, inbox: Inbox, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment.s3.delete_object(Bucket=BUCKET, Key=probing.PLACE.object_key)

    def look(after: timedelta) -> probing.Probe:
        with deployment.function("rag_reconcile"):
            return probing.probe(
                bucket=wiring.bucket(),
                store=wiring.reconciliation_store(),
                patience_seconds=600,
                at=datetime.now(UTC) + after,
            )

    assert look(timedelta(0)).result == "sent"
    late = look(timedelta(minutes=11))
    assert late.result == "failed"
    assert late.reason is not None
    assert late.reason.endswith("seconds after its upload the canary is unknown to the index")
    assert look(timedelta(0)).result == "sent"
    deployment.ingest(notification(probing.PLACE.object_key))
    assert look(timedelta(0)).result == "arrived"
    late = look(timedelta(minutes=11))
    assert late.reason is not None
    assert late.reason.endswith("the canary is still in the index")
    capsys.readouterr()


def test_the_role_sees_no_content_and_writes_nothing_but_what_it_settles(deployment: Deployment) -> None:
    deployment.put("note.txt", "A secret note.")
    with psycopg.connect(deployment.database.dsn("rag_reconcile"), autocommit=True) as connection:
        for statement in (
            "select content from chunks",
            "select title from documents",
            "select * from embeddings",
            "delete from documents",
            "update documents set key = 'x'",
            "insert into tenants (id, name) values (gen_random_uuid(), 'another')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())
        changed = connection.execute("update documents set status = 'failed', error_code = 'STUCK'")
        assert changed.rowcount == 0  # without a tenant of its transaction it changes nobody's
