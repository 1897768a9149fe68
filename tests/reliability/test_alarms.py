"""Every loss is loud: what a fault makes a function count is what an alarm of production looks at."""

from __future__ import annotations

import ast
import json
import re
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import psycopg
import pytest
from aws_lambda_powertools import Metrics

from rag import telemetry
from rag.ingestion import Outcome
from rag.types import Usage
from tests import fake_model
from tests.integration.deployment import BUCKET, Context, Deployment, notification, sample

ROOT = Path(__file__).resolve().parents[2]
SNAPSHOT = ROOT / "tests" / "infrastructure" / "snapshots" / "prod.json"
NOWHERE = "http://127.0.0.1:9"
# What AWS counts by itself when a message has failed for good.
DEAD_LETTERS = "rag-prod-ingest-dead-letters"


def alarms(found: Any) -> set[str]:
    """Names of our metrics that an alarm looks at, and of the alarms themselves."""
    names = set()
    if isinstance(found, dict):
        if found.get("Namespace") == "Rag":
            names.add(str(found.get("MetricName")))
        if found.get("Type") == "AWS::CloudWatch::Alarm":
            names.add(str(found["Properties"].get("AlarmName")))
        found = list(found.values())
    if isinstance(found, list):
        names |= {name for each in found for name in alarms(each)}
    return names


def counted(output: str) -> dict[str, float]:
    """What the function's log says in the embedded metric format."""
    metrics: dict[str, float] = {}
    for line in output.splitlines():
        told = json.loads(line) if line.startswith('{"_aws"') else {"_aws": {"CloudWatchMetrics": []}}
        for group in told["_aws"]["CloudWatchMetrics"]:
            for metric in group["Metrics"]:
                value = told[metric["Name"]]
                metrics[metric["Name"]] = metrics.get(metric["Name"], 0) + sum(
                    value if isinstance(value, list) else [value]
                )
    return metrics


def ingested(deployment: Deployment, *, tenant: uuid.UUID | None = None, key: str = "note.txt", count: int = 1) -> None:
    bodies = []
    for number in range(count):
        object_key = f"{tenant or deployment.tenant}/default/{number or ''}{key}"
        deployment.s3.put_object(Bucket=BUCKET, Key=object_key, Body=f"A note, {uuid.uuid4()}.".encode())
        bodies.append(notification(object_key))
    deployment.ingest(*bodies)


def with_replies(reply: Callable[[], fake_model.Reply], *, count: int = 1) -> Callable[[Deployment], None]:
    def fault(deployment: Deployment) -> None:
        deployment.model.script = [reply() for _ in range(3 * count)]
        ingested(deployment, count=count)
        deployment.model.script = []

    return fault


def beyond_the_budget(deployment: Deployment) -> None:
    deployment.settings["RAG_TENANT_TOKENS_PER_DAY"] = "1"
    ingested(deployment)


def drifted(deployment: Deployment, **settings: str) -> None:
    from functions.reconcile.handler import handler

    deployment.s3.put_object(Bucket=BUCKET, Key=f"{deployment.tenant}/default/unheard-of.txt", Body=b"A note.")
    usual = {"reconcile_settled_seconds": "0", "reconcile_rest_seconds": "0", "canary_seconds": "0"}
    queue = deployment.settings["RAG_QUEUE_URL"]
    with deployment.function("rag_reconcile", **{**usual, "retry_queue_url": queue, **settings}):
        handler(sample("reconcile/schedule.json"), Context(300))


def stuck(deployment: Deployment) -> None:
    deployment.put("stuck.txt", "A note that is begun with.")
    administer(
        deployment,
        "update documents set status = 'processing', unsettled_at = now() - interval '9 hours', "
        "updated_at = now() - interval '9 hours', leased_until = now() - interval '8 hours', "
        "requeued_at = now() - interval '8 hours'",
    )
    drifted(deployment)


def canary_lost(deployment: Deployment) -> None:
    for _ in range(2):
        drifted(deployment, canary_seconds="1")
        time.sleep(2)


def not_told(deployment: Deployment) -> None:
    from functions.notify.handler import handler

    name = f"webhook-{uuid.uuid4()}"
    deployment.aws.client("secretsmanager").create_secret(Name=name, SecretString="whsec_c2VjcmV0")
    webhook = {"RAG_EVENT_BUS": f"bus-{uuid.uuid4()}", "RAG_WEBHOOK_URL": NOWHERE, "RAG_WEBHOOK_SECRET": name}
    deployment.settings |= webhook
    ingested(deployment, key="untold.txt")
    administer(deployment, "update notifications set attempts = 149, due_at = now()")
    with deployment.function("rag_ingest"):
        handler(sample("notify/schedule.json"), Context(55))


