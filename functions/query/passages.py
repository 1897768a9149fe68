"""The route that searches."""

from __future__ import annotations

from fastapi import APIRouter, Request

from functions.query import asking, problems, questions
from functions.query.auditing import Audit
from functions.query.callers import Reader, deadline_within
from rag import explaining, searching, wiring

router = APIRouter()


@router.post("/v1/search")
async def search(
    request: Request, body: questions.SearchRequest, who: Reader, trail: Audit
) -> questions.SearchResponse:
    """Return the passages that fit a query best."""
    trail.told(**asking.asked(who, body.query, body))
    asked = asking.question(who, body.query, body, body.top_k)
    with asking.model(who, trail) as model:
        found = searching.search(
            asked,
            llm=model,
            store=wiring.search_store(),
            cache=wiring.answer_cache(),
            deadline=deadline_within(request, wiring.settings().request_seconds),
            reranker=wiring.reranker(model) if asked.stages.rerank else None,
        )
    trail.showed(found.hits)
    asking.measure("Search", found.timings_ms)
    asking.count_signs(ListsOfOneDocument=found.crowded and not body.filters.any)
    return questions.SearchResponse(
        hits=[questions.HitBody.of(hit) for hit in found.hits],
        degraded=found.degraded,
        explanation=explaining.explain(found.trace, found.hits, reranked=found.reranked) if body.explained else None,
        timings_ms=found.timings_ms,
        request_id=problems.request_id(request.scope),
    )
