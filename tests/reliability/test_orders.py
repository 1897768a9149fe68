"""The events of one key in every order (A2), whatever their sequencers say (A3); processes with a version each (B3).

The model answers nobody before all that are to be at work at once are; what they do then is a race.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from tests import fake_model
from tests.integration.deployment import BUCKET, Deployment, sample
from tests.reliability.test_histories import statistics_are_right
from tests.reliability.workers import Delivery, Workers, working

LIVES = {"ends existing": ("put", "put", "delete", "put"), "ends deleted": ("put", "delete", "put", "delete")}
EVENTS = 4
CONCURRENCIES = range(1, EVENTS + 1)
# As many documents as a process can be at work on at once: each of them is held in its middle.
AT_ONCE = 10
# What the messages say of the order of the four events. Those of S3 are compared as if the shorter one went on with
# zeros (S3 user guide, "Event message structure").
SEQUENCERS: dict[str, tuple[str | None, ...]] = {
    "rising": ("0055AED6DCD90281E5", "0055AED6DCD90281E6", "0055AED6DCD90281EF", "0055AED6DCD90281F0"),
    "of different length": ("0055AED6DCD90281E5A0C1", "0055AED6DCD90281E6", "0055AED6DCD90282", "0055AED6DCD903"),
    "equal": ("0055AED6DCD90281E5",) * EVENTS,
    "falling": ("0055AED6DCD90281F0", "0055AED6DCD90281EF", "0055AED6DCD90281E6", "0055AED6DCD90281E5"),
    "missing": (None,) * EVENTS,
    "missing of some": ("0055AED6DCD90281F0", None, "0055AED6DCD90281E5", None),
}
PROCESSES = (4, 8, 16)
# Of the fifty that the server has: a document that is at work has one.
CONNECTIONS = 40
MOST_RECEIVES = 5
PATIENCE_SECONDS = 60.0
VERSION = re.compile(r"Version \d+ of \S+")

# What is of no document, and of no chunk.
LEFT = """
    select 'chunks', c.document_id from chunks c
      where not exists (select from documents d where d.id = c.document_id)
    union all select 'embeddings', null from embeddings e
      where not exists (select from chunks c where c.id = e.chunk_id)
    union all select 'pending_embeddings', document_id from pending_embeddings
    union all select 'pending_documents', document_id from pending_documents
    union all select 'pending_chunks', document_id from pending_chunks
"""
HELD = """
    select key, status, version_id, content_hash, error_code, leased_until, chunk_count,
      array(select content from chunks c where c.document_id = d.id order by position),
      (select count(*) from chunks c join embeddings e on (e.tenant_id, e.chunk_id) = (c.tenant_id, c.id)
       where c.document_id = d.id)
    from documents d
