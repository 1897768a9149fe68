"""What searches and questions have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aws_lambda_powertools.metrics import MetricUnit

from functions.query import questions
from functions.query.telemetry import metrics
from rag import auditing, searching, telemetry, wiring
from rag.auditing import Trail
from rag.metering import Metered, Postponing
from rag.types import Caller, Scope


def asked(who: Caller, text: str, body: questions.Options) -> dict[str, str]:
    kept = wiring.settings().audit_questions
    return {"collection": body.collection, **auditing.question(text, kept, who.tenant_id)}


def question(who: Caller, text: str, body: questions.Options, top_k: int) -> searching.Question:
    return searching.Question(
        scope=Scope.of(who),
        text=text,
        collection=body.collection,
        mode=body.mode,
        filters=body.filters,
        top_k=top_k,
        stages=body.stages(wiring.settings()),
        why_not=body.why_not,
        explained=body.explained,
    )


@contextmanager
def model(who: Caller, trail: Trail, *, streamed: bool = False) -> Iterator[Metered]:
    """The model for this request; what it came to is counted whatever the request comes to."""
    ledger = Postponing(wiring.usage_store())
    model = wiring.model(who.tenant_id, who.principal, ledger)
    try:
        yield model
    finally:
        if streamed:  # the row is written when the answer begins
            ledger.settle_now()
        trail.settlement = ledger.taken()
        telemetry.count_usage(metrics, model.used)


def measure(operation: str, timings_ms: dict[str, float]) -> None:
    metrics.add_metric(f"{operation}Requests", MetricUnit.Count, 1)
    metrics.add_metric(f"{operation}Duration", MetricUnit.Milliseconds, sum(timings_ms.values()))


def count_signs(**seen: bool) -> None:
    """Of documents or questions that are made to have an effect: each is harmless here, and many are an attack."""
    for name, happened in seen.items():
        if happened:
            metrics.add_metric(name, MetricUnit.Count, 1)
