from __future__ import annotations

import pytest

from cdk.stages import STAGES, Stage
from tests.infrastructure.conftest import Templates
from tests.infrastructure.reading import Resource, properties, resources, starting, text

per_stage = pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)


def bucket(templates: Templates, stage: Stage, name: str) -> Resource:
    return starting(templates[stage.name]["data"], "AWS::S3::Bucket", f"buckets{name}")


@per_stage
def test_every_bucket_is_closed_to_the_public_versioned_and_named_after_its_stage(
    templates: Templates, stage: Stage
) -> None:
    found = properties(templates[stage.name]["data"], "AWS::S3::Bucket")
    assert len(found) == (3 if stage.access_logs else 2)
    for own in found:
        assert set(own["PublicAccessBlockConfiguration"].values()) == {True}
        assert len(own["PublicAccessBlockConfiguration"]) == 4
        assert own["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
        assert own["VersioningConfiguration"] == {"Status": "Enabled"}
        assert f"rag-{stage.name}-" in text(own["BucketName"])


@per_stage
def test_no_bucket_answers_without_tls_or_with_an_old_one(templates: Templates, stage: Stage) -> None:
    data = templates[stage.name]["data"]
    policies = properties(data, "AWS::S3::BucketPolicy")
    assert len(policies) == len(resources(data, "AWS::S3::Bucket"))
    for policy in policies:
        refusals = [s["Condition"] for s in policy["PolicyDocument"]["Statement"] if s["Effect"] == "Deny"]
        assert {"Bool": {"aws:SecureTransport": "false"}} in refusals
        assert {"NumericLessThan": {"s3:TlsVersion": 1.2}} in refusals


@per_stage
def test_what_was_replaced_or_left_half_uploaded_goes_in_time(templates: Templates, stage: Stage) -> None:
    for own in properties(templates[stage.name]["data"], "AWS::S3::Bucket"):
        [rule] = own["LifecycleConfiguration"]["Rules"]
        assert rule["Status"] == "Enabled"
        assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
        assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": stage.noncurrent_days}
    documents = bucket(templates, stage, "documents")["Properties"]["LifecycleConfiguration"]["Rules"][0]
    assert documents["Transitions"] == [{"StorageClass": "STANDARD_IA", "TransitionInDays": 30}]
    assert "ExpirationInDays" not in documents


@per_stage
def test_documents_and_backups_have_keys_of_their_own_where_the_stage_has_keys(
    templates: Templates, stage: Stage
) -> None:
    for name, key in (("documents", "keysdata"), ("backups", "keysbackup")):
        [rule] = bucket(templates, stage, name)["Properties"]["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        if stage.own_keys:
            assert key in text(rule["ServerSideEncryptionByDefault"]["KMSMasterKeyID"])
            assert rule["BucketKeyEnabled"] is True
        else:
            assert rule["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}


@per_stage
def test_who_read_what_is_written_to_another_bucket(templates: Templates, stage: Stage) -> None:
    for name in ("documents", "backups"):
        logging = bucket(templates, stage, name)["Properties"].get("LoggingConfiguration")
        assert bool(logging) is stage.access_logs
        if logging:
            assert "bucketslogs" in text(logging["DestinationBucketName"])
            assert logging["LogFilePrefix"] == f"{name}/"


@per_stage
def test_backups_cannot_be_deleted_before_their_time_where_the_stage_locks_them(
    templates: Templates, stage: Stage
) -> None:
    own = bucket(templates, stage, "backups")["Properties"]
    assert own["LifecycleConfiguration"]["Rules"][0]["ExpirationInDays"] == stage.recovery_days
    assert own.get("ObjectLockEnabled", False) is stage.lock_backups
    if stage.lock_backups:
        retention = own["ObjectLockConfiguration"]["Rule"]["DefaultRetention"]
        assert retention == {"Mode": "GOVERNANCE", "Days": stage.recovery_days}


@per_stage
def test_buckets_outlive_a_protected_stack_and_nothing_empties_them(templates: Templates, stage: Stage) -> None:
    data = templates[stage.name]["data"]
    for found in resources(data, "AWS::S3::Bucket").values():
        assert found["UpdateReplacePolicy"] == ("Retain" if stage.protected else "Delete")
        assert found["DeletionPolicy"] == ("RetainExceptOnCreate" if stage.protected else "Delete")
    assert not resources(data, "Custom::S3AutoDeleteObjects")
    assert not resources(data, "Custom::S3BucketNotifications")