def not_erased(deployment: Deployment) -> None:
    deployment.put("kept.txt", "A note that stays.")
    document = deployment.documents()["kept.txt"]["id"]
    receipt = deployment.ask("DELETE", f"/v1/documents/{document}").json
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", NOWHERE)
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        deployment.erase(receipt)


def administer(deployment: Deployment, statement: str) -> None:
    with psycopg.connect(deployment.database.superuser_dsn(), autocommit=True) as connection:
        connection.execute(statement.encode())


def throttled(deployment: Deployment) -> None:
    deployment.settings["RAG_RATE_LIMIT_REQUESTS"] = "1"
    assert [deployment.ask("GET", "/v1/documents").status for _ in range(2)] == [200, 429]


def not_audited(deployment: Deployment) -> None:
    administer(deployment, "revoke insert on audit_log from rag_query")
    deployment.ask("POST", "/v1/search", {"query": "a note"})
    administer(deployment, "grant insert on audit_log to rag_query")


def rules_told(deployment: Deployment) -> None:
    asked_with(deployment, lambda rules: f"My rules are: {rules}")


def address_made_up(deployment: Deployment) -> None:
    asked_with(deployment, lambda _: "A note, says https://evil.example/c?d=1 [1].")


def asked_with(deployment: Deployment, says: Callable[[str], str]) -> None:
    """A question to a model that makes its answer of its rules."""
    deployment.settings["RAG_MIN_SCORE"] = "0"
    deployment.put("note.txt", "A note of nothing.")

    def reply(handler: Any, body: dict[str, Any]) -> None:
        if "input" in body:
            vectors = [fake_model.unit(text, 4) for text in body["input"]]
            fake_model.send_json(handler, fake_model.embeddings(vectors))
        else:
            fake_model.send_json(handler, fake_model.chat(says(body["messages"][0]["content"])))

    deployment.model.always = reply
    assert deployment.ask("POST", "/v1/query", {"question": "What is in the note?"}).status == 200


# Fault → how it comes about, and the metric that must tell of it.
FAULTS: dict[str, tuple[Callable[[Deployment], None], str]] = {
    "a model that throttles": (with_replies(lambda: fake_model.status(429)), "ModelThrottled"),
    "a model that fails": (with_replies(lambda: fake_model.status(500)), "ModelErrors"),
    "a model that sends HTML": (
        with_replies(lambda: lambda handler, _: fake_model.send(handler, b"<html>", 200, "text/html")),
        "ModelErrors",
    ),
    "a model that is left alone": (with_replies(lambda: fake_model.status(500), count=8), "ModelSpared"),
    "a budget that is used up": (beyond_the_budget, "BudgetRefusals"),
    "an object of no tenant": (lambda deployment: ingested(deployment, tenant=uuid.uuid4()), "DocumentsWithoutTenant"),
    "an object of our own": (lambda deployment: ingested(deployment, key=".rag/note.txt"), "OwnObjectsRefused"),
    "an event that was lost": (drifted, "ReconcileDrift"),
    "a document that is stuck": (stuck, "DocumentsStuck"),
    "a canary that is lost": (canary_lost, "CanaryFailed"),
    "a notification that is given up": (not_told, "NotificationsGivenUp"),
    "an erasure that fails": (not_erased, "ErasuresFailed"),
    "a request beyond the rate": (throttled, "RateLimitHits"),
    "a search that is not in the log": (not_audited, "AuditFailures"),
    "a model that tells its rules": (rules_told, "AnswersWithheld"),
    "a model that makes up addresses": (address_made_up, "AnswersNeutralised"),
}


@pytest.mark.faults_full
@pytest.mark.parametrize("fault", FAULTS)
def test_a_loss_is_counted_and_its_metric_has_an_alarm(
    deployment: Deployment, capsys: pytest.CaptureFixture[str], record_fault: Any, fault: str
) -> None:
    queue = deployment.aws.client("sqs").create_queue(QueueName=f"alarms-{uuid.uuid4()}")["QueueUrl"]
    deployment.settings |= {"RAG_QUEUE_URL": queue, "RAG_DEAD_LETTER_QUEUE_URL": queue}
    watched = alarms(json.loads(SNAPSHOT.read_text()))
    inject, metric = FAULTS[fault]
    inject(deployment)
    found = counted(capsys.readouterr().out)
    silent = [*[metric] * (found.get(metric, 0) <= 0), *{metric, DEAD_LETTERS} - watched]
    record_fault("L7", injected=1, violations=len(silent), figure=f"{metric} {found.get(metric, 0):g}, with an alarm")
    assert silent == [], found


