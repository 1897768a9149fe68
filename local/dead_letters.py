"""Dead letters back to the queue that they come from: each is sent before it is deleted, so that none is ever lost.

One by one, and not by SQS's own StartMessageMoveTask, which takes all or nothing and says of none what it was.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rag import records
from rag.types import Location

# So long nobody else sees what is looked at here; a run that is killed leaves it hidden for no longer.
_HIDDEN_SECONDS = 120
_AT_ONCE = 10


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """`documents` are empty where the message names none; `receipt` is what deletes it."""

    message_id: str
    body: str
    attributes: dict[str, Any]
    documents: tuple[Location, ...]
    sent_at: datetime
    receipt: str

    @classmethod
    def of(cls, message: dict[str, Any]) -> DeadLetter:
        """What `ReceiveMessage` gave."""
        sent = int(message["Attributes"]["SentTimestamp"]) / 1000
        return cls(
            message["MessageId"],
            message["Body"],
            message.get("MessageAttributes", {}),
            tuple(_documents(message["Body"])),
            datetime.fromtimestamp(sent, UTC),
            message["ReceiptHandle"],
        )


@dataclass(frozen=True, slots=True)
class Queues:
    """Both queues by their URLs; `sqs` is a boto3 client."""

    sqs: Any
    queue_url: str
    dead_letter_url: str


Wanted = Callable[[DeadLetter], bool]


def redrive(queues: Queues, wanted: Wanted, *, dry_run: bool = False) -> Iterator[tuple[DeadLetter, bool]]:
    """Move each dead letter that is wanted; yield all that were seen, and whether it was moved (or, dry, would be).

    Those that are not moved are visible again at the end.
    """
    left: list[DeadLetter] = []
    try:
        for letters in _look(queues):
            left += letters
            for letter in letters:
                moves = wanted(letter)
                if moves and not dry_run:
                    _move(queues, letter)
                    left.remove(letter)
                yield letter, moves
    finally:
        for letter in left:
            queues.sqs.change_message_visibility(
                QueueUrl=queues.dead_letter_url, ReceiptHandle=letter.receipt, VisibilityTimeout=0
            )


def _look(queues: Queues) -> Iterator[list[DeadLetter]]:
    # How many there were: what is moved and dies again meanwhile is of the next run.
    names = ["ApproximateNumberOfMessages"]
    counted = queues.sqs.get_queue_attributes(QueueUrl=queues.dead_letter_url, AttributeNames=names)["Attributes"]
    seen: set[str] = set()
    while len(seen) < max(int(counted[names[0]]), 1):
        received = queues.sqs.receive_message(
            QueueUrl=queues.dead_letter_url,
            MaxNumberOfMessages=_AT_ONCE,
            WaitTimeSeconds=1,
            VisibilityTimeout=_HIDDEN_SECONDS,
            AttributeNames=["All"],
            MessageAttributeNames=["All"],
        ).get("Messages", [])
        if not received:
            return
        seen.update(message["MessageId"] for message in received)
        yield [DeadLetter.of(message) for message in received]


def _move(queues: Queues, letter: DeadLetter) -> None:
    given = ("DataType", "StringValue", "BinaryValue")
    attributes = {
        name: {part: value[part] for part in given if part in value} for name, value in letter.attributes.items()
    }
    queues.sqs.send_message(QueueUrl=queues.queue_url, MessageBody=letter.body, MessageAttributes=attributes)
    queues.sqs.delete_message(QueueUrl=queues.dead_letter_url, ReceiptHandle=letter.receipt)


def _documents(body: str) -> Iterator[Location]:
    try:
        [bucket] = {str(record["s3"]["bucket"]["name"]) for record in json.loads(body)["Records"]}
        for found in records.named(body, bucket):
            yield found.location
    except (ValueError, KeyError, TypeError, RecursionError):
        return


def of(*, collection: str | None = None, document: uuid.UUID | None = None) -> Wanted:
    """Letters of this collection's documents, or of this document; without either, all of them."""

    def wanted(letter: DeadLetter) -> bool:
        if collection is None and document is None:
            return True
        return any(
            collection in (None, place.collection) and document in (None, place.document_id)
            for place in letter.documents
        )

    return wanted
