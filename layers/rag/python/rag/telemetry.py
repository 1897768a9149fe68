"""Logs and metrics: handlers use them, the rest of the product returns what happened."""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Iterator
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.logging.formatter import LambdaPowertoolsFormatter
from aws_lambda_powertools.metrics import MetricUnit, single_metric

from rag.errors import RagError
from rag.types import Usage

NAMESPACE = "Rag"


class _Formatter(LambdaPowertoolsFormatter):
    def formatException(self, ei: Any) -> str:  # noqa: N802 (the standard library's name)
        return described(ei[1])


def described(error: BaseException) -> str:
    """Return which error it is, and where in the code it and what caused it were raised, the first cause last.

    Neither a line of code nor what a library says of it: that may be a statement with what a tenant stored in it, or
    the address of a server. What an error of ours says is written by us.
    """
    return "; because of ".join(map(_described, _chain(error)))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The causes, each once: an error that was raised again while its effect was handled is its own."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _described(error: BaseException) -> str:
    kind = type(error)
    said = f" ({error})" if isinstance(error, RagError) else ""
    frames = traceback.walk_tb(error.__traceback__)
    places = [f"{frame.f_globals.get('__name__')}:{line} {frame.f_code.co_name}" for frame, line in frames]
    return f"{kind.__module__}.{kind.__qualname__}{said} in {' > '.join(places)}"


def logger() -> Logger:
    """JSON lines with the request id and the stage; `RAG_LOG_LEVEL` says how much."""
    return Logger(
        logger_formatter=_Formatter(serialize_stacktrace=False),
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