def test_every_alarm_of_a_metric_of_ours_has_a_fault_here_or_is_of_no_loss() -> None:
    lost = {metric for _, metric in FAULTS.values()}
    metrics = {name for name in alarms(json.loads(SNAPSHOT.read_text())) if not name.startswith("rag-")}
    # The denominator of a rate; the age of what waits, which ends in what is given up; runs, where none is the loss.
    assert metrics - lost <= {"ModelRequests", "OldestNotificationSeconds", "ReconcileRuns"}


# Of a loss, or near one, and without an alarm: the alarm that rings instead, where one does, and why that is enough.
WITHOUT_AN_ALARM: dict[str, tuple[str | None, str]] = {
    "DocumentsFailed": (None, "a verdict on one document, told to whoever uploaded it by its state and its event"),
    "MessagesFailed": ("ingest-dead-letters", "it is delivered again; what is given up is dead"),
    "MessagesPutOff": ("ingest-model-left-alone", "it waits for a model or a budget, and those have alarms"),
    "MessagesSuspected": ("ingest-function-errors", "the sandbox that it ended was an error of the function"),
    "DocumentsBuried": ("ingest-dead-letters", "its message is dead"),
    "DocumentsContinued": ("ingest-dead-letters", "it goes on; what comes no further fails its message"),
    "DocumentsRequeued": ("documents-stuck", "it is asked for again, and stuck if that was in vain"),
    "EventsIgnored": ("drift", "folders and the like are no documents; a key that was one is missing in the index"),
    "ErasuresUnfinished": ("erasures", "whatever fails is in ErasuresFailed; the others only need another run"),
    "IndexRecall": (
        None,
        "an index that finds less than when it was new is rebuilt at once; one that never found more shows its data",
    ),
    "ListsOfOneDocument": (None, "no threshold tells an attack from a manual that everybody asks about (runbooks.md)"),
}
OF_NO_LOSS = {
    *("Batches", "DocumentsReady", "DocumentsDescribed", "DocumentsForgotten", "DocumentsUnchanged"),
    *("DocumentsDuplicate", "NotificationsTold", "ErasureRuns", "ErasuresFinished", "TenantActions"),
    *("ObjectsCompared", "ReconcilePassSeconds", "CanarySeconds"),
    *("MaintenanceRuns", "IndexesChanged", "ChunksWeighedAnew", "StatisticsAddedUp", "AuditRowsDropped"),
    *("Requests", "QueryRequests", "QueryDuration", "SearchRequests", "SearchDuration"),
    *("CacheHits", "CacheMisses", "ModelTokens"),
}


def test_each_metric_has_an_alarm_or_a_reason_for_none() -> None:
    watched = alarms(json.loads(SNAPSHOT.read_text()))
    metrics = {name for name in watched if not name.startswith("rag-")}
    told = metrics | WITHOUT_AN_ALARM.keys() | OF_NO_LOSS
    assert (metrics & WITHOUT_AN_ALARM.keys(), (metrics | WITHOUT_AN_ALARM.keys()) & OF_NO_LOSS) == (set(), set())
    assert {f"rag-prod-{alarm}" for alarm, _ in WITHOUT_AN_ALARM.values() if alarm} <= watched
    assert set(names_of_metrics()) == told


def names_of_metrics() -> Iterator[str]:
    """What the functions count, as their source names it."""
    metrics = Metrics(namespace=telemetry.NAMESPACE, service="any")
    telemetry.count_usage(metrics, Usage(*[1] * 7))
    yield from metrics.metric_set
    metrics.clear_metrics()
    for source in (ROOT / "functions").rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Call):
                yield from counted_by(node)


def counted_by(call: ast.Call) -> Iterator[str]:
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if name == "count_signs":
        yield from (keyword.arg for keyword in call.keywords if keyword.arg)
    if name == "measure":
        yield from (f"{operation}{what}" for operation in strings(call.args[0]) for what in ("Requests", "Duration"))
    if name in {"add_metric", "count_by"} and call.args:
        if isinstance(call.args[0], ast.JoinedStr):
            if strings(call.args[0]) == ["Documents"]:
                yield from (f"Documents{result.capitalize()}" for result in get_args(get_type_hints(Outcome)["result"]))
        else:
            yield from strings(call.args[0])


def strings(node: ast.AST) -> list[str]:
    """All that the expression may be, or is put together of."""
    return [
        each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and re.match("[A-Z]", str(each.value))
    ]
