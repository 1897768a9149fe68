"""The only module that reaches into moto's data; tests/integration/test_local_*.py fail when it changes shape.

moto chooses version ids, times and message ids by itself; the journal needs to read them after a request, and to set
them again after a restart.
"""

# ruff: noqa: SLF001  # reaching in is what it is for; nothing else does

from __future__ import annotations

import base64
import json
import os
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

# moto reads these when it is imported: paths name buckets whatever the Host header says, CORS is ours to answer.
os.environ["S3_IGNORE_SUBDOMAIN_BUCKETNAME"] = "1"
os.environ["MOTO_DISABLE_GLOBAL_CORS"] = "true"

from moto.core.utils import unix_time, unix_time_millis
from moto.moto_server.werkzeug_app import create_backend_app
from moto.s3.models import FakeDeleteMarker, FakeKey, s3_backends
from moto.s3.utils import ARCHIVE_STORAGE_CLASSES
from moto.secretsmanager.models import secretsmanager_backends
from moto.sqs.models import Message as MotoMessage
from moto.sqs.models import SQSBackend, sqs_backends

from local.aws import ACCOUNT_ID, REGION
from local.aws.journal import Message, Version

if TYPE_CHECKING:
    from collections.abc import Mapping

    from _typeshed.wsgi import WSGIApplication
    from moto.sqs.models import Queue

Stored = FakeKey | FakeDeleteMarker

# What a version is beside its bytes, its metadata and its place.
_PROPERTIES = (
    "_storage_class",
    "encryption",
    "kms_key_id",
    "website_redirect_location",
    "checksum_algorithm",
    "checksum_value",
    "checksum_type",
    "checksum_parts",
)
_SECRET_PARTS_ELSEWHERE = {"replicas"}


def application(service: Literal["s3", "sqs", "secretsmanager"]) -> WSGIApplication:
    """A Flask application of moto's; its dispatcher, left out, would look the service up again for every request."""
    app: WSGIApplication = create_backend_app(service)
    return app


# S3


def bucket(name: str) -> Any:
    """The bucket as moto has it, or None."""
    return s3_backends[ACCOUNT_ID]["aws"].buckets.get(name)


def versions(bucket_name: str, key: str) -> list[Stored]:
    """All versions of a key, oldest first."""
    found = bucket(bucket_name)
    return list(found.keys.getlist(key, [])) if found else []


def is_versioned(bucket_name: str) -> bool:
    found = bucket(bucket_name)
    return bool(found and found.is_versioned)


def is_marker(stored: Stored) -> bool:
    return isinstance(stored, FakeDeleteMarker)


def etag(stored: Stored) -> str:
    return "" if isinstance(stored, FakeDeleteMarker) else str(stored.etag).strip('"')


def size(stored: Stored) -> int:
    return 0 if isinstance(stored, FakeDeleteMarker) else int(stored.size)


def content(stored: Stored) -> bytes:
    return b"" if isinstance(stored, FakeDeleteMarker) else bytes(stored.value)


def is_plain(bucket_name: str) -> bool:
    """Whether nothing but the objects themselves decides what is answered of those in the bucket."""
    found = bucket(bucket_name)
    return bool(found and not found.policy and not found.logging)


def headers(stored: Stored, *, with_checksum: bool) -> dict[str, str] | None:
    """What moto answers beside the bytes of an object; None where it looks further: checksums, archives, markers."""
    if isinstance(stored, FakeDeleteMarker) or stored.multipart or stored.storage_class in ARCHIVE_STORAGE_CLASSES:
        return None
    if with_checksum and stored.checksum_algorithm:
        return None
    return {**stored.response_dict, **stored.metadata, "Accept-Ranges": "bytes"}


def describe(bucket_name: str, stored: Stored) -> Version:
    """What the journal keeps of a version beside its bytes."""
    return Version(
        bucket=bucket_name,
        key=stored.name,
        version_id=str(stored.version_id),
        is_marker=is_marker(stored),
        last_modified=stored.last_modified.isoformat(),
        etag=etag(stored),
        metadata=dict(stored.metadata) if isinstance(stored, FakeKey) else {},
        properties={name: getattr(stored, name, None) for name in _PROPERTIES},
        tags=_tagger().get_tag_dict_for_resource(stored.arn) if isinstance(stored, FakeKey) else {},
    )


def _tagger() -> Any:
    return s3_backends[ACCOUNT_ID]["aws"].tagger


