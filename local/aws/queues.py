"""SQS: moto answers, one request at a time; what it changed in a queue is journalled before the client hears of it.

moto's queues are not safe between threads (a delete may drop a message that is being added) and its long poll blocks,
so requests take turns here and a long poll gives its turn away while it waits. Queues and their attributes come back
after a restart, so creating them again is idempotent; messages too, visible at once, with the receive counts that they
had. The time that the server was off does not count as age: a message past its retention starts anew.

Most of moto's operations look at every message of a queue, some dozens of times; so what S3 sends waits here until the
queue has few that are visible.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import defaultdict, deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from local.aws import ACCOUNT_ID, REGION, inside_moto
from local.aws.exchange import Environ, Reply, ask, body_environ, request
from local.aws.journal import Message

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from _typeshed.wsgi import WSGIApplication

    from local.aws.journal import Journal

_SETTABLE = {
    "ContentBasedDeduplication",
    "DeduplicationScope",
    "DelaySeconds",
    "FifoQueue",
    "FifoThroughputLimit",
    "KmsDataKeyReusePeriodSeconds",
    "KmsMasterKeyId",
    "MaximumMessageSize",
    "MessageRetentionPeriod",
    "Policy",
    "ReceiveMessageWaitTimeSeconds",
    "RedrivePolicy",
    "SqsManagedSseEnabled",
    "VisibilityTimeout",
}
_DESCRIBING = {"CreateQueue", "SetQueueAttributes", "TagQueue", "UntagQueue", "AddPermission", "RemovePermission"}
_LONGEST_WAIT_SECONDS = 20
# Messages become visible again by the clock alone, so somebody has to look.
_LOOK_SECONDS = 0.1
# As many as one request may receive.
_VISIBLE_AT_ONCE = 10


class Queues:
    def __init__(self, app: WSGIApplication, journal: Journal) -> None:
        self._app, self._journal = app, journal
        self._turn = threading.Condition(threading.RLock())
        # Queue → id of each message that moto has → receive count in the journal.
        self._journalled: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self._waiting: defaultdict[str, deque[Message]] = defaultdict(deque)

    def answer(self, environ: Environ, body: bytes) -> Reply:
        """Reply when all that the request changed is durable."""
        operation = str(environ["HTTP_X_AMZ_TARGET"]).partition(".")[2]
        entry = _object(body)
        queue = str(entry.get("QueueName") or entry.get("QueueUrl") or "").rpartition("/")[2]
        if operation == "ReceiveMessage" and (seconds := self._wait_seconds(queue, entry)):
            return self._long_poll(environ, {**entry, "WaitTimeSeconds": 0}, queue, seconds)
        with self._turn:
            self._feed(queue)
            reply = ask(self._app, environ)
            if reply.ok and operation in _DESCRIBING:
                self._describe(queue)
            elif reply.ok and operation in {"DeleteQueue", "PurgeQueue"}:
                self._empty(queue, gone=operation == "DeleteQueue")
            else:
                self._settle(queue)
            self._turn.notify_all()
            return self._counting(queue, reply) if operation == "GetQueueAttributes" else reply

    # Receiving

    def _wait_seconds(self, queue: str, entry: Mapping[str, Any]) -> float:
        asked = entry.get("WaitTimeSeconds", inside_moto.wait_seconds(queue))
        # Anything else is for moto to answer or to refuse.
        return asked if isinstance(asked, int) and 0 < asked <= _LONGEST_WAIT_SECONDS else 0

    def _long_poll(self, environ: Environ, entry: Mapping[str, Any], queue: str, seconds: float) -> Reply:
        deadline = time.monotonic() + seconds
        body = json.dumps(entry).encode()
        with self._turn:
            while True:
                remaining = deadline - time.monotonic()
                self._feed(queue)
                if remaining <= 0 or inside_moto.visible_count(queue) or not inside_moto.queue(queue):
                    reply = ask(self._app, {**environ, **body_environ(body)})
                    self._settle(queue)
                    if remaining <= 0 or not reply.ok or _object(reply.body).get("Messages"):
                        return reply
                self._turn.wait(min(remaining, _LOOK_SECONDS))

    # Keeping

    def _settle(self, queue: str) -> None:
        """Make the journal of a queue, and of the one that it redrives to, what moto has."""
        names = [name for name in (queue, inside_moto.dead_letter_queue(queue)) if name]
        before = {i: (name, count) for name in names for i, count in self._journalled[name].items()}
        now = {message.id: (name, message) for name in names for message in inside_moto.messages(name)}
        changed = [(n, m) for i, (n, m) in now.items() if before.get(i) != (n, m.approximate_receive_count)]
        removed = before.keys() - now.keys()
        if changed or removed:
            with self._journal.commit() as journal:
                for name, message in changed:
                    journal.save_message(inside_moto.read(name, message))
                for message_id in removed:
                    journal.remove_message(message_id)
            for name in names:
                self._journalled[name] = {
                    i: message.approximate_receive_count for i, (n, message) in now.items() if n == name
                }

    def _describe(self, queue: str) -> None:
        attributes, tags = self._attributes(queue), inside_moto.queue(queue)
        with self._journal.commit() as journal:
            journal.save_queue(queue, attributes, tags.tags if tags else {})

    def _attributes(self, queue: str) -> dict[str, str]:
        found = _object(self._call("GetQueueAttributes", QueueUrl=queue, AttributeNames=["All"]).body)
        return {name: value for name, value in found.get("Attributes", {}).items() if name in _SETTABLE}

    def _empty(self, queue: str, *, gone: bool) -> None:
        with self._journal.commit() as journal:
            for message_id in [*self._journalled.pop(queue, {}), *(m.id for m in self._waiting.pop(queue, ()))]:
                journal.remove_message(message_id)
            if gone:
                journal.remove_queue(queue)

    def _counting(self, queue: str, reply: Reply) -> Reply:
        """The attributes with the messages that moto does not know of yet."""
        result = _object(reply.body)
        held = result.get("Attributes", {})
        if self._waiting[queue] and "ApproximateNumberOfMessages" in held:
            held["ApproximateNumberOfMessages"] = str(
                int(held["ApproximateNumberOfMessages"]) + len(self._waiting[queue])
            )
            return replace(reply, body=json.dumps(result).encode())
        return reply

    def _call(self, operation: str, **entry: Any) -> Reply:
        headers = {"X-Amz-Target": f"AmazonSQS.{operation}", "Content-Type": "application/x-amz-json-1.0"}
        return ask(self._app, request("sqs", "POST", "/", headers=headers, body=json.dumps(entry).encode()))

    # Events of S3

    def name_of(self, arn: str) -> str | None:
        """The queue of this ARN, None when there is none."""
        prefix, _, name = arn.rpartition(":")
        known = prefix == f"arn:aws:sqs:{REGION}:{ACCOUNT_ID}" and inside_moto.queue(name)
        return name if known else None

    def journal_events(self, events: Iterable[tuple[str, str]]) -> list[Message]:
        """Write (queue ARN, body) into the journal, in the commit of the object that they tell of.

        An event for a queue that is gone is dropped, as on AWS.
        """
        named = [(self.name_of(arn), body) for arn, body in events]
        messages = [Message(str(uuid.uuid4()), name, {"MessageBody": body}, _now_ms()) for name, body in named if name]
        for message in messages:
            self._journal.save_message(message)
        return messages

    def deliver(self, messages: Iterable[Message]) -> None:
        """Let journalled events be received."""
        with self._turn:
            for message in messages:
                if inside_moto.queue(message.queue):
                    self._waiting[message.queue].append(message)
                    self._feed(message.queue)
            self._turn.notify_all()

    def _feed(self, queue: str) -> None:
        waiting = self._waiting[queue]
        room = _VISIBLE_AT_ONCE - inside_moto.visible_count(queue) if waiting else 0
        while waiting and room > 0 and inside_moto.queue(queue):
            self._enqueue(waiting.popleft())
            room -= 1

    def _enqueue(self, message: Message) -> None:
        inside_moto.enqueue(message)
        self._journalled[message.queue][message.id] = message.receive_count

    # After a restart

    def replay(self) -> None:
        """Give moto the queues and messages of the journal."""
        queues = self._journal.queues()
        for name, attributes, tags in queues:
            first = {key: value for key, value in attributes.items() if key != "RedrivePolicy"}
            self._call("CreateQueue", QueueName=name, Attributes=first, tags=tags)
        for name, attributes, _ in queues:
            # Only now does every dead-letter queue exist.
            policy = {key: value for key, value in attributes.items() if key == "RedrivePolicy"}
            if policy:
                self._call("SetQueueAttributes", QueueUrl=name, Attributes=policy)
        oldest_ms = {name: self._oldest_ms(name) for name, _, _ in queues}
        for message in self._journal.messages():
            # moto stops at a message past its retention and never comes to those behind it.
            sent_ms = message.sent_ms if message.sent_ms > oldest_ms[message.queue] else _now_ms()
            self._take_back(replace(message, sent_ms=sent_ms))

    def _take_back(self, message: Message) -> None:
        # Order and delay are moto's business; everything else may wait.
        if message.queue.endswith(".fifo") or message.delayed_until_ms:
            self._enqueue(message)
        else:
            self._waiting[message.queue].append(message)

    def _oldest_ms(self, queue: str) -> int:
        return _now_ms() - 1000 * int(self._attributes(queue)["MessageRetentionPeriod"])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
