"""SQS batch of S3 events → ingest or forget documents; each message succeeds or fails alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response

from functions.ingest.records import locations
from rag import ingestion, telemetry, wiring
from rag.deadline import Deadline
from rag.errors import DocumentError, NotFoundError, RagError
from rag.types import JSON, Location

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
    from aws_lambda_powertools.utilities.typing import LambdaContext

logger = telemetry.logger()
metrics = telemetry.metrics()
processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)

# Time that is left to report the batch after the last document's deadline.
MARGIN_SECONDS = 5.0


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: JSON, context: LambdaContext) -> Any:
    metrics.add_metric("Batches", MetricUnit.Count, 1)
    announce(event)
    return process_partial_response(event, record_handler, processor, context)


def announce(event: JSON) -> None:
    """Make the documents that wait behind the first one of this batch visible as uploaded."""
    for record in event["Records"][1:]:
        try:
            for location in locations(record["body"]):
                ingestion.announce(location, bucket=wiring.bucket(), store=wiring.index_store())
        except (ValueError, RagError):
            continue  # said again, loudly, when its turn comes


def record_handler(record: SQSRecord, lambda_context: LambdaContext) -> None:
    deadline = Deadline.after(lambda_context.get_remaining_time_in_millis() / 1000 - MARGIN_SECONDS)
    try:
        for location in locations(record.body):
            ingest(location, deadline)
    except Exception as error:
        retry(record, error)
        raise


def ingest(location: Location, deadline: Deadline) -> None:
    settings = wiring.settings()
    try:
        outcome = ingestion.ingest(
            location,
            bucket=wiring.bucket(),
            parser=wiring.parser(),
            embedder=wiring.llm(),
            store=wiring.index_store(),
            count_tokens=wiring.count_tokens(),
            limits=ingestion.Limits(
                document_bytes=settings.max_document_bytes,
                chunk_tokens=settings.chunk_tokens,
                chunk_max_tokens=settings.chunk_max_tokens,
                batch_size=settings.batch_size,
            ),
            deadline=deadline,
        )
    except NotFoundError:
        # Nobody's document: there is no tenant to show it to, and no retry will make one.
        metrics.add_metric("DocumentsWithoutTenant", MetricUnit.Count, 1)
        logger.warning("no such tenant", tenant_id=str(location.tenant_id))
        return
    metrics.add_metric(f"Documents{outcome.result.capitalize()}", MetricUnit.Count, 1)
    logger.info(
        "ingested",
        tenant_id=str(location.tenant_id),
        document_id=str(location.document_id),
        result=outcome.result,
        chunk_count=outcome.chunk_count,
        embedded_count=outcome.embedded_count,
        error_code=outcome.error_code,
    )


def retry(record: SQSRecord, error: Exception) -> None:
    """Have the message come back soon; at its last delivery, write the failure on the document as well."""
    metrics.add_metric("MessagesFailed", MetricUnit.Count, 1)
    logger.error("the message failed", message_id=record.message_id, exc_info=error)
    receives = int(record.attributes.approximate_receive_count)
    if receives < wiring.settings().max_receives:
        wiring.queue().deliver_again(record.receipt_handle, seconds=pause_seconds(error, receives))
        return
    reason = DocumentError("INTERNAL", f"given up after {receives} deliveries: {error}")
    try:
        for location in locations(record.body):
            ingestion.fail(location, reason, bucket=wiring.bucket(), store=wiring.index_store())
    finally:
        # The queue moves it to the dead letters when it is asked for it once more, so that must be now.
        wiring.queue().deliver_again(record.receipt_handle, seconds=0)


def pause_seconds(error: Exception, receives: int) -> int:
    """Soon at first, then ever later: all of it together outlasts the failover of a database.

    Without a pause for what no waiting mends, which is then in the dead-letter queue at once.
    """
    if isinstance(error, ValueError):
        return 0
    first = getattr(error, "retry_after_seconds", None) or 5
    return min(int(first * 6 ** (receives - 1)), 900)
