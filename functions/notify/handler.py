"""Tell what became of documents, on a schedule (`{}`): of those among the dead letters, and what was not told yet."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aws_lambda_powertools.metrics import MetricUnit

from rag import burying, notifying, telemetry, wiring
from rag.deadline import Deadline
from rag.types import JSON

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

logger = telemetry.logger()
metrics = telemetry.metrics()

# Time to say what was done.
MARGIN_SECONDS = 2.0


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: JSON, context: LambdaContext) -> JSON:  # noqa: ARG001 (whatever woke it, there is one thing to do)
    """Return how many documents failed by a dead letter, and how many notifications were told, left and given up."""
    deadline = wiring.until_the_end(context, margin_seconds=MARGIN_SECONDS)
    buried = bury(Deadline.after(deadline.remaining() / 2))
    told = notifying.tell_all(outbox=wiring.outbox(), bus=wiring.bus(), webhook=wiring.webhook(), deadline=deadline)
    for problem in told.problems:
        logger.warning("not told", reason=problem)
    metrics.add_metric("DocumentsBuried", MetricUnit.Count, buried)
    metrics.add_metric("NotificationsTold", MetricUnit.Count, told.told)
    metrics.add_metric("NotificationsGivenUp", MetricUnit.Count, told.given_up)
    metrics.add_metric("OldestNotificationSeconds", MetricUnit.Seconds, oldest_seconds())
    return {"buried": buried, "told": told.told, "left": told.left, "given_up": told.given_up}


def bury(deadline: Deadline) -> int:
    buried = []
    try:
        buried = burying.bury(
            wiring.dead_letters().look(),
            bucket_name=wiring.settings().bucket,
            bucket=wiring.bucket(),
            store=wiring.index_store(),
            deadline=deadline,
        )
    except Exception as error:  # the next run looks again
        logger.warning("dead letters not looked at", exc_info=error)
    for location in buried:
        logger.info("buried", tenant_id=str(location.tenant_id), document_id=str(location.document_id))
    return len(buried)


def oldest_seconds() -> float:
    """How long the oldest notification waits that should have been told by now."""
    waits = [(datetime.now(UTC) - one.oldest).total_seconds() for one in wiring.outbox().waiting()]
    return max([0.0, *waits])
