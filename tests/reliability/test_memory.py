"""What takes more memory than there is fails alone, says so in the end, and can be mended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import Any

import psycopg
import pytest

from tests import fake_model
from tests.integration.deployment import BUCKET, Deployment
from tests.reliability.workers import Workers, working

MAX_RECEIVES = 5
# What a batch of notes takes, and the threads that work on them, with room to spare.
MEMORY_MIB = 96
# Less than what no model may answer (rag/llm.py).
ANSWER_MIB = 60
MEBIBYTE = bytes(1 << 20)
# What one takes the others do not get, who would have to come again. And glibc reserves 64 MiB for each thread.
ONE_AT_A_TIME = {"MALLOC_ARENA_MAX": "1", "RAG_INGEST_THREADS": "1", "RAG_MAX_RECEIVES": str(MAX_RECEIVES)}
NOTES = [f"note-{number}.md" for number in range(4)]
LARGE = "large.md"


def answer(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    """For what is said of rivers the memory does not suffice; all else is answered as always."""
    texts = body["input"]
    if not any("rivers" in text for text in texts):
        fake_model.send_json(handler, fake_model.embeddings([fake_model.unit(text, 4) for text in texts]))
        return
    handler.send_response(200)
    handler.send_header("Content-Length", str(ANSWER_MIB * len(MEBIBYTE)))
    handler.end_headers()
    with suppress(OSError):
        for _ in range(ANSWER_MIB):
            handler.wfile.write(MEBIBYTE)


@pytest.fixture
def workers(deployment: Deployment) -> Iterator[Workers]:
    url = deployment.database.dsn("rag_ingest")
    with working({**deployment.settings, "RAG_DATABASE_URL": url, **ONE_AT_A_TIME}) as begun:
        yield begun


def put(deployment: Deployment, name: str, text: str) -> str:
    key = f"{deployment.tenant}/default/{name}"
    deployment.s3.put_object(Bucket=BUCKET, Key=key, Body=text.encode())
    return key


def attempts(deployment: Deployment, key: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        query = "select outcome, error_code from ingestions where key = %s order by id"
        return connection.execute(query, [key]).fetchall()


@pytest.mark.faults_full
def test_a_document_that_takes_too_much_memory_fails_alone_and_at_its_last_delivery_says_so(
    deployment: Deployment, workers: Workers, record_fault: Any
) -> None:
    notes = [put(deployment, name, f"This is {name}, which tells of lakes.") for name in NOTES]
    large = put(deployment, LARGE, "This tells of rivers.")
    deployment.model.always = answer
    statuses = [workers.deliver(*notes[:2], large, *notes[2:], apart=True, memory_mib=MEMORY_MIB).wait()]
    states = {key: one["status"] for key, one in deployment.documents().items()}
    statuses += [
        workers.deliver(large, message=large, receives=receives, memory_mib=MEMORY_MIB).wait()
        for receives in range(2, MAX_RECEIVES + 1)
    ]
    ended = deployment.documents()[LARGE]
    deployment.model.always = None
    mended = workers.deliver(large, message=large).wait()
    wrong = [
        statuses != [1] * MAX_RECEIVES,
        states != dict.fromkeys(NOTES, "ready") | {LARGE: "processing"},
        any(attempts(deployment, name) != [("ready", None)] for name in NOTES),
        (ended["status"], (ended["error"] or {}).get("code")) != ("failed", "OUT_OF_MEMORY"),
        mended != 0 or deployment.documents()[LARGE]["status"] != "ready",
    ]
    figure = f"{MAX_RECEIVES} deliveries short of memory: {len(NOTES)} others ready at the first, then OUT_OF_MEMORY"
    record_fault("B8", injected=MAX_RECEIVES, violations=sum(wrong), figure=figure)
    assert wrong == [False] * len(wrong)
