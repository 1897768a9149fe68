"""What comes of a message that failed: put off, delivered again, or given up with the reason on its documents."""

from __future__ import annotations

import errno
import math
import time

from aws_lambda_powertools.metrics import MetricUnit

from functions.ingest.telemetry import logger, metrics
from rag import ingestion, wiring
from rag.errors import BudgetError, BusyError, FailureCode, OutOfTimeError, RagError
from rag.records import Named
from rag.types import JSON, Delivery

# A disk that is full, a quota that is used up, a file that may not be as large.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# The attribute of a message that was put off: when the first one of its kind was sent.
FIRST_SENT = "FirstSent"
# As long as SQS holds a message back.
MOST_DELAY_SECONDS = 900
# How long a document waits for a model that fails, before its deliveries begin to count: with these it stays below the
# visibility time-out times the deliveries that a queue gives.
MOST_BUSY_SECONDS = 4 * 3600
# A budget comes back at midnight: after two of them it is too small for the document.
MOST_BUDGET_SECONDS = 48 * 3600


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
