"""What is to be erased is removed everywhere: by messages, and on a schedule what was left."""

from __future__ import annotations

from constructs import Construct

from cdk.function import Function
from cdk.given import Given, allow
from cdk.source import consume
from functions.table import ERASE

# The least that an event source takes.
CONCURRENCY = 2


class Erase(Function):
    """The only function that may delete what the bucket keeps: every version of an object, and markers of deletions."""

    def __init__(self, scope: Construct, *, given: Given) -> None:
        queue = given.data.arrivals.erasure_queue
        statements = [
            allow(["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"], queue.queue_arn),
            allow(["s3:ListBucketVersions"], given.bucket_arn),
            allow(["s3:DeleteObject", "s3:DeleteObjectVersion"], f"{given.bucket_arn}/*"),
        ]
        super().__init__(scope, row=ERASE, given=given, statements=statements)
        consume(self, queue, concurrency=CONCURRENCY)
