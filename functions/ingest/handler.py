"""SQS batch of S3 events → ingest or forget documents; each message succeeds or fails alone."""

from __future__ import annotations

import gc

# Until everything is imported, which stays: looking for garbage among it again and again is a tenth of the time.
gc.disable()

import errno
import math
import time
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.metrics import MetricUnit

from functions.ingest.suspects import suspects
from rag import ingestion, notifying, telemetry, wiring
from rag.deadline import Deadline
from rag.errors import BudgetError, BusyError, FailureCode, NotFoundError, OutOfTimeError, RagError
from rag.records import Continuation, Named, by_document, continuation, ignored, named
from rag.staging import RESERVE_SECONDS
from rag.types import JSON, Delivery, Location

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

logger = telemetry.logger()
metrics = telemetry.metrics()

# Nor will a full collection look through it.
gc.freeze()
gc.enable()

# A disk that is full, a quota that is used up, a file that may not be as large.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Time that is left to report the batch after the last document's deadline.
MARGIN_SECONDS = 5.0
# The attribute of a message that was put off: when the first one of its kind was sent.
FIRST_SENT = "FirstSent"
# As long as SQS holds a message back.
MOST_DELAY_SECONDS = 900
# How long a document waits for a model that fails, before its deliveries begin to count: with these it stays below the
# visibility time-out times the deliveries that a queue gives.
MOST_BUSY_SECONDS = 4 * 3600
# A budget comes back at midnight: after two of them it is too small for the document.
MOST_BUDGET_SECONDS = 48 * 3600


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: JSON, context: LambdaContext) -> Any:
    metrics.add_metric("Batches", MetricUnit.Count, 1)
    announce(event)
    # Powertools' batch processor does no more, and is a fifth of the initialisation: it imports every event there is.
    failed = work_off_all(event["Records"], context)
    tell(event)
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}


def work_off_all(records: list[JSON], context: LambdaContext) -> list[str]:
    """Ids of the messages that failed; some are worked off at once, those of one document after one another.

    While one document waits for the model, the bucket or the database, the others use the processor.
    """

    def failed(messages: list[JSON]) -> list[str]:
        return [record["messageId"] for record in messages if not done(record, context)]

    build_edges()
    groups = by_document(records, wiring.settings().bucket)
    alone = suspected(groups)
    with ThreadPoolExecutor(wiring.settings().ingest_threads, thread_name_prefix="ingest") as threads:
        failures = list(chain.from_iterable(threads.map(failed, [group for group in groups if group not in alone])))
    for number, group in enumerate(alone):
        acknowledge(records, {*failures, *(record["messageId"] for rest in alone[number:] for record in rest)})
        failures += failed(group)
    return failures


def suspected(groups: list[list[JSON]]) -> list[list[JSON]]:
    """What may have ended a sandbox is worked off last, and alone."""
    try:
        found = suspects(groups, wiring.settings().bucket, wiring.index_store())
    except Exception as error:  # they are worked off like all others
        logger.warning("not looked for what ended a sandbox", exc_info=error)
        return []
    metrics.add_metric("MessagesSuspected", MetricUnit.Count, sum(map(len, found)))
    return found


def acknowledge(records: list[JSON], left: set[str]) -> None:
    """Have the queue forget all but what is left: if the next one ends this sandbox, they are not delivered again."""
    try:
        wiring.queue().done([record["receiptHandle"] for record in records if record["messageId"] not in left])
    except Exception as error:  # then they are, and there is nothing to do for them
        logger.warning("not acknowledged ahead", exc_info=error)


def build_edges() -> None:
    """Before threads ask for them at once, which would build some twice."""
    edges = (wiring.bucket, wiring.parser, wiring.llm, wiring.index_store, wiring.usage_store, wiring.count_tokens)
    for edge in (*edges, wiring.queue, wiring.maintenance_queue):
        with suppress(Exception):  # it is said by whichever document needs it
            edge()


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
            deadline = Deadline.after(MARGIN_SECONDS)
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
            yield from documents_of(record["body"])


def done(record: JSON, context: LambdaContext) -> bool:
    """Whether the queue may forget the message."""
    try:
        work_off(record, context)
    except Exception as error:  # what it is was told when it happened
        logger.debug("left to the queue", exc_info=error)
        return False
    return True


def work_off(record: JSON, context: LambdaContext) -> None:
    """Ingest what the message names; what fails does not keep the rest of it from being tried."""
    deadline = Deadline.after(context.get_remaining_time_in_millis() / 1000 - MARGIN_SECONDS)
    receives = int(record["attributes"]["ApproximateReceiveCount"])
    delivery = Delivery(record["messageId"], receives, last=receives >= wiring.settings().max_receives)
    failures: dict[Named | None, Exception] = {}
    try:
        count_ignored(record["body"])
        for document in documents_of(record["body"]):
            try:
                work(document, deadline, delivery)
            except OutOfTimeError as error:
                if not continued(document, error, continuation(record["body"])):
                    failures[document] = error
            except Exception as error:  # noqa: BLE001 (raised below)
                failures[document] = error
    except ValueError as error:
        failures[None] = error
    if failures and not put_off(record, failures, delivery):
        retry(record, failures, delivery)
        raise next(iter(failures.values()))


