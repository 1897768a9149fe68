"""Batches come again, messages come twice and in any order (group A): nothing is paid for twice, or ends otherwise."""

from __future__ import annotations

import itertools
import queue
import random
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from rag.settings import Settings
from tests.integration.deployment import BUCKET, Deployment, before_reply
from tests.reliability.workers import KILLED, Delivery, Workers, working

BATCHES, BATCH = 10, 10


@pytest.fixture
def workers(deployment: Deployment) -> Iterator[Workers]:
    with working({**deployment.settings, "RAG_DATABASE_URL": deployment.database.dsn("rag_ingest")}) as begun:
        yield begun


def put(deployment: Deployment, name: str, text: str) -> str:
    key = f"{deployment.tenant}/default/{name}"
    deployment.s3.put_object(Bucket=BUCKET, Key=key, Body=text.encode())
    return key


def rows(deployment: Deployment, query: str) -> list[tuple[Any, ...]]:
    """What a superuser sees, behind row-level security."""
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        return connection.execute(query.encode()).fetchall()


@pytest.mark.faults_full
def test_batches_that_come_again_one_of_them_cut_off_cost_at_most_a_twentieth_more_calls(
    deployment: Deployment, workers: Workers, seed: int, record_fault: Any
) -> None:
    """A batch whose answer was lost comes as a whole, though its documents are done; so does one that was killed."""
    chance = random.Random(seed)
    batches = [
        [put(deployment, f"{batch}-{n}.md", f"Note {n} of batch {batch} tells of rivers.") for n in range(BATCH)]
        for batch in range(BATCHES)
    ]
    cut, last_call = chance.randrange(BATCHES), chance.randint(BATCH // 2, BATCH - 1)
    victim: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
    calls = itertools.count(1)

    def kill_in_the_middle() -> None:
        if next(calls) == last_call:
            victim.get(timeout=60).kill()

    statuses = []
    for number, keys in enumerate(batches):
        deployment.model.always = before_reply(kill_in_the_middle) if number == cut else None
        delivery = workers.deliver(*keys, apart=True)
        if number == cut:
            victim.put(delivery)
        statuses.append(delivery.wait())
    deployment.model.always = None
    again = [workers.deliver(*keys, apart=True, receives=2).wait() for keys in batches]
    documents, asked = BATCHES * BATCH, len(deployment.model.requests)
    whole = "select count(*) from documents d where status = 'ready' and chunk_count = 1 and chunk_count = "
    [(ready,)] = rows(deployment, f"{whole} (select count(*) from chunks c where c.document_id = d.id)")
    record_fault(
        "A10",
        injected=documents + 1,
        violations=max(0, asked - int(1.05 * documents)) + documents - ready,
        figure=f"{asked / documents:.2f} model calls per document (≤ 1.05): {documents} in {BATCHES} batches, each "
        f"delivered twice, one killed at call {last_call} of {BATCH}",
    )
    assert statuses == [KILLED if number == cut else 0 for number in range(BATCHES)]
    assert (again, ready) == ([0] * BATCHES, documents)
    # The call that nobody heard the answer of, and those that were under way beside it.
    assert 0 < asked - documents <= Settings().ingest_threads <= 0.05 * documents