"""


class Held:
    """A model that answers for a version when it is let go, and knows of which it was asked and of which in vain."""

    def __init__(self) -> None:
        self.missed: set[str] = set()
        self._asked: set[str] = set()
        self._let_go: set[str] = set()
        self._changed = threading.Condition()

    def __call__(self, handler: Any, body: dict[str, Any]) -> None:
        [about] = {found[0] for text in body["input"] if (found := VERSION.match(text))}
        with self._changed:
            self._asked.add(about)
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: about in self._let_go, 120), about
        fake_model.send_json(handler, fake_model.embeddings([fake_model.unit(text, 4) for text in body["input"]]))

    def asked(self, versions: Iterable[str]) -> None:
        """Return when it was asked for all of these; nobody waits any more once one was `missed`."""
        wanted = set(versions)
        with self._changed:
            if not self._changed.wait_for(lambda: wanted <= self._asked, 0 if self.missed else PATIENCE_SECONDS):
                self.missed |= wanted - self._asked

    def let_go(self, version: str) -> bool:
        """Answer for it from now on; whether that is news."""
        with self._changed:
            known = version in self._let_go
            self._let_go.add(version)
            self._changed.notify_all()
        return not known


@pytest.fixture
def held(deployment: Deployment) -> Held:
    deployment.model.always = held = Held()
    return held


@pytest.fixture(scope="module")
def places(aws: Any) -> Iterator[list[Workers]]:
    """For as many processes at once as a key has events."""
    with ExitStack() as stack:
        yield [stack.enter_context(working(aws.environment)) for _ in range(EVENTS)]


def body(name: str, version: int) -> bytes:
    """One to five chunks, of which every second one is the same in all versions."""
    parts = 1 + version * 3 % 5
    return "\n\n".join(
        f"Part {part} of {name} says in every version that the trains of the county went on time in that year."
        if part % 2
        else f"{said(name, version)} says in part {part} of {parts} that the trains of the county went on time."
        for part in range(parts)
    ).encode()


def said(name: str, version: int) -> str:
    return f"Version {version} of {name}"


@dataclass
class History:
    """A key, what happens to its object, and how S3 tells of it: in which order, how many at once, how numbered."""

    deployment: Deployment
    name: str
    changes: Sequence[str]
    order: tuple[int, ...] = ()
    kind: str = ""
    events: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        return f"{self.deployment.tenant}/default/{self.name}"

    @property
    def current(self) -> str | None:
        """The version that the bucket has."""
        made = len(self.events) - 1
        return said(self.name, made) if self.changes[made] == "put" else None

    def message(self, number: int) -> str:
        """What S3 says of the change of this number; it has happened by then, and those before it."""
        while len(self.events) <= number:
            self.change()
        return self.events[number]

    def change(self) -> None:
        number = len(self.events)
        [record] = json.loads(sample("ingest/object_created.json")["Records"][0]["body"])["Records"]
        if self.changes[number] == "put":
            written = body(self.name, number)
            made = self.deployment.s3.put_object(Bucket=BUCKET, Key=self.key, Body=written)
            about = {"size": len(written), "eTag": made["ETag"].strip('"')}
        else:
            made = self.deployment.s3.delete_object(Bucket=BUCKET, Key=self.key)
            record["eventName"] = "ObjectRemoved:DeleteMarkerCreated"
            about = {}
        about |= {"key": self.key, "versionId": made["VersionId"]}
        if self.kind and (sequencer := SEQUENCERS[self.kind][number]) is not None:
            about["sequencer"] = sequencer
        record["s3"]["object"] = about
        self.events.append(json.dumps({"Records": [record]}))


def rows(deployment: Deployment, query: str) -> list[tuple[Any, ...]]:
    """What a superuser sees, behind row-level security."""
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        return connection.execute(query.encode()).fetchall()


def unlike_s3(deployment: Deployment, histories: Sequence[History]) -> dict[str, list[Any]]:
    """The keys of which the index holds anything else than the bucket, and what it holds; and what is nobody's."""
    index = {key: row for key, *row in rows(deployment, HELD)}
    wrong: dict[str, list[Any]] = {}
    for history in histories:
        found = index.pop(history.name, None)
        try:
            now = deployment.s3.get_object(Bucket=BUCKET, Key=history.key)
        except deployment.s3.exceptions.NoSuchKey:
            expected = None
        else:
            content = now["Body"].read()
            parts = content.decode().split("\n\n")
            digest = hashlib.sha256(content).digest()
            expected = ["ready", now["VersionId"], digest, None, None, len(parts), parts, len(parts)]
        if found != expected:
            wrong[history.name] = found or ["nothing"]
    wrong |= index
    if left := rows(deployment, LEFT):
        wrong["nobody's"] = left
    return wrong


@dataclass
class Batch:
    """Messages of several keys that a process works off, and again what it did not acknowledge, as from the queue."""

    deployment: Deployment
    workers: Workers
    messages: dict[str, str]
    alone: bool = False
    receives: int = 0

    def __post_init__(self) -> None:
        self.delivery = self.deliver()

    def deliver(self) -> Delivery:
        self.receives += 1
        settings = self.deployment.environment(
            "rag_ingest", ingest_threads=str(AT_ONCE), chunk_tokens="30", chunk_max_tokens="60"
        )
        return self.workers.deliver(messages=self.messages, receives=self.receives, alone=self.alone, **settings)

    def work_off(self) -> int:
        """Return how often it was delivered."""
        while (status := self.delivery.wait()) != 0:
            assert (status, self.receives < MOST_RECEIVES) == (1, True)
            self.delivery = self.deliver()
        return self.receives


def let_go(histories: Sequence[History], held: Held, chance: random.Random) -> None:
    """In any order, with a pause here and there: who is older may come to write when the newest is there."""
    versions = [said(one.name, number) for one in histories for number in range(len(one.events))]
    for version in chance.sample(versions, len(versions)):
        if held.let_go(version):
            time.sleep(chance.choice([0, 0, 0.01]))


def deliver_together(
    histories: Sequence[History], concurrency: int, places: Sequence[Workers], held: Held, chance: random.Random
) -> list[int]:
    """The events of each in its order, so many at a time in as many processes; how often each batch was delivered.

    The bucket is changed as late as can be: when something is told of that has not happened yet.
    """
    receives: list[int] = []
    for first in range(0, EVENTS, concurrency):
        batches: list[Batch] = []
        for place, workers in zip(range(first, min(first + concurrency, EVENTS)), places, strict=False):
            messages = {f"{one.name} {one.order[place]}": one.message(one.order[place]) for one in histories}
            if concurrency == 1:
                let_go(histories, held, chance)
            batches.append(Batch(histories[0].deployment, workers, messages))
            held.asked(one.current for one in histories if one.current)
        let_go(histories, held, chance)
        receives += [batch.work_off() for batch in batches]
    return receives


