"""The index is kept in shape: on a schedule, and when an ingest says that a collection has grown."""

from __future__ import annotations

from constructs import Construct

from cdk.function import Function
from cdk.given import Given, allow
from cdk.source import consume
from functions.table import MAINTAIN

# The least that an event source takes; a run that finds another at work ends at once.
CONCURRENCY = 2


class Maintain(Function):
    """Works as the tables' owner, directly on the instance: a proxy would not let it set what it needs."""

    def __init__(self, scope: Construct, *, given: Given) -> None:
        queue = given.data.arrivals.maintenance_queue
        consuming = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]
        super().__init__(scope, row=MAINTAIN, given=given, statements=[allow(consuming, queue.queue_arn)])
        consume(self, queue, concurrency=CONCURRENCY)
