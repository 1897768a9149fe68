"""The Service stack: code and the ways to it; can be deleted and deployed again without loss."""

from __future__ import annotations

from constructs import Construct

from cdk.data import DataStack
from cdk.stack import StageStack
from cdk.stages import Stage


class ServiceStack(StageStack):
    """Layers, functions, event sources, schedules, the HTTP API and its users."""

    def __init__(self, scope: Construct, name: str, *, stage: Stage, data: DataStack) -> None:
        super().__init__(scope, name, stage=stage, description="RAG: functions, API and schedules")
        self.data = data
