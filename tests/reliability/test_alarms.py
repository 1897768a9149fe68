"""Every loss is loud: what a fault makes the ingest function count is what an alarm of production looks at."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import fake_model
from tests.integration.deployment import BUCKET, Deployment, notification

SNAPSHOT = Path(__file__).resolve().parents[1] / "infrastructure" / "snapshots" / "prod.json"
# Beside the metric of ours that a fault must raise, what AWS counts by itself when the message has failed for good.
DEAD_LETTERS = "rag-prod-ingest-dead-letters"

# Fault → how the model server misbehaves, and the metric that must tell of it.
FAULTS: dict[str, tuple[Callable[[], fake_model.Reply], str]] = {
    "throttled": (lambda: fake_model.status(429), "ModelThrottled"),
    "failing": (lambda: fake_model.status(500), "ModelErrors"),
    "not JSON": (lambda: lambda handler, _: fake_model.send(handler, b"<html>", 200, "text/html"), "ModelErrors"),
}


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


@pytest.mark.faults_fast
def test_what_a_fault_of_the_model_makes_ingest_count_has_an_alarm(
    deployment: Deployment, capsys: pytest.CaptureFixture[str], record_fault: Any
) -> None:
    deployment.settings["RAG_QUEUE_URL"] = f"{deployment.aws.url}/000000000000/none"
    watched = alarms(json.loads(SNAPSHOT.read_text()))
    silent = []
    for fault, (reply, metric) in FAULTS.items():
        object_key = f"{deployment.tenant}/default/{fault}.txt"
        deployment.s3.put_object(Bucket=BUCKET, Key=object_key, Body=f"A note of {fault}.".encode())
        capsys.readouterr()
        deployment.model.script = [reply() for _ in range(3)]
        deployment.ingest(notification(object_key))
        found = counted(capsys.readouterr().out)
        silent += [] if found.get(metric, 0) > 0 and metric in watched else [f"{fault}: {found}"]
    silent += [] if DEAD_LETTERS in watched else [DEAD_LETTERS]
    record_fault(
        "L7", injected=len(FAULTS), violations=len(silent), figure="each raised its metric, which has an alarm"
    )
    assert silent == []
