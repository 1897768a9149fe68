"""Logs and metrics: handlers use them, the rest of the product returns what happened."""

from __future__ import annotations

import os
import threading
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit, single_metric

from rag.types import Usage

NAMESPACE = "Rag"


def logger() -> Logger:
    """JSON lines with the request id and the stage; `RAG_LOG_LEVEL` says how much."""
    return Logger(
        service=_function(),
        level=os.environ.get("RAG_LOG_LEVEL", "INFO"),
        stage=os.environ.get("RAG_STAGE", "local"),
    )


class SharedMetrics(Metrics):
    """As Powertools', whose counters threads may not share without a lock."""

    _counting = threading.Lock()

    def add_metric(self, *args: Any, **given: Any) -> None:
        with self._counting:
            super().add_metric(*args, **given)


def metrics() -> Metrics:
    """CloudWatch embedded metric format, on standard output."""
    return SharedMetrics(namespace=NAMESPACE, service=_function())


def count_usage(metrics: Metrics, used: Usage) -> None:
    """Count what was asked of the models, and what they failed at; nothing where they were not needed."""
    counted = {
        "ModelRequests": used.requests,
        "ModelErrors": used.errors,
        "ModelThrottled": used.throttled,
        "ModelSpared": used.spared,
        "BudgetRefusals": used.refused,
        "ModelTokens": used.tokens,
    }
    for name, count in counted.items():
        if count:
            metrics.add_metric(name, MetricUnit.Count, count)


def count_by(name: str, count: int, **dimensions: str) -> None:
    """Count something by what else is known of it, besides the function."""
    with single_metric(
        name=name, unit=MetricUnit.Count, value=count, namespace=NAMESPACE, default_dimensions=dimensions
    ) as metric:
        metric.add_dimension("service", _function())


def _function() -> str:
    return os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "rag")
