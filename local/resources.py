"""What a deployment creates in AWS: secrets, queues, the bucket and its notification. Harmless when run again."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from botocore.exceptions import ClientError

from functions.table import OWNER, ROLES
from local import environment
from local.plan import Announcement, Bucket, Plan, Queue


class Clients(Protocol):
    def client(self, service_name: str) -> Any:
        """A boto3 client."""


@dataclass(frozen=True, slots=True)
class CreatedQueue:
    url: str
    arn: str


Queues = Mapping[str, CreatedQueue]


def create(aws: Clients, plan: Plan, *, redis_password: str, model_key: str | None) -> Queues:
    """Bring the account to what is planned; passwords of database roles are made once and kept. Queues by name."""
    vault = aws.client("secretsmanager")
    for role in (OWNER, *ROLES):
        keep_secret(vault, environment.database_secret(role))
    set_secret(vault, environment.REDIS_SECRET, redis_password)
    keep_secret(vault, environment.WEBHOOK_SECRET)
    if model_key:
        set_secret(vault, environment.MODEL_SECRET, model_key)
    queues = create_queues(aws.client("sqs"), plan.queues)
    create_bucket(aws.client("s3"), plan.bucket, queues)
    return queues


def keep_secret(vault: Any, name: str) -> str:
    """The value of the secret; the first time a random one."""
    try:
        return str(vault.get_secret_value(SecretId=name)["SecretString"])
    except vault.exceptions.ResourceNotFoundException:
        value = secrets.token_urlsafe(24)
        vault.create_secret(Name=name, SecretString=value)
        return value


def set_secret(vault: Any, name: str, value: str) -> None:
    """Give the secret this value, as a new version where it had another."""
    try:
        if vault.get_secret_value(SecretId=name)["SecretString"] != value:
            vault.put_secret_value(SecretId=name, SecretString=value)
    except vault.exceptions.ResourceNotFoundException:
        vault.create_secret(Name=name, SecretString=value)


def create_queues(sqs: Any, planned: Sequence[Queue]) -> Queues:
    """Those that others give their failures to stand before these."""
    created: dict[str, CreatedQueue] = {}
    for queue in planned:
        attributes = {
            "MessageRetentionPeriod": str(queue.retention_seconds),
            "VisibilityTimeout": str(queue.visibility_seconds),
        }
        if queue.dead_letters:
            redrive = {
                "deadLetterTargetArn": created[queue.dead_letters].arn,
                "maxReceiveCount": str(queue.max_receives),
            }
            attributes["RedrivePolicy"] = json.dumps(redrive)
        created[queue.name] = _queue(sqs, queue.name, attributes)
    return created


def _queue(sqs: Any, name: str, attributes: dict[str, str]) -> CreatedQueue:
    # Without attributes, because a queue that exists with others is an error instead of a change.
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes=attributes)
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    return CreatedQueue(url, arn)


def create_bucket(s3: Any, bucket: Bucket, queues: Queues) -> None:
    """The bucket that tells queues of what is created or removed in it."""
    try:
        s3.head_bucket(Bucket=bucket.name)
    except ClientError:
        s3.create_bucket(Bucket=bucket.name)
    if bucket.versioned:
        s3.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"})
    wanted = [_configured(number, each, queues) for number, each in enumerate(bucket.announcements)]
    found = s3.get_bucket_notification_configuration(Bucket=bucket.name).get("QueueConfigurations", [])
    if found != wanted:  # each time it is set, S3 sends a test event
        s3.put_bucket_notification_configuration(
            Bucket=bucket.name, NotificationConfiguration={"QueueConfigurations": wanted}
        )


def _configured(number: int, announcement: Announcement, queues: Queues) -> dict[str, Any]:
    named = (("Prefix", announcement.prefix), ("Suffix", announcement.suffix))
    rules = [{"Name": name, "Value": value} for name, value in named if value]
    return {
        "Id": f"{announcement.queue}-{number}",
        "QueueArn": queues[announcement.queue].arn,
        "Events": [announcement.event],
        **({"Filter": {"Key": {"FilterRules": rules}}} if rules else {}),
    }
