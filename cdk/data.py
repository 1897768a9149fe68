"""The Data stack: what must outlive any deployment."""

from __future__ import annotations

from constructs import Construct

from cdk.stack import StageStack
from cdk.stages import Stage


class DataStack(StageStack):
    """Network, keys, database, cache, buckets, and the queue that a bucket's events go to."""

    def __init__(self, scope: Construct, name: str, *, stage: Stage) -> None:
        super().__init__(scope, name, stage=stage, description="RAG: network, database, cache and buckets")
