"""The messages of one batch: documents at once, those of one document in turn, suspects last and alone."""

from __future__ import annotations

from contextlib import suppress
from itertools import chain

from aws_lambda_powertools.metrics import MetricUnit

from functions.ingest.redelivery import put_off, retry
from functions.ingest.suspects import suspects
from functions.ingest.telemetry import logger, metrics
from functions.ingest.work import work
from rag import telemetry, wiring
from rag.deadline import Deadline
from rag.errors import OutOfTimeError
from rag.records import Continuation, Named, by_document, continuation, ignored, named
from rag.types import JSON, Delivery


def work_off(records: list[JSON], deadline: Deadline) -> list[str]:
    """Ids of the messages that failed; some are worked off at once, those of one document after one another.

    While one document waits for the model, the bucket or the database, the others use the processor.
    """

    def failed(messages: list[JSON]) -> list[str]:
        return [record["messageId"] for record in messages if not done(record, deadline)]

    build_edges()
    groups = by_document(records, wiring.settings().bucket)
    alone = suspected(groups)
    together = [group for group in groups if group not in alone]
    failures = list(chain.from_iterable(wiring.document_threads().map(failed, together)))
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


def done(record: JSON, deadline: Deadline) -> bool:
    """Whether the queue may forget the message."""
    try:
        deliver(record, deadline)
    except Exception as error:  # what it is was told when it happened
        logger.debug("left to the queue", exc_info=error)
        return False
    return True


def deliver(record: JSON, deadline: Deadline) -> None:
    """Ingest what the message names; what fails does not keep the rest of it from being tried."""
    receives = int(record["attributes"]["ApproximateReceiveCount"])
    delivery = Delivery(record["messageId"], receives, last=receives >= wiring.settings().max_receives)
    failures: dict[Named | None, Exception] = {}
    try:
        count_ignored(record["body"])
        for document in named(record["body"], wiring.settings().bucket):
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
