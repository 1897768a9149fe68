"""What others are told of a batch: that its documents wait, and afterwards what became of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress

from aws_lambda_powertools.metrics import MetricUnit

from functions.ingest.telemetry import logger, metrics
from rag import ingestion, notifying, wiring
from rag.deadline import Deadline
from rag.records import Named, named
from rag.types import JSON

# Who does not answer by then is told within a minute.
TELL_SECONDS = 5.0


def announce(event: JSON) -> None:
    """Make the documents that wait behind the first ones of this batch visible as uploaded."""
    try:
        waiting = event["Records"][wiring.settings().ingest_threads :]
        places = [location for location, sidecar in documents_in(waiting) if not sidecar]
        ingestion.announce(places, store=wiring.index_store())
    except Exception as error:  # a courtesy: whatever is wrong is said again when its turn comes
        logger.warning("not announced", exc_info=error)


def tell(event: JSON) -> None:
    """Tell at once of what became of this batch's documents; what is not told now is told within a minute."""
    try:
        webhook = notifying.Later() if wiring.settings().webhook_url else None
        for tenant_id in tenants_of(event) if wiring.settings().event_bus else ():
            deadline = Deadline.after(TELL_SECONDS)
            told = notifying.notify(
                tenant_id, outbox=wiring.outbox(), bus=wiring.bus(), webhook=webhook, deadline=deadline
            )
            metrics.add_metric("NotificationsTold", MetricUnit.Count, told.told)
    except Exception as error:  # whatever it is, the outbox has it
        logger.warning("not told", exc_info=error)


def tenants_of(event: JSON) -> set[uuid.UUID]:
    return {document.location.tenant_id for document in documents_in(event["Records"])}


def documents_in(records: Iterable[JSON]) -> Iterator[Named]:
    for record in records:
        with suppress(ValueError):  # told when its turn comes
            yield from named(record["body"], wiring.settings().bucket)
