"""What a deployment creates in AWS: secrets, queues, the bucket and its notification. Harmless when run again."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any, Protocol

from botocore.exceptions import ClientError

from functions.table import OWNER, ROLES
from local import environment
from local.environment import (
    BUCKET,
    DEAD_LETTER_QUEUE,
    MAINTENANCE_QUEUE,
    MAINTENANCE_VISIBILITY_SECONDS,
    MAX_RECEIVES,
    QUEUE,
    QUEUE_VISIBILITY_SECONDS,
)

_RETENTION_SECONDS = 14 * 24 * 3600
_EVENTS = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]


class Clients(Protocol):
    def client(self, service_name: str) -> Any:
        """A boto3 client."""


@dataclass(frozen=True, slots=True)
class Queues:
    url: str
    arn: str
    dead_letter_url: str
    maintenance_url: str
    maintenance_arn: str


def create(aws: Clients, *, redis_password: str, model_key: str | None) -> Queues:
    """Bring the account to what this code expects of it; passwords of database roles are made once and kept."""
    vault = aws.client("secretsmanager")
    for role in (OWNER, *ROLES):
        keep_secret(vault, environment.database_secret(role))
    set_secret(vault, environment.REDIS_SECRET, redis_password)
    if model_key:
        set_secret(vault, environment.MODEL_SECRET, model_key)
    queues = create_queues(aws.client("sqs"))
    create_bucket(aws.client("s3"), queues.arn)
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


def create_queues(sqs: Any) -> Queues:
    """The queue of the bucket's events, where what fails MAX_RECEIVES times goes, and the queue that wakes maintenance.

    Nothing of the last is worth keeping: maintenance comes by on a schedule too.
    """
    retention = {"MessageRetentionPeriod": str(_RETENTION_SECONDS)}
    dead_letter_url, dead_letter_arn = _queue(sqs, DEAD_LETTER_QUEUE, retention)
    redrive = {"deadLetterTargetArn": dead_letter_arn, "maxReceiveCount": str(MAX_RECEIVES)}
    attributes = {"VisibilityTimeout": str(QUEUE_VISIBILITY_SECONDS), "RedrivePolicy": json.dumps(redrive)}
    url, arn = _queue(sqs, QUEUE, retention | attributes)
    visible = {"VisibilityTimeout": str(MAINTENANCE_VISIBILITY_SECONDS)}
    maintenance = _queue(sqs, MAINTENANCE_QUEUE, visible | {"MessageRetentionPeriod": "3600"})
    return Queues(url, arn, dead_letter_url, *maintenance)


def _queue(sqs: Any, name: str, attributes: dict[str, str]) -> tuple[str, str]:
    # Without attributes, because a queue that exists with others is an error instead of a change.
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes=attributes)
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    return url, arn


def create_bucket(s3: Any, queue_arn: str) -> None:
    """The versioned bucket that tells the queue of everything created or removed."""
    try:
        s3.head_bucket(Bucket=BUCKET)
    except ClientError:
        s3.create_bucket(Bucket=BUCKET)
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    wanted = [{"Id": "ingest", "QueueArn": queue_arn, "Events": _EVENTS}]
    found = s3.get_bucket_notification_configuration(Bucket=BUCKET).get("QueueConfigurations", [])
    if found != wanted:  # each time it is set, S3 sends a test event
        s3.put_bucket_notification_configuration(
            Bucket=BUCKET, NotificationConfiguration={"QueueConfigurations": wanted}
        )
