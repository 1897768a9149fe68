"""Documents become passages: driven by the queue of the bucket's events."""

from __future__ import annotations

from constructs import Construct

from cdk.function import Function
from cdk.given import Given
from cdk.source import consume
from functions.table import INGEST


class Ingest(Function):
    """Each message of a batch succeeds or fails alone."""

    def __init__(self, scope: Construct, *, given: Given) -> None:
        super().__init__(scope, row=INGEST, given=given)
        consume(self, given.data.arrivals.queue, concurrency=given.stage.ingest_concurrency)
