"""Bucket notifications: the configuration as S3 takes it, and the events as S3 writes them.

Source: Amazon S3 User Guide, "Event message structure" and "Configuring event notifications using object key name
filtering". Only queues are destinations here; topics, functions and EventBridge are refused.
"""

from __future__ import annotations

import json
import uuid
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus
from xml.sax.saxutils import escape

from local.aws import ACCOUNT_ID, REGION
from local.aws.errors import S3Error

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_EVENTS = {
    "s3:ObjectCreated": ("Put", "Post", "Copy", "CompleteMultipartUpload"),
    "s3:ObjectRemoved": ("Delete", "DeleteMarkerCreated"),
    "s3:ObjectRestore": ("Post", "Completed"),
}
_KNOWN = {f"{group}:{name}" for group, names in _EVENTS.items() for name in (*names, "*")}


@dataclass(frozen=True, slots=True)
class Rule:
    """Which events of which keys go to which queue."""

    id: str
    queue_arn: str
    events: tuple[str, ...]
    prefix: str = ""
    suffix: str = ""

    def wants(self, event: str, key: str) -> bool:
        """`event` without `s3:`, as it stands in `eventName`."""
        named = {f"s3:{event}", f"s3:{event.partition(':')[0]}:*"}
        return bool(named.intersection(self.events)) and key.startswith(self.prefix) and key.endswith(self.suffix)


@dataclass(frozen=True, slots=True)
class Happening:
    """One event before it has a place in the sequence; size, etag and version are None where S3 leaves them out."""

    event: str
    bucket: str
    key: str
    version_id: str | None = None
    etag: str | None = None
    size: int | None = None


def parse(document: bytes) -> list[Rule]:
    """Read a `<NotificationConfiguration>`; raise S3Error as S3 does for one that it would not take."""
    try:
        root = ET.fromstring(document)  # noqa: S314  # it comes from this machine's own client
    except ET.ParseError as error:
        raise S3Error(400, "MalformedXML", "The XML you provided was not well-formed.") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    if unsupported := [child.tag for child in root if child.tag != "QueueConfiguration"]:
        raise S3Error(501, "NotImplemented", f"The local S3 notifies queues only, not by {unsupported[0]}.")
    return [_rule(element) for element in root]


def _rule(element: ET.Element) -> Rule:
    events = tuple(event.text or "" for event in element.findall("Event"))
    if not events or not _KNOWN.issuperset(events):
        raise _invalid("The event is not supported for notifications")
    filters = {_text(rule, "Name").lower(): _text(rule, "Value") for rule in element.iter("FilterRule")}
    if not filters.keys() <= {"prefix", "suffix"}:
        raise _invalid("filter rule name must be either prefix or suffix")
    return Rule(
        _text(element, "Id") or str(uuid.uuid4()),
        _text(element, "Queue"),
        events,
        filters.get("prefix", ""),
        filters.get("suffix", ""),
    )


def _text(element: ET.Element, name: str) -> str:
    return element.findtext(name) or ""


def _invalid(message: str) -> S3Error:
    return S3Error(400, "InvalidArgument", message)


def render(rules: Sequence[Rule]) -> bytes:
    """The configuration as GET answers it; `parse` reads it back."""
    inner = "".join(
        f"<QueueConfiguration><Id>{escape(rule.id)}</Id><Queue>{escape(rule.queue_arn)}</Queue>"
        f"{''.join(f'<Event>{event}</Event>' for event in rule.events)}{_filter(rule)}</QueueConfiguration>"
        for rule in rules
    )
    return f'<NotificationConfiguration xmlns="{_NAMESPACE}">{inner}</NotificationConfiguration>'.encode()


def _filter(rule: Rule) -> str:
    pairs = [(name, value) for name, value in (("Prefix", rule.prefix), ("Suffix", rule.suffix)) if value]
    inner = "".join(f"<FilterRule><Name>{n}</Name><Value>{escape(v)}</Value></FilterRule>" for n, v in pairs)
    return f"<Filter><S3Key>{inner}</S3Key></Filter>" if pairs else ""


def message(happening: Happening, rule: Rule, *, sequencer: str, request_id: str, host_id: str) -> str:
    """The body of the queue's message: one record, as S3 sends them."""
    described = {
        "key": quote_plus(happening.key),
        "size": happening.size,
        "eTag": happening.etag,
        "versionId": happening.version_id,
        "sequencer": sequencer,
    }
    record: dict[str, Any] = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": REGION,
        "eventTime": _now(),
        "eventName": happening.event,
        "userIdentity": {"principalId": "AWS:LOCALRAG"},
        "requestParameters": {"sourceIPAddress": "127.0.0.1"},
        "responseElements": {"x-amz-request-id": request_id, "x-amz-id-2": host_id},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": rule.id,
            "bucket": {
                "name": happening.bucket,
                "ownerIdentity": {"principalId": ACCOUNT_ID},
                "arn": f"arn:aws:s3:::{happening.bucket}",
            },
            "object": {name: value for name, value in described.items() if value is not None},
        },
    }
    return json.dumps({"Records": [record]})


def test_message(bucket: str, *, request_id: str, host_id: str) -> str:
    """What S3 sends to every queue of a configuration that was just put."""
    event = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": _now(), "Bucket": bucket}
    return json.dumps({**event, "RequestId": request_id, "HostId": host_id})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
