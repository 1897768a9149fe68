"""Which documents a queue message names."""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Literal, NamedTuple
from urllib.parse import unquote_plus

from rag import metadata
from rag.types import JSON, Location

# What the product writes into the bucket itself stands below a folder of this name.
OWN = "/.rag/"
# What S3 tells of objects that are there now or are not, as it names it and as EventBridge does.
HAPPENINGS = (
    *("ObjectCreated:", "ObjectRemoved:", "ObjectRestore:", "LifecycleExpiration:"),
    *("Object Created", "Object Deleted", "Object Restore"),
)

Ignored = Literal["empty", "folder", "own", "nobodys", "unknown_event"]

COLLECTION = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class Named(NamedTuple):
    """The document that an object is of: its own file, or the `sidecar` that describes it."""

    location: Location
    sidecar: bool = False


class Event(NamedTuple):
    """One thing that happened to an object; `name` as S3 writes it, or nothing where the sender gave none."""

    bucket: str
    object_key: str
    name: str = ""


def named(body: str, bucket: str) -> list[Named]:
    """Return what a notification names; nothing for a test event, a folder, or a key outside the scheme.

    Whatever is said to have happened: the bucket is asked. ValueError when the body is not a notification of this
    bucket: such a message belongs in the dead-letter queue.
    """
    return [found for event in _events(body, bucket) if (found := document(event.object_key)) is not None]


def ignored(body: str, bucket: str) -> Counter[Ignored]:
    """Why what a message says leads to no document, or is nothing that is known to happen; ValueError as `named`."""
    events = _events(body, bucket)
    reasons = Counter(reason for event in events if (reason := _reason(event)))
    if not events:
        reasons["empty"] += 1
    return reasons


def _reason(event: Event) -> Ignored | None:
    if event.name and not event.name.removeprefix("s3:").startswith(HAPPENINGS):
        return "unknown_event"
    if document(event.object_key) is not None:
        return None
    if is_own(event.object_key):
        return "own"
    return "folder" if event.object_key.endswith("/") else "nobodys"


def _events(body: str, bucket: str) -> list[Event]:
    try:
        events = _read(json.loads(body))
        if {event.bucket for event in events} - {bucket}:
            raise ValueError(bucket)  # noqa: TRY301 (one message for whatever is not ours)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        msg = f"the message is not an S3 notification of the bucket {bucket}"
        raise ValueError(msg) from error
    return events


def _read(notification: JSON) -> list[Event]:
    """As S3 writes it, or EventBridge, or SNS around one of both.

    Source: S3 user guide, "Event message structure" and "EventBridge event message structure"; SNS developer guide,
    "Fanout to Amazon SQS queues".
    """
    if notification.get("Type") == "Notification" and "TopicArn" in notification:
        notification = json.loads(notification["Message"])
    if notification.get("Event") == "s3:TestEvent":
        return []
    if notification.get("source") == "aws.s3":
        detail = notification["detail"]
        # Not encoded, unlike in S3's own.
        return [Event(detail["bucket"]["name"], _text(detail["object"]["key"]), notification["detail-type"])]
    return [
        Event(
            record["s3"]["bucket"]["name"],
            unquote_plus(record["s3"]["object"]["key"]),
            _text(record.get("eventName", "")),
        )
        for record in notification["Records"]
    ]


def _text(given: object) -> str:
    if not isinstance(given, str):
        raise TypeError(given)
    return given


def by_document(records: Iterable[JSON], bucket: str) -> list[list[JSON]]:
    """The messages, those that begin with the same document together and in their order."""
    together: defaultdict[object, list[JSON]] = defaultdict(list)
    for record in records:
        try:
            first, *_ = named(record["body"], bucket)
        except ValueError:  # it names none, or is no notification
            together[record["messageId"]].append(record)
        else:
            together[first.location].append(record)
    return list(together.values())


class Continuation(NamedTuple):
    """Which run of a version that takes several this is after the first, and how far the ones before have come."""

    version_id: str = ""
    number: int = 0
    progress: int = 0

    def after(self, version_id: str, progress: int) -> Continuation | None:
        """Return what is to be said to the next run; None when this one has brought the version no further."""
        before = self if version_id == self.version_id else Continuation()
        return Continuation(version_id, before.number + 1, progress) if progress > before.progress else None


def continuation(body: str) -> Continuation:
    """Return what a message that `named` has read says of the runs before it."""
    said = json.loads(body).get("Continuation")
    return Continuation(*said) if said else Continuation()


def is_own(object_key: str) -> bool:
    """Whether the product alone writes under such a key: none of it is ever a document, or it would feed on itself."""
    return OWN in f"/{object_key}"


def document(object_key: str) -> Named | None:
    """Read `<tenant>/<collection>/<key>`; None for what is neither a document's place nor beside one."""
    if is_own(object_key):
        return None
    tenant, _, rest = object_key.partition("/")
    collection, _, key = rest.partition("/")
    described = metadata.described(key)
    key = key if described is None else described
    # What describes a sidecar describes nothing.
    if not key or key.endswith(("/", metadata.SIDECAR)) or "\0" in key or not COLLECTION.fullmatch(collection):
        return None
    try:
        tenant_id = uuid.UUID(tenant)
    except ValueError:
        return None
    if str(tenant_id) != tenant:
        return None
    return Named(Location(tenant_id, collection, key), sidecar=described is not None)
