"""Queues: the one of the bucket's events as far as its consumer may touch it, and the one that wakes maintenance."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote_plus

from rag import sdk
from rag.errors import UnavailableError
from rag.types import Letter

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageAttributeValueTypeDef, MessageTypeDef

# A run that is killed while it looks hides what it saw for no longer.
LOOKING_SECONDS = 60
# As SQS takes and gives them.
AT_ONCE = 10


class Queue:
    """SQS through boto3, which is imported when it is first needed."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: SQSClient | None = None

    def deliver_again(self, receipt_handle: str, *, seconds: int) -> None:
        """Have a message that failed come back after `seconds` instead of after the queue's visibility time-out."""
        self._sqs().change_message_visibility(
            QueueUrl=self._url, ReceiptHandle=receipt_handle, VisibilityTimeout=seconds
        )

    def done(self, receipt_handles: Sequence[str]) -> None:
        """Take messages out of the queue; those that are out of it already do no harm."""
        for start in range(0, len(receipt_handles), AT_ONCE):
            some = receipt_handles[start : start + AT_ONCE]
            self._sqs().delete_message_batch(
                QueueUrl=self._url,
                Entries=[{"Id": str(number), "ReceiptHandle": handle} for number, handle in enumerate(some)],
            )

    def look(self) -> Iterator[Letter]:
        """Read what lies in the queue, and leave it there: whoever looks at the same time sees the rest of it."""
        handles: list[str] = []
        try:
            while messages := self._receive():
                handles += [message["ReceiptHandle"] for message in messages]
                yield from (Letter(message["MessageId"], message["Body"]) for message in messages)
        finally:
            for handle in handles:
                self.deliver_again(handle, seconds=0)

    def _receive(self) -> list[MessageTypeDef]:
        return (
            self._sqs()
            .receive_message(QueueUrl=self._url, MaxNumberOfMessages=AT_ONCE, VisibilityTimeout=LOOKING_SECONDS)
            .get("Messages", [])
        )

    def send(self, body: str) -> None:
        """Put a message into the queue; UnavailableError when it does not take it."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        try:
            self._sqs().send_message(QueueUrl=self._url, MessageBody=body)
        except (ClientError, BotoCoreError) as error:
            msg = f"the queue is not available: {type(error).__name__}"
            raise UnavailableError(msg, retry_after_seconds=1) from error

    def send_later(self, body: str, *, seconds: int, **attributes: str) -> None:
        """Put a message into the queue that nobody gets before `seconds` (900 at most) are over."""
        values: dict[str, MessageAttributeValueTypeDef] = {
            name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
        }
        self._sqs().send_message(QueueUrl=self._url, MessageBody=body, DelaySeconds=seconds, MessageAttributes=values)

    def send_object(self, bucket: str, object_key: str, **said: object) -> None:
        """Name an object as S3 would, with what else is `said`; UnavailableError when the queue does not take it."""
        named = {"bucket": {"name": bucket}, "object": {"key": quote_plus(object_key, safe="/")}}
        self.send(json.dumps({"Records": [{"eventSource": "rag:retry", "s3": named}], **said}))

    def _sqs(self) -> SQSClient:
        if self._client is None:
            self._client = sdk.client("sqs")
        return self._client
