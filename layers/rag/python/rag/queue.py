"""The queue of the bucket's events, as far as a consumer may touch it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


class Queue:
    """SQS through boto3, which is imported when the first message fails."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: SQSClient | None = None

    def deliver_again(self, receipt_handle: str, *, seconds: int) -> None:
        """Have a message that failed come back after `seconds` instead of after the queue's visibility time-out."""
        if self._client is None:
            import boto3  # noqa: PLC0415 (0.4 s that a batch without failures does not need)

            self._client = boto3.client("sqs")
        self._client.change_message_visibility(
            QueueUrl=self._url, ReceiptHandle=receipt_handle, VisibilityTimeout=seconds
        )
