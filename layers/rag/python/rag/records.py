"""Which documents a queue message names."""

from __future__ import annotations

import json
import re
import uuid
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote_plus

from rag import metadata
from rag.types import JSON, Location

COLLECTION = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class Named(NamedTuple):
    """The document that an object is of: its own file, or the `sidecar` that describes it."""

    location: Location
    sidecar: bool = False


def named(body: str, bucket: str) -> list[Named]:
    """Return what an S3 notification names; nothing for a test event, a folder, or a key outside the scheme.

    ValueError when the body is not a notification of this bucket: such a message belongs in the dead-letter queue.
    """
    try:
        notification = json.loads(body)
        records = [] if notification.get("Event") == "s3:TestEvent" else notification["Records"]
        keys = [unquote_plus(record["s3"]["object"]["key"]) for record in records]
        if {record["s3"]["bucket"]["name"] for record in records} - {bucket}:
            raise ValueError(bucket)  # noqa: TRY301 (one message for whatever is not ours)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        msg = f"the message is not an S3 notification of the bucket {bucket}"
        raise ValueError(msg) from error
    return [found for found in map(document, keys) if found is not None]


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


def document(object_key: str) -> Named | None:
    """Read `<tenant>/<collection>/<key>`; None for what is neither a document's place nor beside one."""
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