def count_ignored(body: str) -> None:
    """Say of what leads to no document that it came; it is not retried."""
    for reason, count in ignored(body, wiring.settings().bucket).items():
        telemetry.count_by("EventsIgnored", count, reason=reason)
        if reason == "own":
            metrics.add_metric("OwnObjectsRefused", MetricUnit.Count, count)
            logger.error("somebody writes where only the product does", objects=count)


def continued(document: Named, error: OutOfTimeError, before: Continuation) -> bool:
    """Have another run go on with a document, unless this one has brought it no further.

    A message of its own: a large document would use up the deliveries of one. Until it is in the queue, this one is.
    """
    later = before.after(error.version_id or "", error.progress)
    if later is None or later.number > wiring.settings().max_continuations:
        return False
    metrics.add_metric("DocumentsContinued", MetricUnit.Count, 1)
    logger.info("goes on in another run", document_id=str(document.location.document_id), so_far=str(error))
    wiring.queue().send_object(wiring.settings().bucket, document.location.object_key, Continuation=later)
    return True


def documents_of(body: str) -> list[Named]:
    return named(body, wiring.settings().bucket)


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
    model = wiring.model(location.tenant_id)
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


def put_off(record: JSON, failures: dict[Named | None, Exception], delivery: Delivery) -> bool:
    """Send the message anew, for later, when all that it waits for is the model or the tenant's next day.

    Its deliveries count from the first again: an outage that everybody sees must not use them up. A document that has
    to wait for its tenant's budget says so meanwhile.
    """
    if not all(isinstance(error, BusyError | BudgetError) for error in failures.values()):
        return False
    over_budget = {document: error for document, error in failures.items() if isinstance(error, BudgetError)}
    first_sent = first_sent_at(record)
    waited = time.time() - first_sent
    if waited > (MOST_BUDGET_SECONDS if over_budget else MOST_BUSY_SECONDS):
        return False
    for document, error in over_budget.items():
        if document is not None:
            ingestion.give_up(
                document.location,
                str(error),
                delivery,
                bucket=wiring.bucket(),
                store=wiring.index_store(),
                code="BUDGET",
            )
    asked = max(getattr(error, "retry_after_seconds", None) or 0 for error in failures.values())
    seconds = min(math.ceil(max(asked, waited)), MOST_DELAY_SECONDS)
    wiring.queue().send_later(record["body"], seconds=seconds, **{FIRST_SENT: str(first_sent)})
    metrics.add_metric("MessagesPutOff", MetricUnit.Count, 1)
    reasons = sorted({str(error) for error in failures.values()})
    logger.warning("the message is put off", message_id=record["messageId"], seconds=seconds, reasons=reasons)
    return True


def first_sent_at(record: JSON) -> float:
    """When the message, or the first one that it stands for, came into the queue: seconds since 1970."""
    told = record.get("messageAttributes", {}).get(FIRST_SENT, {}).get("stringValue")
    return float(told) if told else int(record["attributes"]["SentTimestamp"]) / 1000


def retry(record: JSON, failures: dict[Named | None, Exception], delivery: Delivery) -> None:
    """Have the message come back soon; at its last delivery, write why on the documents that failed."""
    metrics.add_metric("MessagesFailed", MetricUnit.Count, 1)
    for error in failures.values():
        logger.error("the message failed", message_id=record["messageId"], exc_info=error)
    if not delivery.last:
        pause = max(pause_seconds(error, delivery.number) for error in failures.values())
        wiring.queue().deliver_again(record["receiptHandle"], seconds=pause)
        return
    try:
        for document, error in failures.items():
            # A document is none the worse for a sidecar that could not be looked at.
            if document is not None and not document.sidecar:
                code, reason = given_up(error, record["messageId"])
                reason = f"given up after {delivery.number} deliveries: {reason}"
                ingestion.give_up(
                    document.location,
                    reason,
                    delivery,
                    bucket=wiring.bucket(),
                    store=wiring.index_store(),
                    code=code,
                )
    finally:
        # The queue moves it to the dead letters when it is asked for it once more, so that must be now.
        wiring.queue().deliver_again(record["receiptHandle"], seconds=0)


def given_up(error: Exception, message_id: str) -> tuple[FailureCode, str]:
    """Why, for whoever uploaded it: what an unforeseen error says may be of the inside, and stays in the log."""
    if isinstance(error, RagError):
        return "INTERNAL", str(error)
    if isinstance(error, MemoryError):
        return "OUT_OF_MEMORY", "it takes more memory than ingest has"
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return "DISK_FULL", "it takes more room on disk than ingest has"
    return "INTERNAL", f"see the log of message {message_id}"


def pause_seconds(error: Exception, receives: int) -> int:
    """Soon at first, then ever later: all of it together outlasts the failover of a database.

    Without a pause for what no waiting mends, which is then in the dead-letter queue at once, and for what only needs
    another run to go on.
    """
    if isinstance(error, ValueError):
        return 0
    if isinstance(error, OutOfTimeError):
        return 0
    first = getattr(error, "retry_after_seconds", None) or 5
    return min(int(first * 6 ** (receives - 1)), 900)
