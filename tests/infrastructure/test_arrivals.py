from __future__ import annotations

from typing import Any

import pytest

from cdk.stages import STAGES, Stage
from functions.table import INGEST, MAINTAIN
from rag.settings import Settings
from tests.infrastructure.conftest import Templates
from tests.infrastructure.reading import properties, starting, text

per_stage = pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
DAY = 24 * 3600


def queues(templates: Templates, stage: Stage) -> dict[str, dict[str, Any]]:
    found = properties(templates[stage.name]["data"], "AWS::SQS::Queue")
    return {queue["QueueName"].removeprefix(f"rag-{stage.name}-"): queue for queue in found}


@per_stage
def test_the_bucket_announces_everything_that_is_created_or_removed(templates: Templates, stage: Stage) -> None:
    found = starting(templates[stage.name]["data"], "AWS::S3::Bucket", "bucketsdocuments")
    told = found["Properties"]["NotificationConfiguration"]
    assert set(told) == {"QueueConfigurations"}
    assert sorted(each["Event"] for each in told["QueueConfigurations"]) == ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
    for each in told["QueueConfigurations"]:
        assert "arrivalsingest" in text(each["Queue"])
        assert "Filter" not in each
    assert [name for name in found["DependsOn"] if name.startswith("arrivalsingestPolicy")]


@per_stage
def test_a_message_is_hidden_longer_than_six_times_its_function_may_take(templates: Templates, stage: Stage) -> None:
    found = queues(templates, stage)
    for name, function in (("ingest", INGEST), ("maintain", MAINTAIN)):
        assert 6 * function.timeout_seconds < found[name]["VisibilityTimeout"] <= 12 * 3600


@per_stage
def test_a_message_that_fails_as_often_as_ingest_believes_is_kept_aside_longer_than_in_its_queue(
    templates: Templates, stage: Stage
) -> None:
    found = queues(templates, stage)
    names = ("ingest", "maintain", "erase")
    assert set(found) == {*names, *(f"{name}-dead-letters" for name in names)}
    for name in names:
        assert found[name]["RedrivePolicy"]["maxReceiveCount"] == Settings().max_receives >= 5
        assert f"arrivals{name}deadletters" in text(found[name]["RedrivePolicy"]["deadLetterTargetArn"])
        assert found[name]["MessageRetentionPeriod"] == 4 * DAY
        assert found[f"{name}-dead-letters"]["MessageRetentionPeriod"] == 14 * DAY


@per_stage
def test_queues_are_encrypted_and_speak_tls_only(templates: Templates, stage: Stage) -> None:
    for queue in queues(templates, stage).values():
        assert ("KmsMasterKeyId" in queue) if stage.own_keys else queue["SqsManagedSseEnabled"] is True
    policies = properties(templates[stage.name]["data"], "AWS::SQS::QueuePolicy")
    assert len(policies) == len(queues(templates, stage))
    for policy in policies:
        assert {"Bool": {"aws:SecureTransport": "false"}} in [
            s.get("Condition") for s in policy["PolicyDocument"]["Statement"] if s["Effect"] == "Deny"
        ]


@per_stage
def test_only_the_documents_bucket_of_this_account_may_send(templates: Templates, stage: Stage) -> None:
    allowed = [
        statement
        for policy in properties(templates[stage.name]["data"], "AWS::SQS::QueuePolicy")
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Allow"
    ]
    [statement] = allowed
    assert statement["Principal"] == {"Service": "s3.amazonaws.com"}
    assert statement["Action"] == "sqs:SendMessage"
    assert statement["Condition"]["StringEquals"] == {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}
    documents = starting(templates[stage.name]["data"], "AWS::S3::Bucket", "bucketsdocuments")["Properties"]
    _, name = documents["BucketName"]["Fn::Join"]
    _, source = statement["Condition"]["ArnEquals"]["aws:SourceArn"]["Fn::Join"]
    assert (source[-1], source[-2], source[-3]) == (name[-1], name[-2], name[-3])
    assert source[2] == f":s3:::{name[0]}"
