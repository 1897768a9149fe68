"""One document of a message: what it is brought to, and what is said of it."""

from __future__ import annotations

from aws_lambda_powertools.metrics import MetricUnit

from functions.ingest.telemetry import logger, metrics
from rag import ingestion, telemetry, wiring
from rag.deadline import Deadline
from rag.errors import NotFoundError
from rag.records import Named
from rag.staging import RESERVE_SECONDS
from rag.types import Delivery, Location


def work(document: Named, deadline: Deadline, delivery: Delivery) -> None:
    """Bring the index to what the bucket holds of the document, or of its metadata only, and tell what came of it."""
    location = document.location
    try:
        if document.sidecar:
            outcome = ingestion.describe(location, bucket=wiring.bucket(), store=wiring.index_store())
        else:
            outcome = ingest(location, deadline, delivery)
    except NotFoundError:
        # Nobody's document: there is no tenant to show it to, and no retry will make one.
        metrics.add_metric("DocumentsWithoutTenant", MetricUnit.Count, 1)
        logger.warning("no such tenant", tenant_id=str(location.tenant_id))
        return
    metrics.add_metric(f"Documents{outcome.result.capitalize()}", MetricUnit.Count, 1)
    if outcome.calls_for_maintenance(wiring.settings().index_chunks):
        wake_maintenance()
    logger.info(
        "ingested",
        tenant_id=str(location.tenant_id),
        document_id=str(location.document_id),
        result=outcome.result,
        chunk_count=outcome.chunk_count,
        embedded_count=outcome.embedded_count,
        error_code=outcome.error_code,
    )


def wake_maintenance() -> None:
    try:
        wiring.maintenance_queue().send("{}")
    except Exception as error:
        logger.warning("maintenance not woken", exc_info=error)


def ingest(location: Location, deadline: Deadline, delivery: Delivery) -> ingestion.Outcome:
    settings = wiring.settings()
    model = wiring.model(location.tenant_id, wiring.INGEST)
    try:
        return ingestion.ingest(
            location,
            bucket=wiring.bucket(),
            parser=wiring.parser(),
            embedder=model,
            store=wiring.index_store(),
            staging=wiring.staging_store(),
            count_tokens=wiring.count_tokens(),
            limits=ingestion.Limits(
                document_bytes=settings.max_document_bytes,
                chunk_tokens=settings.chunk_tokens,
                chunk_max_tokens=settings.chunk_max_tokens,
                batch_size=settings.batch_size,
                chunks=settings.max_document_chunks,
                held_chunks=settings.held_chunks,
                least_seconds=settings.parse_seconds
                + (0 if settings.ocr == "off" else settings.ocr_seconds)
                + RESERVE_SECONDS,
                usd_per_million_tokens=settings.embedding_usd_per_million_tokens,
            ),
            deadline=deadline,
            delivery=delivery,
        )
    finally:
        telemetry.count_usage(metrics, model.used)
