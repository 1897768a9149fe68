"""Batches come again, messages come twice and in any order (group A): nothing is paid for twice, or ends otherwise."""

from __future__ import annotations

import itertools
import queue
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from rag.settings import Settings
from tests.integration.deployment import BUCKET, Deployment, before_reply, notification
from tests.reliability.workers import KILLED, Delivery, Workers, working

DONE: dict[str, Any] = {"batchItemFailures": []}
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


@pytest.mark.faults_full
def test_a_message_that_comes_up_to_five_times_is_one_document_and_one_call(
    deployment: Deployment, workers: Workers, record_fault: Any
) -> None:
    """One after another, in one batch, and at once: then the others come while the first waits for the model."""
    copies = range(1, 6)
    said = {way: [f"{way} {n}" for n in copies] for way in ("one after another", "in one batch", "at once")}
    keys = {name: put(deployment, name, f"Note {name} tells of rivers.") for names in said.values() for name in names}
    for times, name in zip(copies, said["one after another"], strict=True):
        assert [deployment.ingest(notification(keys[name])) for _ in range(times)] == [DONE] * times
    for times, name in zip(copies, said["in one batch"], strict=True):
        assert deployment.ingest(*[notification(keys[name])] * times) == DONE
    together = 0
    for times, name in zip(copies, said["at once"], strict=True):
        begun: list[Delivery] = []
        all_begun = threading.Event()

        def others_end(begun: list[Delivery] = begun, all_begun: threading.Event = all_begun) -> None:
            nonlocal together
            assert all_begun.wait(60)
            until = time.monotonic() + 30
            while (ended := sum(delivery.ended for delivery in begun)) < len(begun) - 1 and time.monotonic() < until:
                time.sleep(0.01)
            together += ended

        deployment.model.always = before_reply(others_end)
        begun += [workers.deliver(keys[name], message=f"{name}, {n}", alone=True) for n in range(times)]
        all_begun.set()
        assert [delivery.wait() for delivery in begun] == [0] * times
    duplicates, documents = 3 * (sum(copies) - len(copies)), 3 * len(copies)
    chunks = rows(deployment, "select content from chunks")
    calls = len(deployment.model.requests)
    extra = len(chunks) - documents, calls - documents
    record_fault(
        "A1",
        injected=duplicates,
        violations=sum(map(abs, extra)),
        figure=f"{duplicates} duplicates, {together} of them at once: {extra[0]} extra chunks, {extra[1]} extra calls",
    )
    assert {content for (content,) in chunks} == {f"Note {name} tells of rivers." for name in keys}
    assert rows(deployment, "select status, version_id is null, count(*) from documents group by 1, 2") == [
        ("ready", False, documents)
    ]
    assert (extra, together) == ((0, 0), duplicates // 3)
