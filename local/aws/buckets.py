"""S3: moto answers, what it changed is journalled with its events in one commit, then the client hears of it.

Every request to S3 takes its turn under one lock, bodies having been read before; so a version is seen only once it is
durable, and what a request changed is the difference between a key's versions before it and after.
Not kept over a restart: multipart uploads in progress, object ACLs, retention, legal holds, restores from the archive.
"""

from __future__ import annotations

import threading
import xml.etree.ElementTree as ET
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

from local.aws import inside_moto, notifications
from local.aws.errors import S3Error
from local.aws.exchange import Reply, ask, hiding_form, request
from local.aws.notifications import Happening, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from _typeshed.wsgi import WSGIApplication

    from local.aws.call import Call
    from local.aws.inside_moto import Stored
    from local.aws.journal import Journal
    from local.aws.queues import Queues

# What a version has beside its bytes and is kept.
_IN_PLACE = {"tagging"}
# What reads an object as a whole may say.
_READING = {"versionId", "x-id"}
_CONDITIONS = {
    "HTTP_RANGE",
    "HTTP_IF_MATCH",
    "HTTP_IF_NONE_MATCH",
    "HTTP_IF_MODIFIED_SINCE",
    "HTTP_IF_UNMODIFIED_SINCE",
}
_EMPTY_MD5 = "d41d8cd98f00b204e9800998ecf8427e"


class Buckets:
    def __init__(self, app: WSGIApplication, journal: Journal, queues: Queues) -> None:
        self._app, self._journal, self._queues = app, journal, queues
        self._turn = threading.RLock()
        self._rules: dict[str, list[Rule]] = {}

    def answer(self, call: Call) -> Reply:
        """Raise S3Error, or reply when all that the request changed is durable."""
        with self._turn:
            if "notification" in call.query and not call.key:
                return self._notification(call)
            if call.method in {"GET", "HEAD", "OPTIONS"} or call.is_part:
                return _read(call) or self._ask(call)
            if not call.key and call.method in {"PUT", "DELETE"}:
                return self._change_bucket(call)
            return self._change_objects(call)

    def _ask(self, call: Call) -> Reply:
        return ask(self._app, hiding_form(call.environ) if call.key else call.environ)

    # Buckets and what describes them

    def _change_bucket(self, call: Call) -> Reply:
        reply = self._ask(call)
        if not reply.ok:
            return reply
        name = next((name for name in call.query if name not in {"id", "x-id"}), None)
        identity = call.query.get("id", "")
        with self._journal.commit() as journal:
            match call.method, name:
                case "PUT", None:
                    journal.save_bucket(call.bucket, _creation_headers(call), call.body)
                case "DELETE", None:
                    journal.remove_bucket(call.bucket)
                    self._rules.pop(call.bucket, None)
                case "PUT", str(setting):
                    journal.save_setting(call.bucket, setting, f"id={quote(identity)}" if identity else "", call.body)
                case _, str(setting):
                    journal.remove_setting(call.bucket, setting, f"id={quote(identity)}" if identity else "")
        return reply

    def _notification(self, call: Call) -> Reply:
        if not inside_moto.bucket(call.bucket):
            raise S3Error(404, "NoSuchBucket", "The specified bucket does not exist", {"BucketName": call.bucket})
        if call.method == "GET":
            body = notifications.render(self._rules.get(call.bucket, []))
            return Reply(200, (("Content-Type", "application/xml"),), body)
        if call.method != "PUT":
            raise S3Error(405, "MethodNotAllowed", "The specified method is not allowed against this resource.")
        rules = notifications.parse(call.body)
        if missing := [rule.queue_arn for rule in rules if not self._queues.name_of(rule.queue_arn)]:
            message = "Unable to validate the following destination configurations"
            details = {"ArgumentName": missing[0], "ArgumentValue": "The destination queue does not exist"}
            raise S3Error(400, "InvalidArgument", message, details)
        test = notifications.test_message(call.bucket, request_id=call.request_id, host_id=call.host_id)
        arns = sorted({rule.queue_arn for rule in rules})
        with self._journal.commit() as journal:
            journal.save_setting(call.bucket, "notification", "", notifications.render(rules))
            sent = self._queues.journal_events([(arn, test) for arn in arns])
        self._rules[call.bucket] = rules
        self._queues.deliver(sent)
        return Reply(200)

    def remember_rules(self, bucket: str, configuration: bytes) -> None:
        """Take a notification configuration from the journal."""
        self._rules[bucket] = notifications.parse(configuration)

    # Objects

    def _change_objects(self, call: Call) -> Reply:
        keys = _deleted_keys(call.body) if "delete" in call.query else [call.key]
        before = {key: inside_moto.versions(call.bucket, key) for key in keys}
        with self._deletable(call):
            reply = self._ask(call)
        if "restore" in call.query:
            return self._announce(call, reply, self._restored(call) if reply.ok else [])
        if _IN_PLACE.intersection(call.query):
            return self._update(call, reply)
        happenings: list[Happening] = []
        with self._journal.commit() as journal:
            for key in keys:
                after = inside_moto.versions(call.bucket, key)
                gone, made = _difference(before[key], after), _difference(after, before[key])
                for stored in gone:
                    journal.remove_version(call.bucket, key, str(stored.version_id))
                for stored in made:
                    journal.add_version(inside_moto.describe(call.bucket, stored), inside_moto.content(stored))
                happenings += [self._created(call, stored) for stored in made]
                # What an overwrite replaces in a bucket without versions is no removal to S3.
                happenings += [] if made else [self._removed(call, stored) for stored in gone]
            sent = self._queues.journal_events(self._messages(call, happenings))
        self._queues.deliver(sent)
        return reply

    @contextmanager
    def _deletable(self, call: Call) -> Iterator[None]:
        """S3 marks a key as deleted even if it never existed; moto marks existing keys only."""
        marking = call.method == "DELETE" and not call.query.keys() & {"versionId", *_IN_PLACE}
        if not marking or not inside_moto.is_versioned(call.bucket) or inside_moto.versions(call.bucket, call.key):
            yield
            return
        target = quote(f"/{call.bucket}/{call.key}")
        ask(self._app, request("s3", "PUT", target))
        [passing] = inside_moto.versions(call.bucket, call.key)
        yield
        ask(self._app, request("s3", "DELETE", f"{target}?versionId={passing.version_id}"))

    def _update(self, call: Call, reply: Reply) -> Reply:
        """Something beside the bytes of one version changed."""
        stored = inside_moto.versions(call.bucket, call.key)
        wanted = call.query.get("versionId")
        changed = [s for s in stored if str(s.version_id) == wanted] if wanted else stored[-1:]
        if reply.ok:
            with self._journal.commit() as journal:
                for version in changed:
                    journal.save_tags(inside_moto.describe(call.bucket, version))
        return reply

    def _announce(self, call: Call, reply: Reply, happenings: list[Happening]) -> Reply:
        with self._journal.commit():
            sent = self._queues.journal_events(self._messages(call, happenings))
        self._queues.deliver(sent)
        return reply

    def _messages(self, call: Call, happenings: Iterable[Happening]) -> list[tuple[str, str]]:
        """(queue ARN, body) for every rule that wants an event; one place in the sequence per event."""
        messages = []
        for happening in happenings:
            wanting = [r for r in self._rules.get(call.bucket, []) if r.wants(happening.event, happening.key)]
            sequencer = self._journal.next_sequencer() if wanting else ""
            messages += [
                (
                    rule.queue_arn,
                    notifications.message(
                        happening, rule, sequencer=sequencer, request_id=call.request_id, host_id=call.host_id
                    ),
                )
                for rule in wanting
            ]
        return messages

    def _created(self, call: Call, stored: Stored) -> Happening:
        if inside_moto.is_marker(stored):
            event = "ObjectRemoved:DeleteMarkerCreated"
            return Happening(event, call.bucket, stored.name, str(stored.version_id), etag=_EMPTY_MD5)
        return self._existing(call.creation, call.bucket, stored)

    def _existing(self, event: str, bucket: str, stored: Stored) -> Happening:
        etag, size = inside_moto.etag(stored), inside_moto.size(stored)
        return Happening(event, bucket, stored.name, _version_id(bucket, stored), etag, size)

    def _removed(self, call: Call, stored: Stored) -> Happening:
        return Happening("ObjectRemoved:Delete", call.bucket, stored.name, _version_id(call.bucket, stored))

    def _restored(self, call: Call) -> list[Happening]:
        stored = inside_moto.versions(call.bucket, call.key)[-1]
        # moto brings an object back from the archive at once.
        return [self._existing(f"ObjectRestore:{step}", call.bucket, stored) for step in ("Post", "Completed")]


