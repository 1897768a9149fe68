"""The route that answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from aws_lambda_powertools.metrics import MetricUnit
from fastapi import APIRouter, Request

from functions.query import asking, problems, questions
from functions.query.auditing import Audit
from functions.query.callers import Reader, deadline_within
from functions.query.event_stream import EventStream, Work, event
from functions.query.telemetry import metrics
from rag import searching, tokens, wiring
from rag.auditing import Trail
from rag.deadline import Deadline
from rag.metering import Metered
from rag.types import Caller, Hit

if TYPE_CHECKING:
    from rag import answering
    from rag.answering import Listener
    from rag.conversing import Turn

router = APIRouter()


@router.post(
    "/v1/query",
    response_model=questions.QueryResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def query(
    request: Request, body: questions.QueryRequest, who: Reader, trail: Audit
) -> questions.QueryResponse | EventStream:
    """Answer a question from the documents, with citations whose quotes stand in them; with `stream` as it is made."""
    trail.told(**asking.asked(who, body.question, body))
    seconds = wiring.settings().stream_seconds if body.stream else wiring.settings().request_seconds
    until = deadline_within(request, seconds)
    if not body.stream:
        return _respond(request, body, who, until, None, trail)

    def answer(work: Work) -> None:
        response = _respond(request, body, who, until, _Narrator(trail, work), trail)
        work.tell(event("answer", response.model_dump_json()))

    work = Work(answer)
    # What is refused, or finds nothing to search, is told by the status: until the first event nothing was sent.
    first = await work.next() or b""
    return EventStream(work, first, failed=partial(_failed, request))


class _Narrator:
    """Tells what the pipeline lets one hear; passages are on the trail before the first of them is sent."""

    def __init__(self, trail: Trail, work: Work) -> None:
        self._trail = trail
        self._work = work

    def found(self, hits: Sequence[Hit]) -> None:
        self._trail.showed(hits)
        self._work.tell(
            event("hits", questions.Found(hits=[questions.HitBody.of(hit) for hit in hits]).model_dump_json())
        )

    def said(self, piece: str) -> None:
        self._work.tell(event("delta", json.dumps({"text": piece})) if piece else b"")


async def _failed(request: Request, error: Exception) -> bytes:
    return event("error", await problems.as_json(request, error))


def _respond(
    request: Request,
    body: questions.QueryRequest,
    who: Caller,
    until: Deadline,
    listener: Listener | None,
    trail: Trail,
) -> questions.QueryResponse:
    from rag.conversing import Turn  # noqa: PLC0415 (what answers, the function that only searches never needs)

    asked = asking.question(who, body.question, body, body.wanted(wiring.settings()))
    with asking.model(who, trail, streamed=listener is not None) as model:
        if body.conversation or body.conversation_id:
            turn = _converse(who, asked, body, until, listener, model)
        else:
            turn = Turn(None, None, _answer(asked, body, until, listener, model), {})
    found = turn.reply.answer
    trail.showed(found.hits)
    if turn.conversation is not None:
        trail.told(conversation_id=str(turn.conversation))
    response = questions.QueryResponse.of(body.question, found, problems.request_id(request.scope))
    response.rewritten_question = turn.rewritten
    response.conversation_id = turn.conversation
    response.explanation = turn.reply.explain() if body.explained else None
    response.timings_ms = {**turn.timings_ms, **found.timings_ms}
    asking.measure("Query", response.timings_ms)
    metrics.add_metric("CacheHits" if found.cached else "CacheMisses", MetricUnit.Count, 1)
    asking.count_signs(
        AnswersWithheld=turn.reply.withheld,
        AnswersNeutralised=turn.reply.neutralised,
        ListsOfOneDocument=turn.reply.found.crowded and not body.filters.any,
    )
    return response


def _answer(
    question: searching.Question,
    body: questions.QueryRequest,
    until: Deadline,
    listener: Listener | None,
    model: Metered,
) -> answering.Reply:
    from rag import answering  # noqa: PLC0415

    settings = wiring.settings()
    return answering.answer(
        question,
        llm=model,
        store=wiring.search_store(),
        cache=wiring.answer_cache(),
        count_tokens=tokens.tokenizer(None),
        limits=answering.Limits(settings.rerank_top_k, settings.context_tokens, settings.min_score),
        deadline=until,
        reranker=wiring.reranker(model) if question.stages.rerank else None,
        style=body.style,
        listener=listener,
    )


def _converse(
    who: Caller,
    question: searching.Question,
    body: questions.QueryRequest,
    until: Deadline,
    listener: Listener | None,
    model: Metered,
) -> Turn:
    from rag import conversing  # noqa: PLC0415

    return conversing.converse(
        question,
        principal=who.principal,
        conversation=body.conversation_id,
        answer=partial(_answer, body=body, until=until, listener=listener, model=model),
        llm=model,
        store=wiring.conversation_store(),
        cache=wiring.answer_cache(),
        count_tokens=tokens.tokenizer(None),
        deadline=until,
    )
