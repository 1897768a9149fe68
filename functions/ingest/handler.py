"""SQS batch of S3 events → ingest or forget documents; each message succeeds or fails alone."""

from __future__ import annotations

import gc

# Until everything is imported, which stays: looking for garbage among it again and again is a tenth of the time.
gc.disable()

from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.metrics import MetricUnit

from functions.ingest import batch, telling
from functions.ingest.telemetry import logger, metrics
from rag import wiring

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from rag.types import JSON

# Nor will a full collection look through it.
gc.freeze()
gc.enable()

# Time that is left to report the batch after the last document's deadline.
MARGIN_SECONDS = 5.0


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: JSON, context: LambdaContext) -> Any:
    metrics.add_metric("Batches", MetricUnit.Count, 1)
    deadline = wiring.until_the_end(context, margin_seconds=MARGIN_SECONDS)
    telling.announce(event)
    # Powertools' batch processor does no more, and is a fifth of the initialisation: it imports every event there is.
    failed = batch.work_off(event["Records"], deadline)
    telling.tell(event)
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}
