"""Keep the index in shape: on a schedule (`{}`), and by a message when an ingest has made a collection larger."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from aws_lambda_powertools.metrics import MetricUnit

from rag import telemetry, wiring
from rag.deadline import Deadline
from rag.types import JSON

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from rag.store.maintenance import Change
    from rag.store.recall import Recall

logger = telemetry.logger()
metrics = telemetry.metrics()


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: JSON, context: LambdaContext) -> JSON:  # noqa: ARG001 (whatever woke it, there is one thing to do)
    """Return the indexes that were made and dropped, and how much of what else it looks after was changed.

    None when another run is at work, or nothing is to be done. Each job gets its turn whatever becomes of the others.
    """
    metrics.add_metric("MaintenanceRuns", MetricUnit.Count, 1)
    deadline = wiring.until_the_end(context, margin_seconds=0)
    changes: list[Change] = []
    recalls: list[Recall] = []
    dropped: list[int] = []
    added_up: list[int] = []
    with ExitStack() as jobs:
        # From the last to the first.
        jobs.callback(lambda: recalls.extend(wiring.recall_maintenance().run(deadline)))
        jobs.callback(lambda: dropped.append(wiring.audit_retention().run(deadline)))
        jobs.callback(lambda: changes.extend(wiring.index_maintenance().run(deadline)))
        jobs.callback(lambda: wiring.conversation_store().drop_expired())
        jobs.callback(lambda: wiring.idempotency_store().drop_expired())
        jobs.callback(lambda: added_up.append(wiring.statistics_maintenance().run(deadline)))
        # Half of the time: an index is only begun with enough of it left.
        weighed = wiring.weight_maintenance().run(Deadline.after(deadline.remaining() / 2))
    for change in changes:
        tell = logger.warning if change.notice else logger.info
        tell("index changed", index=change.name, action=change.action, notice=change.notice)
    _tell(recalls)
    metrics.add_metric("IndexesChanged", MetricUnit.Count, len(changes))
    metrics.add_metric("ChunksWeighedAnew", MetricUnit.Count, weighed)
    metrics.add_metric("StatisticsAddedUp", MetricUnit.Count, sum(added_up))
    metrics.add_metric("AuditRowsDropped", MetricUnit.Count, sum(dropped))
    return {
        "changes": [change._asdict() for change in changes],
        "recalls": [recall._asdict() for recall in recalls],
        "chunks_weighed": weighed,
        "statistics_added_up": sum(added_up),
        "audit_rows_dropped": sum(dropped),
    }


def _tell(recalls: list[Recall]) -> None:
    """How much the worst index found, of those that were asked."""
    for recall in recalls:
        if recall.rebuilt:
            logger.warning(
                "index found less than when it was new, and was rebuilt",
                index=recall.name,
                found=recall.found,
                when_new=recall.when_new,
                after=recall.after,
            )
    if recalls:
        metrics.add_metric("IndexRecall", MetricUnit.Percent, 100 * min(recall.found for recall in recalls))
