"""Routes that search, answer, and keep conversations."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated

from aws_lambda_powertools.metrics import MetricUnit
from fastapi import APIRouter, Query, Request

from functions.query import problems, questions
from functions.query.callers import Reader, Until, deadline_within
from functions.query.event_stream import EventStream, Work, event
from functions.query.telemetry import metrics
from rag import answering, conversing, explaining, searching, telemetry, tokens, wiring
from rag.deadline import Deadline
from rag.metering import Metered
from rag.types import Caller, Hit

router = APIRouter()

# The latest ones; what nobody reads on a page of a conversation is not sent.
MESSAGES = 200


@router.post(
    "/v1/query",
    response_model=questions.QueryResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def query(
    request: Request, body: questions.QueryRequest, who: Reader, until: Until
) -> questions.QueryResponse | EventStream:
    """Answer a question from the documents, with citations whose quotes stand in them; with `stream` as it is made."""
    if not body.stream:
        return _respond(request, body, who, until, None)
    longer = deadline_within(request, wiring.settings().stream_seconds)

    def answer(work: Work) -> None:
        response = _respond(request, body, who, longer, _Narrator(work))
        work.tell(event("answer", response.model_dump_json()))

    work = Work(answer)
    # What is refused, or finds nothing to search, is told by the status: until the first event nothing was sent.
    first = await work.next() or b""
    return EventStream(work, first, failed=partial(_failed, request))


class _Narrator:
    """Tells what the pipeline lets one hear."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def found(self, hits: Sequence[Hit]) -> None:
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
    listener: answering.Listener | None,
) -> questions.QueryResponse:
    asked = _question(who, body.question, body, body.wanted)
    with _model(who) as model:
        if body.conversation or body.conversation_id:
            turn = _converse(who, asked, body, until, listener, model)
        else:
            turn = conversing.Turn(None, None, _answer(asked, body, until, listener, model), {})
    found = turn.reply.answer
    response = questions.QueryResponse.of(body.question, found, problems.request_id(request))
    response.rewritten_question = turn.rewritten
    response.conversation_id = turn.conversation
    response.explanation = turn.reply.explain() if body.explained else None
    response.timings_ms = {**turn.timings_ms, **found.timings_ms}
    _measure("Query", response.timings_ms)
    metrics.add_metric("CacheHits" if found.cached else "CacheMisses", MetricUnit.Count, 1)
    return response


@router.post("/v1/search")
async def search(
    request: Request, body: questions.SearchRequest, who: Reader, until: Until
) -> questions.SearchResponse:
    """Return the passages that fit a query best."""
    asked = _question(who, body.query, body, body.top_k)
    with _model(who) as model:
        found = searching.search(
            asked,
            llm=model,
            store=wiring.search_store(),
            cache=wiring.answer_cache(),
            deadline=until,
            reranker=wiring.reranker(model) if asked.stages.rerank else None,
        )
    _measure("Search", found.timings_ms)
    return questions.SearchResponse(
        hits=[questions.HitBody.of(hit) for hit in found.hits],
        degraded=found.degraded,
        explanation=explaining.explain(found.trace, found.hits, reranked=found.reranked) if body.explained else None,
        timings_ms=found.timings_ms,
        request_id=problems.request_id(request),
    )


@router.get("/v1/conversations")
async def list_conversations(
    who: Reader, limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> questions.ConversationList:
    """List the conversations of this key, the one used last first."""
    found = wiring.conversation_store().conversations(who.tenant_id, who.principal, most=limit)
    return questions.ConversationList(conversations=[questions.ConversationBody.of(one) for one in found])


@router.get("/v1/conversations/{conversation_id}")
async def get_conversation(conversation_id: uuid.UUID, who: Reader) -> questions.ConversationDetail:
    """Return what was said in a conversation of this key, its latest 200 messages at most."""
    found = wiring.conversation_store().conversation(who.tenant_id, who.principal, conversation_id, most=MESSAGES)
    return questions.ConversationDetail.whole(*found)


@router.delete("/v1/conversations/{conversation_id}", status_code=204)
async def delete_conversation(conversation_id: uuid.UUID, who: Reader) -> None:
    """Delete a conversation of this key with all its messages."""
    wiring.conversation_store().delete(who.tenant_id, who.principal, conversation_id)


def _question(who: Caller, text: str, body: questions.Options, top_k: int) -> searching.Question:
    return searching.Question(
        tenant_id=who.tenant_id,
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
def _model(who: Caller) -> Iterator[Metered]:
    """The model for this request; what it came to is counted whatever the request comes to."""
    model = wiring.model(who.tenant_id)
    try:
        yield model
    finally:
        telemetry.count_usage(metrics, model.used)


def _answer(
    question: searching.Question,
    body: questions.QueryRequest,
    until: Deadline,
    listener: answering.Listener | None,
    model: Metered,
) -> answering.Reply:
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
    listener: answering.Listener | None,
    model: Metered,
) -> conversing.Turn:
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


def _measure(operation: str, timings_ms: dict[str, float]) -> None:
    metrics.add_metric(f"{operation}Requests", MetricUnit.Count, 1)
    metrics.add_metric(f"{operation}Duration", MetricUnit.Milliseconds, sum(timings_ms.values()))