def restore(version: Version, content: bytes) -> None:
    """Give a bucket back one version, as its newest of that key.

    Not by a PUT: that costs milliseconds, chooses an id and a time of its own, and the bucket's settings may refuse it.
    """
    made: Any = FakeKey(version.key, content, ACCOUNT_ID, REGION, bucket_name=version.bucket)
    made.set_metadata(dict(version.metadata))
    for name, value in version.properties.items():
        setattr(made, name, value)
    made._etag = version.etag
    made._is_versioned = version.version_id != "null"
    restored = FakeDeleteMarker(made) if version.is_marker else made
    restored._version_id = version.version_id
    restored.last_modified = datetime.fromisoformat(version.last_modified)
    bucket(version.bucket).keys[version.key] = restored
    if version.tags:
        _tagger().tag_resource(made.arn, [{"Key": key, "Value": value} for key, value in version.tags.items()])


# SQS


def _is_kept(self: SQSBackend, queue_name: str, message: MotoMessage) -> bool:
    """Whether a message is younger than the queue's retention.

    moto asks for all attributes of the queue, among them three counts of all messages, for each message it gives out.
    """
    period: int = self.get_queue(queue_name).message_retention_period  # type: ignore[attr-defined]
    return period + (message.sent_timestamp or 0) / 1000 > unix_time()


SQSBackend.is_message_valid_based_on_retention_period = _is_kept  # type: ignore[method-assign]


def queue(name: str) -> Queue | None:
    found: Queue | None = sqs_backends[ACCOUNT_ID][REGION].queues.get(name)
    return found


def dead_letter_queue(name: str) -> str | None:
    found = queue(name)
    return str(found.dead_letter_queue.name) if found and found.dead_letter_queue else None


def messages(queue_name: str) -> list[MotoMessage]:
    """All messages of a queue, those in flight and delayed too, oldest first."""
    found = queue(queue_name)
    return list(found._messages) if found else []


def wait_seconds(queue_name: str) -> int:
    """How long a receive waits that does not say."""
    return int(getattr(queue(queue_name), "receive_message_wait_time_seconds", 0))


def visible_count(queue_name: str) -> int:
    now = unix_time_millis()
    return sum(message.visible_at < now >= message.delayed_until for message in messages(queue_name))


def read(queue_name: str, message: MotoMessage) -> Message:
    """What the journal keeps of a message."""
    entry = {
        "MessageBody": message.body,
        "MessageAttributes": message.message_attributes,
        "MessageSystemAttributes": message.system_attributes,
        "MessageGroupId": message.group_id,
        "MessageDeduplicationId": message.deduplication_id,
    }
    return Message(
        id=message.id,
        queue=queue_name,
        entry=json.loads(json.dumps({name: value for name, value in entry.items() if value}, default=_base64)),
        sent_ms=int(message.sent_timestamp or 0),
        delayed_until_ms=int(message.delayed_until),
        sequence_number=message.sequence_number,
        receive_count=message.approximate_receive_count,
        first_received_ms=message.approximate_first_receive_timestamp,
    )


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def enqueue(message: Message) -> None:
    """Put a journalled message into its queue.

    Not by SendMessage: that chooses an id of its own, and looks at every message of the queue several times.
    """
    made: Any = MotoMessage(message.id, message.entry["MessageBody"], message.entry.get("MessageSystemAttributes"))
    made.message_attributes = _with_bytes(message.entry.get("MessageAttributes", {}))
    made.group_id = message.entry.get("MessageGroupId")
    made.deduplication_id = message.entry.get("MessageDeduplicationId")
    made.sent_timestamp = message.sent_ms
    made.delayed_until = message.delayed_until_ms
    made.sequence_number = message.sequence_number
    made.approximate_receive_count = message.receive_count
    made.approximate_first_receive_timestamp = message.first_received_ms
    sqs_backends[ACCOUNT_ID][REGION].queues[message.queue].add_message(made)


def _with_bytes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {field: base64.b64decode(value) if field == "BinaryValue" else value for field, value in held.items()}
        for name, held in attributes.items()
    }


# Secrets Manager


def secret_states() -> dict[str, str]:
    """Every secret by name, as JSON."""
    found = secretsmanager_backends[ACCOUNT_ID][REGION].secrets
    return {name: json.dumps(_without(vars(secret), _SECRET_PARTS_ELSEWHERE)) for name, secret in found.items()}


def restore_secret(name: str, state: str) -> None:
    """Give a secret that was just created again all that it had: ARN, versions, stages, dates."""
    vars(secretsmanager_backends[ACCOUNT_ID][REGION].secrets[name]).update(json.loads(state))


def _without(values: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}
