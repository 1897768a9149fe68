"""Promises of buckets, queues, keys and secrets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.infrastructure.checks.estate import Estate, Resource, listed, statements, text
from tests.infrastructure.checks.table import PROD, PROTECTED, Spoil, check

KEPT = ("Retain", "RetainExceptOnCreate")


def log_targets(estate: Estate) -> list[Resource]:
    """Buckets that access logs go to."""
    sources = estate.of("S3::Bucket")
    return [
        found
        for each in sources
        for found in estate.targets(each.stack, each.get("LoggingConfiguration.DestinationBucketName"))
    ]


def policies_of(estate: Estate, kind: str, place: str, target: Resource) -> list[dict[str, Any]]:
    """Statements of the resource policies that name `target`."""
    return [
        statement
        for policy in estate.of(kind)
        if estate.refers(policy, policy.get(place), target)
        for statement in statements(policy.get("PolicyDocument"))
    ]


def denies(found: list[dict[str, Any]], operator: str, key: str, value: str) -> bool:
    """Whether everybody is denied under that condition."""
    return any(
        each["Effect"] == "Deny"
        and each["Principal"] in ("*", {"AWS": "*"})
        and text(each.get("Condition", {}).get(operator, {}).get(key)) == value
        for each in found
    )


@check("S3", Spoil("S3::Bucket", "PublicAccessBlockConfiguration.RestrictPublicBuckets", value=False))
def no_public_access(estate: Estate) -> Iterator[str]:
    """Every bucket blocks public access in all four ways."""
    for bucket in estate.of("S3::Bucket"):
        block = bucket.get("PublicAccessBlockConfiguration", {})
        if len(block) != 4 or not all(block.values()):
            yield str(bucket)


@check("S3", Spoil("S3::BucketPolicy", "PolicyDocument.Statement", []))
def only_tls(estate: Estate) -> Iterator[str]:
    """Every bucket denies requests without TLS, and with TLS before 1.2."""
    for bucket in estate.of("S3::Bucket"):
        found = policies_of(estate, "S3::BucketPolicy", "Bucket", bucket)
        if not denies(found, "Bool", "aws:SecureTransport", "false"):
            yield f"{bucket}: without TLS"
        if not denies(found, "NumericLessThan", "s3:TlsVersion", "1.2"):
            yield f"{bucket}: old TLS"


@check("S3", Spoil("S3::Bucket", "OwnershipControls.Rules.0.ObjectOwnership", "ObjectWriter"))
def owner_enforced(estate: Estate) -> Iterator[str]:
    """Every object belongs to the bucket's owner; there are no ACLs."""
    for bucket in estate.of("S3::Bucket"):
        if bucket.get("OwnershipControls.Rules.0.ObjectOwnership") != "BucketOwnerEnforced":
            yield str(bucket)


_RULE = "BucketEncryption.ServerSideEncryptionConfiguration.0"


@check("S3", Spoil("S3::Bucket", "BucketEncryption"))
def encrypted(estate: Estate) -> Iterator[str]:
    """Every bucket is encrypted, with an own key and bucket keys where the stage has own keys."""
    # S3 delivers access logs only into buckets that are encrypted with its own keys.
    exempt = log_targets(estate)
    for bucket in estate.of("S3::Bucket"):
        how = bucket.get(f"{_RULE}.ServerSideEncryptionByDefault.SSEAlgorithm")
        own = how == "aws:kms" and bucket.get(f"{_RULE}.BucketKeyEnabled") is True
        if how is None or (estate.stage.own_keys and not own and bucket not in exempt):
            yield f"{bucket}: {how}"


@check("S3", Spoil("S3::Bucket", "VersioningConfiguration.Status", "Suspended"))
def versioned(estate: Estate) -> Iterator[str]:
    """Every bucket keeps versions."""
    for bucket in estate.of("S3::Bucket"):
        if bucket.get("VersioningConfiguration.Status") != "Enabled":
            yield str(bucket)


