"""Whoever should know is told, and told where to read on."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from aws_lambda_powertools import Metrics

from cdk.alarms import RUNBOOKS
from cdk.stages import DEV, STAGES
from cdk.templates import Templates
from functions.table import ASKING, FUNCTIONS, RECONCILE
from rag import telemetry
from rag.types import Usage
from tests.infrastructure.reading import only, properties, resources, template_of, text

ROOT = Path(__file__).resolve().parents[2]
NAMES = [stage.name for stage in STAGES]
ROWS = [row.name for row in FUNCTIONS]
SCHEDULE_SECONDS = RECONCILE.schedule_seconds or 0
MODELS = ("model-errors", "model-left-alone")
MODELS_CLOSELY = ("model-throttled", "budget")
ALWAYS = {
    *(f"{queue}-dead-letters" for queue in ("ingest", "maintain", "erase", "failures")),
    *(f"{row}-function-{what}" for row in ROWS for what in ("errors", "throttles")),
    *("nobodys-documents", "own-objects", "drift", "documents-stuck", "canary-upload", "reconcile-silent", "erasures"),
    *(f"{row.name}-{what}" for row in ASKING for what in MODELS),
    "api-5xx",
    *("notifications-waiting", "notifications-given-up"),
    *(f"database-{what}" for what in ("cpu", "storage", "memory", "connections")),
}
CLOSELY = {
    *(f"{row.name}-{what}" for row in ASKING for what in MODELS_CLOSELY),
    *(f"{queue}-queue-age" for queue in ("ingest", "maintain", "erase")),
    *(f"{row}-function-duration" for row in ROWS),
    "api-4xx",
    "api-latency",
    "database-pinning",
    *(f"node-{node}-cache-{what}" for node in (1, 2) for what in ("evictions", "cpu", "memory")),
}


def alarms(templates: Templates, stage: str) -> dict[str, dict[str, object]]:
    found = [each for stack in templates[stage].values() for each in properties(stack, "AWS::CloudWatch::Alarm")]
    return {each["AlarmName"].removeprefix(f"rag-{stage}-"): each for each in found}


@pytest.mark.parametrize("stage", NAMES)
def test_what_should_be_watched_is(templates: Templates, stage: str) -> None:
    found = set(alarms(templates, stage))
    assert found >= ALWAYS
    if stage != "dev":
        assert found >= CLOSELY
    assert ("database-replica-lag" in found) == (stage == "prod")


@pytest.mark.parametrize("stage", NAMES)
def test_every_alarm_tells_the_topic_what_it_means_and_where_to_read_on(templates: Templates, stage: str) -> None:
    headings = re.findall(r"^## (\S+)$", (ROOT / RUNBOOKS).read_text(), re.MULTILINE)
    for name, alarm in alarms(templates, stage).items():
        meaning, _, runbook = str(alarm["AlarmDescription"]).partition(f" What to do: {RUNBOOKS}#")
        assert meaning.endswith("."), name
        assert runbook in headings, name
        assert runbook == "canary" or "Topic" in text(alarm["AlarmActions"]), name
        assert alarm["TreatMissingData"] == ("breaching" if name == "reconcile-silent" else "notBreaching")


@pytest.mark.parametrize("stage", NAMES)
def test_a_schedule_that_is_off_is_not_silence(templates: Templates, stage: str) -> None:
    alarm = alarms(templates, stage)["reconcile-silent"]
    assert (alarm["MetricName"], alarm["Namespace"]) == ("ReconcileRuns", telemetry.NAMESPACE)
    assert (alarm["Threshold"], alarm["ComparisonOperator"]) == (1, "LessThanThreshold")
    watched = int(str(alarm["Period"])) * int(str(alarm["EvaluationPeriods"]))
    assert watched == 3 * SCHEDULE_SECONDS


def test_every_runbook_is_some_alarms(templates: Templates) -> None:
    headings = set(re.findall(r"^## (\S+)$", (ROOT / RUNBOOKS).read_text(), re.MULTILINE))
    named = {
        str(alarm["AlarmDescription"]).rpartition("#")[2]
        for stage in NAMES
        for alarm in alarms(templates, stage).values()
    }
    assert headings == named


@pytest.mark.parametrize("stage", NAMES)
def test_the_topic_is_encrypted_by_a_key_that_cloudwatch_may_use(templates: Templates, stage: str) -> None:
    topic = only(templates[stage]["monitoring"], "AWS::SNS::Topic")
    assert isinstance(topic["KmsMasterKeyId"], dict)
    policy = text(only(templates[stage]["monitoring"], "AWS::SNS::TopicPolicy"))
    assert "aws:SecureTransport" in policy
    told = {"cloudwatch.amazonaws.com", "budgets.amazonaws.com", "events.rds.amazonaws.com"}
    assert told <= set(re.findall(r"[a-z.]+\.amazonaws\.com", policy))
    assert not properties(templates[stage]["monitoring"], "AWS::SNS::Subscription")


def test_somebody_is_written_to_where_the_stage_says_whom() -> None:
    template = template_of(replace(DEV, alarm_email="oncall@example.org"), "monitoring")
    subscription = only(template, "AWS::SNS::Subscription")
    assert (subscription["Protocol"], subscription["Endpoint"]) == ("email", "oncall@example.org")


@pytest.mark.parametrize("stage", NAMES)
def test_the_database_itself_tells_the_topic_of_what_no_metric_shows(templates: Templates, stage: str) -> None:
    template = templates[stage]["monitoring"]
    [subscription] = resources(template, "AWS::RDS::EventSubscription").values()
    told = subscription["Properties"]
    assert set(told["EventCategories"]) == {"failover", "failure", "low storage", "maintenance"}
    assert len(told["SourceIds"]) == (2 if stage == "prod" else 1)
    assert "Topic" in text(told["SnsTopicArn"])
    assert set(resources(template, "AWS::SNS::TopicPolicy")) <= set(subscription["DependsOn"])


@pytest.mark.parametrize("stage", NAMES)
def test_the_budget_is_the_stages_and_tells_the_topic(templates: Templates, stage: str) -> None:
    budget = only(templates[stage]["monitoring"], "AWS::Budgets::Budget")
    assert budget["Budget"]["CostFilters"] == {"TagKeyValue": [f"user:stage${stage}"]}
    assert all("Topic" in text(each["Subscribers"]) for each in budget["NotificationsWithSubscribers"])


@pytest.mark.parametrize("stage", NAMES)
def test_what_is_watched_of_the_models_is_what_functions_count(templates: Templates, stage: str) -> None:
    metrics = Metrics(namespace=telemetry.NAMESPACE, service="any")
    telemetry.count_usage(metrics, Usage(*[1] * 7))
    counted = set(metrics.serialize_metric_set())
    metrics.clear_metrics()
    for row in ASKING:
        kinds = MODELS if stage == "dev" else MODELS + MODELS_CLOSELY
        about = " ".join(text(alarms(templates, stage)[f"{row.name}-{what}"]) for what in kinds)
        watched = set(re.findall(r"\b(?:Model|Budget)[A-Z][a-z]+\b", about))
        closely = {"ModelThrottled", "BudgetRefusals"} if stage != "dev" else set()
        assert watched == {"ModelErrors", "ModelRequests", "ModelSpared"} | closely
        assert watched <= counted
