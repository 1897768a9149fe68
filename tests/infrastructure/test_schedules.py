"""What runs by the clock is what the table says, and what cannot be delivered is kept."""

from __future__ import annotations

import re

import pytest

from cdk.stages import STAGES
from cdk.templates import Templates
from functions.table import FUNCTIONS, INGEST_BATCH_SIZE
from tests.infrastructure.reading import properties, text

NAMES = [stage.name for stage in STAGES]
SCHEDULED = {row.name: row.schedule_seconds for row in FUNCTIONS if row.schedule_seconds}


@pytest.mark.parametrize("stage", NAMES)
def test_each_scheduled_function_has_its_schedule(templates: Templates, stage: str) -> None:
    found = {each["Name"]: each for each in properties(templates[stage]["service"], "AWS::Scheduler::Schedule")}
    assert set(found) == {f"rag-{stage}-{name}" for name in SCHEDULED}
    for name, seconds in SCHEDULED.items():
        schedule = found[f"rag-{stage}-{name}"]
        assert schedule["ScheduleExpression"] == f"rate({seconds // 60} minute{'s' if seconds > 60 else ''})"
        target = schedule["Target"]
        assert target["Input"] == "{}"
        assert f"{name.capitalize()}Live" in text(target["Arn"])
        assert "Failures" in text(target["DeadLetterConfig"])
        assert target["RetryPolicy"] == {"MaximumEventAgeInSeconds": seconds, "MaximumRetryAttempts": 2}


@pytest.mark.parametrize("stage", NAMES)
def test_queues_are_worked_off_by_the_live_versions_in_batches_of_the_table(templates: Templates, stage: str) -> None:
    found = properties(templates[stage]["service"], "AWS::Lambda::EventSourceMapping")
    called = {name for each in found for name in re.findall(r'"([A-Z][a-z]+)Live\w+"', text(each["FunctionName"]))}
    assert called == {"Ingest", "Maintain", "Erase"}
    for each in found:
        assert each["BatchSize"] == INGEST_BATCH_SIZE
        assert each["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