@check("S3", Spoil("S3::Bucket", "LifecycleConfiguration.Rules.0.NoncurrentVersionExpiration.NoncurrentDays", 3650))
def erased_when_promised(estate: Estate) -> Iterator[str]:
    """What was overwritten or deleted is gone after the stage's days, and an abandoned upload after one."""
    for bucket in estate.of("S3::Bucket"):
        rules = [rule for rule in bucket.get("LifecycleConfiguration.Rules", []) if rule["Status"] == "Enabled"]
        gone = [rule.get("NoncurrentVersionExpiration", {}).get("NoncurrentDays") for rule in rules]
        abandoned = [rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation") for rule in rules]
        if estate.stage.noncurrent_days not in gone or 1 not in abandoned:
            yield f"{bucket}: {gone} {abandoned}"


@check("S3", Spoil("S3::Bucket", "LoggingConfiguration"), stages=PROTECTED)
def access_is_logged(estate: Estate) -> Iterator[str]:
    """Reads and writes of every bucket are logged to another bucket."""
    targets = log_targets(estate)
    for bucket in estate.of("S3::Bucket"):
        if bucket not in targets and not bucket.get("LoggingConfiguration.DestinationBucketName"):
            yield str(bucket)


def backup_buckets(estate: Estate) -> list[Resource]:
    return [each for each in estate.of("S3::Bucket") if "backup" in each.name.lower()]


@check("S3", Spoil("S3::Bucket", "ObjectLockConfiguration"), stages=PROD)
def backups_are_locked(estate: Estate) -> Iterator[str]:
    """The bucket of backups has an object lock, and a key that no other bucket has."""
    buckets = backup_buckets(estate)
    if not buckets:
        yield "there is no bucket of backups"
    for bucket in buckets:
        if not bucket.get("ObjectLockConfiguration.Rule.DefaultRetention.Days"):
            yield f"{bucket}: no lock"
        key = bucket.get(f"{_RULE}.ServerSideEncryptionByDefault.KMSMasterKeyID")
        others = [each for each in estate.of("S3::Bucket") if each not in buckets]
        if key in [each.get(f"{_RULE}.ServerSideEncryptionByDefault.KMSMasterKeyID") for each in others]:
            yield f"{bucket}: shares its key"


@check("S3", Spoil("S3::Bucket", ".DeletionPolicy", "Delete"), stages=PROTECTED)
def buckets_stay(estate: Estate) -> Iterator[str]:
    """No bucket goes with its stack, and nothing empties one."""
    for bucket in estate.of("S3::Bucket"):
        if bucket.body.get("DeletionPolicy") not in KEPT or bucket.body.get("UpdateReplacePolicy") not in KEPT:
            yield str(bucket)
    yield from (str(each) for each in estate.of("Custom::S3AutoDeleteObjects"))


@check("S3", Spoil("S3::Bucket", "NotificationConfiguration.QueueConfigurations"))
def one_notification(estate: Estate) -> Iterator[str]:
    """One bucket tells one queue of its own stack, without a helper function, of what is created and removed."""
    yield from (str(each) for each in estate.of("Custom::S3BucketNotifications"))
    telling = [each for each in estate.of("S3::Bucket") if each.get("NotificationConfiguration.QueueConfigurations")]
    if len(telling) != 1:
        yield f"{len(telling)} buckets tell of their objects"
    for bucket in telling:
        rows = bucket.get("NotificationConfiguration.QueueConfigurations")
        told = [found for row in rows for found in estate.targets(bucket.stack, row["Queue"])]
        if {row["Event"] for row in rows} != {"s3:ObjectCreated:*", "s3:ObjectRemoved:*"}:
            yield f"{bucket}: not every event"
        if {(each.kind, each.stack) for each in told} != {("AWS::SQS::Queue", bucket.stack)} or len(
            set(map(str, told))
        ) != 1:
            yield f"{bucket}: tells {[str(each) for each in told]}"


def dead_letter_queues(estate: Estate) -> list[Resource]:
    """Queues that another queue, a function, a rule or a schedule gives its failures to."""
    places = [
        *((each, each.get("RedrivePolicy")) for each in estate.of("SQS::Queue")),
        *((each, each.get("DeadLetterConfig")) for each in estate.of("Lambda::Function")),
        *((each, each.get("DestinationConfig")) for each in estate.of("Lambda::EventInvokeConfig")),
        *((each, each.get("Target.DeadLetterConfig")) for each in estate.of("Scheduler::Schedule")),
        *(
            (each, [row.get("DeadLetterConfig") for row in each.get("Targets", [])])
            for each in estate.of("Events::Rule")
        ),
        *((each, each.get("RedrivePolicy")) for each in estate.of("SNS::Subscription")),
    ]
    return [found for source, value in places for found in estate.targets(source.stack, value)]


@check("SQS", Spoil("SQS::Queue", "KmsMasterKeyId"), stages=PROTECTED)
def queues_have_own_keys(estate: Estate) -> Iterator[str]:
    """Every queue is encrypted with an own key where the stage has own keys."""
    for queue in estate.of("SQS::Queue"):
        if not estate.targets(queue.stack, queue.get("KmsMasterKeyId")):
            yield str(queue)


@check("SQS", Spoil("SQS::Queue", "SqsManagedSseEnabled", value=False))
def queues_are_encrypted(estate: Estate) -> Iterator[str]:
    """No queue is without encryption."""
    for queue in estate.of("SQS::Queue"):
        # Without either property SQS encrypts with its own keys.
        if queue.get("SqsManagedSseEnabled") is False:
            yield str(queue)


@check("SQS", Spoil("SQS::QueuePolicy", "PolicyDocument.Statement", []))
def queues_want_tls(estate: Estate) -> Iterator[str]:
    """Every queue denies requests without TLS."""
    for queue in estate.of("SQS::Queue"):
        if not denies(policies_of(estate, "SQS::QueuePolicy", "Queues", queue), "Bool", "aws:SecureTransport", "false"):
            yield str(queue)


@check("SQS", Spoil("SQS::Queue", "MessageRetentionPeriod", 60))
def dead_letters_last(estate: Estate) -> Iterator[str]:
    """Every source queue gives up after five receives or more, and its dead letters outlast it by far: 14 days."""
    dead = dead_letter_queues(estate)
    for queue in estate.of("SQS::Queue"):
        kept = int(queue.get("MessageRetentionPeriod", 345_600))
        if queue in dead:
            if kept != 1_209_600:
                yield f"{queue}: keeps {kept} s"
        elif int(queue.get("RedrivePolicy.maxReceiveCount", 0)) < 5 or kept >= 1_209_600:
            yield f"{queue}: {queue.get('RedrivePolicy')}"


@check("SQS", Spoil("SQS::QueuePolicy", "PolicyDocument.Statement.1.Condition"))
def queues_know_who_sends(estate: Estate) -> Iterator[str]:
    """A service may send only for a named source of this account."""
    for policy in estate.of("SQS::QueuePolicy"):
        for statement in statements(policy.get("PolicyDocument")):
            if statement["Effect"] == "Allow" and "Service" in statement["Principal"]:
                given = {key for keys in statement.get("Condition", {}).values() for key in keys}
                if not {"aws:SourceAccount", "aws:SourceArn"} <= given:
                    yield f"{policy}: {statement.get('Sid')} {given}"


@check("Secrets", Spoil("SecretsManager::Secret", "KmsKeyId"), stages=PROTECTED)
def secrets_have_own_keys(estate: Estate) -> Iterator[str]:
    """Every secret is encrypted with an own key, and none is written in a template."""
    for secret in estate.of("SecretsManager::Secret"):
        if not estate.targets(secret.stack, secret.get("KmsKeyId")) or secret.get("SecretString"):
            yield str(secret)


@check("Secrets", Spoil("SecretsManager::ResourcePolicy", "ResourcePolicy.Statement", []), stages=PROTECTED)
def secrets_stay_in_the_account(estate: Estate) -> Iterator[str]:
    """A policy on every secret keeps other accounts out."""
    guarded = [
        found
        for policy in estate.of("SecretsManager::ResourcePolicy")
        if denies(
            statements(policy.get("ResourcePolicy")), "StringNotEquals", "aws:PrincipalAccount", "<AWS::AccountId>"
        )
        for found in estate.targets(policy.stack, policy.get("SecretId"))
    ]
    for secret in estate.of("SecretsManager::Secret"):
        if secret not in guarded:
            yield str(secret)


@check("KMS", Spoil("KMS::Key", "EnableKeyRotation", value=False), stages=PROTECTED)
def keys_rotate(estate: Estate) -> Iterator[str]:
    """There are separate keys for data, logs and backups, each rotated and kept when its stack goes."""
    keys = estate.of("KMS::Key")
    if len(keys) < 3:
        yield f"{len(keys)} keys"
    for key in keys:
        if key.get("EnableKeyRotation") is not True or key.body.get("DeletionPolicy") not in KEPT:
            yield str(key)


@check("KMS", Spoil("KMS::Key", "KeyPolicy.Statement.0.Principal", {"AWS": "*"}), stages=PROTECTED)
def keys_are_not_everybodys(estate: Estate) -> Iterator[str]:
    """No key policy allows everybody."""
    for key in estate.of("KMS::Key"):
        for statement in statements(key.get("KeyPolicy")):
            everybody = "*" in listed(statement["Principal"]) or "*" in listed(dict(statement["Principal"]).get("AWS"))
            if statement["Effect"] == "Allow" and everybody:
                yield f"{key}: {statement.get('Sid')}"


@check("SNS", Spoil("SNS::Topic", "KmsMasterKeyId"))
def topics_are_encrypted(estate: Estate) -> Iterator[str]:
    """Every topic is encrypted, and denies requests without TLS; there is one for alarms."""
    topics = estate.of("SNS::Topic")
    if not topics:
        yield "nobody can be told of an alarm"
    for topic in topics:
        found = policies_of(estate, "SNS::TopicPolicy", "Topics", topic)
        if not topic.get("KmsMasterKeyId") or not denies(found, "Bool", "aws:SecureTransport", "false"):
            yield str(topic)
