"""Compare bucket and index, end what waits in vain, and prove the chain: on a schedule (`{}`), or `{"now": true}`."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aws_lambda_powertools.metrics import MetricUnit

from rag import probing, reconciling, telemetry, wiring
from rag.deadline import Deadline
from rag.types import DIRECTIONS, JSON

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

logger = telemetry.logger()
metrics = telemetry.metrics()


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: JSON, context: LambdaContext) -> JSON:
    """Return what was compared and found, swept and probed; `compared` is null when it is not this run's turn.

    `now`: compare although the last pass has only just ended. Each job gets its turn whatever becomes of the others.
    """
    metrics.add_metric("ReconcileRuns", MetricUnit.Count, 1)
    deadline = wiring.until_the_end(context, margin_seconds=0)
    told: JSON = {"compared": None}
    with ExitStack() as jobs:
        jobs.callback(lambda: told.update(compared=compare(deadline, now=bool(event.get("now")))))
        jobs.callback(lambda: told.update(canary=probe()))
        told["swept"] = sweep()
    return told


def compare(deadline: Deadline, *, now: bool) -> JSON | None:
    settings = wiring.settings()
    done = reconciling.reconcile(
        bucket=wiring.bucket(),
        store=wiring.reconciliation_store(),
        queue=wiring.retry_queue(),
        bounds=reconciling.Bounds(
            keys=settings.reconcile_keys,
            settled_seconds=settings.reconcile_settled_seconds,
            rest_seconds=0 if now else settings.reconcile_rest_seconds,
        ),
        deadline=deadline,
        but=probing.TENANT,
    )
    if done is None:
        return None
    found = {direction: getattr(done.found, direction) for direction in DIRECTIONS}
    metrics.add_metric("ObjectsCompared", MetricUnit.Count, done.found.compared)
    metrics.add_metric("ReconcileDrift", MetricUnit.Count, sum(found.values()))
    for direction, count in found.items():
        telemetry.count_by("ReconcileDrift", count, direction=direction)
    if done.complete:
        metrics.add_metric("ReconcilePassSeconds", MetricUnit.Seconds, done.seconds)
    if sum(found.values()):
        logger.warning("the index was not as the bucket is", **found)
    whole = {direction: getattr(done.whole, direction) for direction in DIRECTIONS}
    return {
        "keys": done.found.compared,
        **found,
        "complete": done.complete,
        "pass": {"keys": done.whole.compared, **whole, "seconds": round(done.seconds, 3)},
    }


def sweep() -> JSON:
    settings = wiring.settings()
    swept = reconciling.sweep(
        bucket_name=settings.bucket,
        store=wiring.reconciliation_store(),
        queue=wiring.retry_queue(),
        visibility_seconds=settings.visibility_seconds,
        max_receives=settings.max_receives,
        but=probing.TENANT,
    )
    metrics.add_metric("DocumentsRequeued", MetricUnit.Count, swept.requeued)
    metrics.add_metric("DocumentsStuck", MetricUnit.Count, swept.stuck)
    return {"requeued": swept.requeued, "stuck": swept.stuck}


def probe() -> JSON | None:
    patience = wiring.settings().canary_seconds
    if not patience:
        return None
    found = probing.probe(
        bucket=wiring.bucket(), store=wiring.reconciliation_store(), patience_seconds=patience, at=datetime.now(UTC)
    )
    metrics.add_metric("CanaryFailed", MetricUnit.Count, found.result == "failed")
    if found.seconds is not None:
        metrics.add_metric("CanarySeconds", MetricUnit.Seconds, found.seconds)
    if found.reason:
        logger.error("the canary failed", reason=found.reason)
    return {"result": found.result, "seconds": found.seconds, "reason": found.reason}