def drawn(deployment: Deployment, concurrency: int, chance: random.Random, *, every_life: bool) -> list[History]:
    """A key for each order, in either life or in one of them; every kind of sequencers equally often."""
    orders = list(itertools.permutations(range(EVENTS)))
    lives = [*LIVES] * (len(orders) // len(LIVES))
    chosen = (
        list(itertools.product(orders, LIVES))
        if every_life
        else list(zip(orders, chance.sample(lives, len(lives)), strict=True))
    )
    chance.shuffle(chosen)
    return [
        History(
            deployment,
            f"{life}-{''.join(map(str, order))}-{concurrency}.txt".replace(" ", "-"),
            LIVES[life],
            order,
            kind,
        )
        for (order, life), kind in zip(chosen, itertools.cycle(SEQUENCERS), strict=False)
    ]


def hold(
    deployment: Deployment, places: list[Workers], held: Held, chance: random.Random, record_fault: Any, **which: bool
) -> None:
    every: list[History] = []
    receives: list[int] = []
    for concurrency in CONCURRENCIES:
        histories = drawn(deployment, concurrency, chance, **which)
        together = AT_ONCE if concurrency > 1 else len(histories)
        for n in range(0, len(histories), together):
            receives += deliver_together(histories[n : n + together], concurrency, places, held, chance)
        every += histories
    wrong = unlike_s3(deployment, every)
    record_fault(
        "A2",
        injected=len(every) * EVENTS,
        violations=len(wrong),
        figure=f"{len({one.order for one in every})} orders × concurrency 1–{EVENTS}: {len(every)} histories of "
        f"{EVENTS} events, {sum(receives) - len(receives)} of {len(receives)} batches put back, {len(wrong)} wrong",
    )
    kinds = Counter(one.kind for one in every)
    record_fault(
        "A3",
        injected=len(every),
        violations=len(wrong),
        figure="sequencers " + ", ".join(f"{kind} {count}" for kind, count in kinds.items()) + f": {len(wrong)} wrong",
    )
    assert (wrong, held.missed) == ({}, set())
    assert {len(one.events) for one in every} == {EVENTS}
    assert len(kinds) == len(SEQUENCERS)
    assert statistics_are_right(lambda query: rows(deployment, query))


@pytest.mark.faults_full
def test_four_events_in_every_order_and_any_number_at_once_end_as_s3_says(
    deployment: Deployment, places: list[Workers], held: Held, seed: int, record_fault: Any
) -> None:
    hold(deployment, places, held, random.Random(seed), record_fault, every_life=False)


@pytest.mark.faults_soak
def test_four_events_in_every_order_of_either_life_end_as_s3_says(
    deployment: Deployment, places: list[Workers], held: Held, seed: int, record_fault: Any
) -> None:
    hold(deployment, places, held, random.Random(seed + 1), record_fault, every_life=True)


def race(histories: Sequence[History], places: Sequence[Workers], held: Held, chance: random.Random) -> None:
    """Each process holds another version of all of them when the first may go on; any of them may be the last to."""
    batches: list[Batch] = []
    for number, workers in zip(range(len(histories[0].changes)), itertools.cycle(places), strict=False):
        messages = {f"{one.name} {number}": one.message(number) for one in histories}
        batches.append(Batch(histories[0].deployment, workers, messages, alone=number >= len(places)))
        held.asked(said(one.name, number) for one in histories)
    let_go(histories, held, chance)
    for batch in batches:
        batch.work_off()


def hold_races(
    deployment: Deployment, places: list[Workers], held: Held, chance: random.Random, record_fault: Any, rounds: int
) -> None:
    every: list[History] = []
    for turn, processes in itertools.product(range(rounds), PROCESSES):
        histories = [
            History(deployment, f"{turn}-{processes}-{n}.txt", ["put"] * processes)
            for n in range(CONNECTIONS // processes)
        ]
        race(histories, places, held, chance)
        every += histories
    wrong = unlike_s3(deployment, every)
    runs = Counter(len(one.changes) for one in every)
    told = ", ".join(f"{count} of {processes}" for processes, count in runs.items())
    record_fault(
        "B3",
        injected=len(every),
        violations=len(wrong),
        figure=f"{told} processes with a version each: {len(wrong)} mixed or not the newest",
    )
    assert (wrong, held.missed) == ({}, set())
    assert statistics_are_right(lambda query: rows(deployment, query))


@pytest.mark.faults_full
def test_of_versions_that_are_worked_on_at_once_the_newest_is_there_and_nothing_of_another(
    deployment: Deployment, places: list[Workers], held: Held, seed: int, record_fault: Any
) -> None:
    hold_races(deployment, places, held, random.Random(seed), record_fault, rounds=1)


@pytest.mark.faults_soak
def test_of_versions_that_are_worked_on_at_once_the_newest_is_there_five_times_over(
    deployment: Deployment, places: list[Workers], held: Held, seed: int, record_fault: Any
) -> None:
    hold_races(deployment, places, held, random.Random(seed + 1), record_fault, rounds=5)