def _read(call: Call) -> Reply | None:
    """The reply to whoever reads an object or finds none, and asks for nothing else; None leaves it to moto.

    It is most of what a platform at work asks, and takes moto twenty times as long.
    """
    asked_more = call.query.keys() - _READING or call.environ.keys() & _CONDITIONS
    if call.method not in {"GET", "HEAD"} or not call.key or asked_more or not inside_moto.is_plain(call.bucket):
        return None
    stored, wanted = inside_moto.versions(call.bucket, call.key), call.query.get("versionId")
    if not stored and wanted is None:
        raise S3Error(404, "NoSuchKey", "The specified key does not exist.", {"Key": call.key})
    if wanted is not None:
        stored = [one for one in stored if str(one.version_id) == wanted and inside_moto.is_versioned(call.bucket)]
    found = stored[-1:]
    with_checksum = "HTTP_X_AMZ_CHECKSUM_MODE" in call.environ
    headers = inside_moto.headers(found[0], with_checksum=with_checksum) if found else None
    if headers is None:
        return None
    return Reply(200, tuple(headers.items()), b"" if call.method == "HEAD" else inside_moto.content(found[0]))


def _difference(some: Sequence[Stored], others: Sequence[Stored]) -> list[Stored]:
    known = {id(stored) for stored in others}
    return [stored for stored in some if id(stored) not in known]


def _version_id(bucket: str, stored: Stored) -> str | None:
    return str(stored.version_id) if inside_moto.is_versioned(bucket) else None


def _deleted_keys(body: bytes) -> list[str]:
    try:
        root = ET.fromstring(body)  # noqa: S314  # it comes from this machine's own client
    except ET.ParseError as error:
        raise S3Error(400, "MalformedXML", "The XML you provided was not well-formed.") from error
    keys = [element.text or "" for element in root.iter() if element.tag.rpartition("}")[2] == "Key"]
    return list(dict.fromkeys(keys))


def _creation_headers(call: Call) -> dict[str, str]:
    names = ("HTTP_X_AMZ_BUCKET_OBJECT_LOCK_ENABLED", "HTTP_X_AMZ_OBJECT_OWNERSHIP", "HTTP_X_AMZ_ACL")
    return {n.removeprefix("HTTP_").replace("_", "-").lower(): call.environ[n] for n in names if n in call.environ}
