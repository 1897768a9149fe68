"""A queue as the event source of a function."""

from __future__ import annotations

from aws_cdk import aws_lambda_event_sources as event_sources
from aws_cdk import aws_sqs as sqs

from cdk.acknowledging import SERVERLESS, accept
from cdk.function import Function
from functions.table import INGEST_BATCH_SIZE


def consume(function: Function, queue: sqs.IQueue, *, concurrency: int) -> None:
    """Have the live version work the queue off; `concurrency` is at least 2.

    The limit stands at the source: reserved concurrency alone would have good messages refused until they are dead.
    """
    accept(
        function.alias,
        "What a queue's message comes to is the business of its redrive policy; a destination is for streams.",
        f"{SERVERLESS}LambdaEventSourceMappingDestination",
    )
    function.alias.add_event_source(
        event_sources.SqsEventSource(
            queue, batch_size=INGEST_BATCH_SIZE, report_batch_item_failures=True, max_concurrency=concurrency
        )
    )
