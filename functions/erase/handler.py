"""Erase what was asked for: by a message for each erasure, and on a schedule (`{}`) what is not done by then."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

from aws_lambda_powertools.metrics import MetricUnit

from rag import erasing, telemetry, wiring
from rag.deadline import Deadline
from rag.types import JSON

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

logger = telemetry.logger()
metrics = telemetry.metrics()

# Time that is left to report the batch, or to have another run go on.
MARGIN_SECONDS = 5.0


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: JSON, context: LambdaContext) -> JSON:
    """Return the messages that failed; for the schedule, how many erasures are still not done."""
    metrics.add_metric("ErasureRuns", MetricUnit.Count, 1)
    deadline = wiring.until_the_end(context, margin_seconds=MARGIN_SECONDS)
    if "Records" in event:
        failed = [record["messageId"] for record in event["Records"] if not ended(record["body"], deadline)]
        return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}
    found = wiring.erasure_store().unfinished()
    left = sum(not done(tenant_id, erasure_id, deadline) for tenant_id, erasure_id in found)
    metrics.add_metric("ErasuresUnfinished", MetricUnit.Count, left)
    return {"unfinished": left}


def ended(body: str, deadline: Deadline) -> bool:
    """Whether the queue may forget the message: it is worked off, or another one goes on with it."""
    try:
        message = json.loads(body)
        tenant_id, erasure_id = uuid.UUID(message["tenant_id"]), uuid.UUID(message["erasure_id"])
    except (ValueError, KeyError, TypeError, AttributeError):
        logger.exception("the message names no erasure")
        return False
    return done(tenant_id, erasure_id, deadline, body=body)


def done(tenant_id: uuid.UUID, erasure_id: uuid.UUID, deadline: Deadline, *, body: str | None = None) -> bool:
    """Whether the erasure has come to its end; with the `body` of its message, or is sent on."""
    try:
        finished = erasing.erase(
            tenant_id,
            erasure_id,
            bucket=wiring.bucket(),
            cache=wiring.answer_cache(),
            store=wiring.erasure_store(),
            deadline=deadline,
        )
        if not finished and body is not None:
            wiring.erasure_queue().send(body)
    except Exception:
        metrics.add_metric("ErasuresFailed", MetricUnit.Count, 1)
        logger.exception("not erased", tenant_id=str(tenant_id), erasure_id=str(erasure_id))
        return False
    if finished:
        metrics.add_metric("ErasuresFinished", MetricUnit.Count, 1)
    logger.info("erased", tenant_id=str(tenant_id), erasure_id=str(erasure_id), finished=finished)
    return finished or body is not None
