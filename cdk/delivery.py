"""The Delivery stack: who may deploy."""

from __future__ import annotations

from constructs import Construct

from cdk.stack import StageStack
from cdk.stages import Stage


class DeliveryStack(StageStack):
    """The role that a workflow of the repository takes by OpenID Connect."""

    def __init__(self, scope: Construct, name: str, *, stage: Stage) -> None:
        super().__init__(scope, name, stage=stage, description="RAG: the role that deploys")
