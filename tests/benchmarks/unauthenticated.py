"""The pipeline of `/v1/search` with nothing of access control: what authorised searches are measured beside.

The same pipeline, body and answer, and the same way of serving them. What is missing: authorizer, limits, budgets, the
audit log, whatever stands before a route, and row-level security, which does not bind who asks the database here.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from functions.query import questions
from functions.query.initialisation import initialise
from local.postgres import SUPERUSER
from rag import searching, wiring
from rag.deadline import Deadline
from rag.store.database import Database
from rag.store.search import SearchStore
from rag.types import Scope
from tests.benchmarks import door

# After the package, which says how its models are built.
from fastapi import FastAPI  # isort: skip
from mangum import Mangum  # isort: skip

if TYPE_CHECKING:
    from rag.types import JSON

SECONDS = 25.0

app = FastAPI()


@app.post(door.PATH)
async def search(body: questions.SearchRequest, tenant: uuid.UUID) -> questions.SearchResponse:
    question = searching.Question(
        scope=Scope(tenant),
        text=body.query,
        collection=body.collection,
        mode=body.mode,
        filters=body.filters,
        top_k=body.top_k,
        stages=body.stages(wiring.settings()),
    )
    found = searching.search(
        question, llm=wiring.llm(), store=store(), cache=wiring.answer_cache(), deadline=Deadline.after(SECONDS)
    )
    return questions.SearchResponse(
        hits=[questions.HitBody.of(hit) for hit in found.hits],
        degraded=found.degraded,
        timings_ms=found.timings_ms,
        request_id="",
    )


@cache
def store() -> SearchStore:
    address = urlsplit(wiring.settings().database_url)
    url = f"postgresql://{SUPERUSER}@{address.hostname}:{address.port}{address.path}"
    password = Path(os.environ[door.DIRECTORY]) / "postgres" / "superuser-password"
    return SearchStore(Database(url, password.read_text), wiring.embedding_space())


loop = initialise()
adapter = Mangum(app, lifespan="off", text_mime_types=["application/json"])


def handler(event: JSON, context: Any) -> Any:
    asyncio.set_event_loop(loop)
    return adapter(event, context)
