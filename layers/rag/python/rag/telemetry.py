"""Logs and metrics: handlers use them, the rest of the product returns what happened."""

from __future__ import annotations

import os

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from rag.types import Usage

NAMESPACE = "Rag"


def logger() -> Logger:
    """JSON lines with the request id and the stage; `RAG_LOG_LEVEL` says how much."""
    return Logger(
        service=_function(),
        level=os.environ.get("RAG_LOG_LEVEL", "INFO"),
        stage=os.environ.get("RAG_STAGE", "local"),
    )


def metrics() -> Metrics:
    """CloudWatch embedded metric format, on standard output."""
    return Metrics(namespace=NAMESPACE, service=_function())


def count_usage(metrics: Metrics, used: Usage) -> None:
    """Count what was asked of the models, and what they failed at; nothing where they were not needed."""
    counted = {
        "ModelRequests": used.requests,
        "ModelErrors": used.errors,
        "ModelThrottled": used.throttled,
        "ModelSpared": used.spared,
        "ModelTokens": used.tokens,
    }
    for name, count in counted.items():
        if count:
            metrics.add_metric(name, MetricUnit.Count, count)


def _function() -> str:
    return os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "rag")
