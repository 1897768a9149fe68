"""Composition only: which stacks a stage has, and what each is given of the others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aws_cdk
from constructs import Construct

from cdk.data import DataStack
from cdk.delivery import DeliveryStack
from cdk.monitoring import MonitoringStack
from cdk.service import ServiceStack
from cdk.stages import STAGES, Stage

ROOT = Path(__file__).parents[1]


class Platform(aws_cdk.Stage):
    """Everything of one environment, in four stacks by lifetime."""

    def __init__(self, scope: Construct, stage: Stage) -> None:
        super().__init__(scope, stage.name)
        data = DataStack(self, "data", stage=stage)
        service = ServiceStack(self, "service", stage=stage, data=data)
        MonitoringStack(self, "monitoring", stage=stage, data=data, service=service)
        DeliveryStack(self, "delivery", stage=stage)


def app(stages: Sequence[Stage] = STAGES, **options: Any) -> aws_cdk.App:
    """Return the whole application, not yet synthesised; other stages and aws_cdk.App's `options` are for tests.

    Feature flags are read here because only the CDK's own command line reads them from cdk.json by itself.
    """
    flags = json.loads((ROOT / "cdk.json").read_text())["context"]
    context = flags | options.pop("context", {})
    platforms = aws_cdk.App(analytics_reporting=False, context=context, **options)
    for stage in stages:
        Platform(platforms, stage)
    return platforms
