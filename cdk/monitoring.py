"""The Monitoring stack: who is told when something is wrong."""

from __future__ import annotations

from constructs import Construct

from cdk.data import DataStack
from cdk.service import ServiceStack
from cdk.stack import StageStack
from cdk.stages import Stage


class MonitoringStack(StageStack):
    """Alarms and the topic that they go to."""

    def __init__(self, scope: Construct, name: str, *, stage: Stage, data: DataStack, service: ServiceStack) -> None:
        super().__init__(scope, name, stage=stage, description="RAG: alarms and dashboards")
        self.watched = data, service
