"""Uploads, overwrites, deletes, workers and questions at once: every answer is whole, the end is what the bucket has.

Every client writes down what it did and saw; a checker reads the log afterwards.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from rag import ingestion
from rag.deadline import Deadline
from rag.errors import NotFoundError, UnavailableError
from rag.migrations import ensure_space
from rag.store.access import TenantStore
from rag.store.database import Database
from rag.store.index import IndexStore
from rag.store.search import SearchStore
from rag.store.staged import StagingStore
from rag.types import Delivery, Filters, Location, Scope
from tests.reliability.bucket_model import BucketModel
from tests.reliability.plain import LIMITS, SPACE, PlainEmbedder, PlainParser, count_tokens
from tests.reliability.test_histories import Event

KEYS = [f"key-{number}.txt" for number in range(6)]
WORKERS, READERS = 4, 2
POLL_SECONDS = 0.001
SAID = re.compile(r"Version (\d+) of (\S+) says in part (\d+) of (\d+)")


def text(version: int, key: str, parts: int) -> bytes:
    return "\n\n".join(
        f"Version {version} of {key} says in part {part} of {parts} that trains went on time." for part in range(parts)
    ).encode()


# What one answer had of each document: its version, which parts, of how many.
Answer = dict[str, list[tuple[int, int, int]]]


@dataclass
class Log:
    """In the order of each client: answers by reader, and every change of the bucket."""

    answers: list[list[Answer]] = field(default_factory=list)
    changes: int = 0
    deliveries: int = 0
    duplicates: int = 0
    put_back: int = 0

    def violations(self) -> list[str]:
        """P1: all parts of one version, each once. And no reader sees a version after a newer one."""
        found = []
        for reader, answers in enumerate(self.answers):
            newest: dict[str, int] = defaultdict(int)
            for number, answer in enumerate(answers):
                for key, parts in answer.items():
                    versions = {version for version, _, _ in parts}
                    if len(versions) > 1 or sorted(part for _, part, _ in parts) != list(range(parts[0][2])):
                        found.append(f"reader {reader}, answer {number}: torn {key}: {parts}")
                    if max(versions) < newest[key]:
                        found.append(f"reader {reader}, answer {number}: {key} went back to {parts} from {newest[key]}")
                    newest[key] = max(newest[key], *versions)
        return found


@dataclass
class World:
    tenant: Any
    database: Any
    bucket: BucketModel = field(default_factory=BucketModel)
    events: list[Event] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)
    drained: threading.Event = field(default_factory=threading.Event)
    under_way: int = 0
    errors: list[BaseException] = field(default_factory=list)
    log: Log = field(default_factory=Log)

    def connect(self, role: str) -> Database:
        return Database(self.database.url(role), lambda: self.database.passwords[role])

    def location(self, key: str) -> Location:
        return Location(self.tenant, "default", key)


@pytest.fixture
def world(database: Any) -> World:
    ensure_space(database.dsn("rag_owner"), SPACE)
    admin = Database(database.url("rag_admin"), lambda: database.passwords["rag_admin"])
    tenant, _ = TenantStore(admin, SPACE).create("tenant")
    admin.close()
    return World(tenant, database)


def change(world: World, keys: list[str], chance: random.Random) -> None:
    """Upload, overwrite and delete; each key has one writer, so that its versions are in one order."""
    version = 0
    while not world.stop.wait(chance.uniform(0, 0.1)):
        key, version = chance.choice(keys), version + 1
        if chance.random() < 0.2:
            world.bucket.delete(world.location(key).object_key)
        else:
            world.bucket.put(world.location(key).object_key, text(version, key, chance.randint(1, 5)))
        copies = 2 if chance.random() < 0.1 else 1
        with world.lock:
            world.log.changes += 1
            world.log.duplicates += copies - 1
            world.events += [Event(key) for _ in range(copies)]


def work(world: World, chance: random.Random) -> None:
    """Take any message, as SQS does, and put it back when it cannot be worked off now."""
    with closing(world.connect("rag_ingest")) as database:
        take_and_ingest(world, chance, IndexStore(database, SPACE))


def take_and_ingest(world: World, chance: random.Random, store: IndexStore) -> None:
    while not world.drained.is_set():
        with world.lock:
            event = world.events.pop(chance.randrange(len(world.events))) if world.events else None
            world.under_way += event is not None
        if event is None:
            time.sleep(0.002)
            continue
        event.receives += 1
        try:
            ingestion.ingest(
                world.location(event.key),
                bucket=world.bucket,
                parser=PlainParser(),
                embedder=PlainEmbedder(),
                store=store,
                staging=StagingStore(store),
                count_tokens=count_tokens,
                limits=LIMITS,
                deadline=Deadline.after(600),
                delivery=Delivery(event.message_id, event.receives),
            )
        except UnavailableError:
            with world.lock:
                world.events.append(event)
                world.log.put_back += 1
        finally:
            with world.lock:
                world.under_way -= 1
                world.log.deliveries += 1


def ask(world: World, answers: list[Answer]) -> None:
    """All that there is, by both legs, again and again."""
    vector = PlainEmbedder().embed(["trains"], Deadline.after(60))[0]
    with closing(world.connect("rag_query")) as database:
        store = SearchStore(database, SPACE)
        while not world.stop.wait(POLL_SECONDS):
            # Until something is uploaded there is no collection.
            with suppress(NotFoundError):
                answers.append(answered(world, store, vector))


def answered(world: World, store: SearchStore, vector: Any) -> Answer:
    found = store.search(
        Scope(world.tenant),
        "default",
        embedding=vector,
        lexemes=lambda _: {1: 1},
        rank=lambda candidates, _: [(candidate, 0.0) for candidate in candidates],
        mode="hybrid",
        filters=Filters(),
        depth=300,
    )
    answer: Answer = defaultdict(list)
    for hit in found.hits:
        said = SAID.match(hit.content)
        assert said is not None, hit.content
        assert said[2] == hit.key
        answer[hit.key].append((int(said[1]), int(said[3]), int(said[4])))
    return dict(answer)


@contextmanager
def thread(world: World, target: Any, *arguments: Any) -> Iterator[None]:
    def run() -> None:
        try:
            target(world, *arguments)
        except BaseException as error:  # noqa: BLE001 (told by the test)
            world.errors.append(error)

    started = threading.Thread(target=run)
    started.start()
    try:
        yield
    finally:
        started.join()


def live(world: World, seed: int, seconds: float) -> None:
    """All clients at once; then the queue is worked off."""
    world.log.answers = [[] for _ in range(READERS)]
    with ExitStack() as clients:
        clients.callback(world.drained.set)
        for number in range(WORKERS):
            clients.enter_context(thread(world, work, random.Random(seed * 100 + number)))
        with ExitStack() as others:
            others.callback(world.stop.set)
            for number in range(3):
                keys = KEYS[number::3]
                others.enter_context(thread(world, change, keys, random.Random(seed * 100 + 50 + number)))
            for answers in world.log.answers:
                others.enter_context(thread(world, ask, answers))
            time.sleep(seconds)
            until = time.monotonic() + 60
            while not enough(world.log) and time.monotonic() < until:
                time.sleep(0.1)
            world.stop.set()
        until = time.monotonic() + 120
        while (world.events or world.under_way) and not world.errors:
            assert time.monotonic() < until, world.events
            time.sleep(0.01)
        world.drained.set()


def enough(log: Log) -> bool:
    """Whether so much has happened that it says something."""
    return log.changes > 20 and sum(len(answer) for answers in log.answers for answer in answers) > 20


def unlike_the_bucket(world: World) -> list[str]:
    """P3, after the queue is empty."""
    query = (
        "select d.key, d.status, d.version_id, d.chunk_count, "
        "array(select content from chunks c where c.document_id = d.id order by position) from documents d"
    )
    with psycopg.connect(world.database.superuser_dsn()) as connection:
        index = {key: tuple(rest) for key, *rest in connection.execute(query).fetchall()}
    bucket = {}
    for key in KEYS:
        now = world.bucket.current(world.location(key).object_key)
        if now is not None and now.body is not None:
            parts = now.body.decode().split("\n\n")
            bucket[key] = ("ready", now.version_id, len(parts), parts)
    return [key for key in KEYS if index.get(key) != bucket.get(key)]


def hold(world: World, seed: int, seconds: float, record_fault: Any) -> None:
    live(world, seed, seconds)
    assert world.errors == []
    log = world.log
    torn, different = log.violations(), unlike_the_bucket(world)
    answers = sum(map(len, log.answers))
    documents = sum(len(answer) for answers in log.answers for answer in answers)
    record_fault(
        "B4",
        injected=answers,
        violations=len(torn),
        figure=f"{answers:,} answers with {documents:,} documents during {log.changes:,} changes",
    )
    record_fault(
        "A2",
        injected=log.deliveries,
        violations=len(different),
        figure=f"{log.deliveries:,} in any order by {WORKERS} workers, {log.duplicates} twice, {log.put_back} put back",
    )
    assert (torn, different) == ([], [])
    assert enough(log)


@pytest.mark.faults_fast
def test_four_seconds_of_everything_at_once_show_no_half_of_a_document(
    world: World, seed: int, record_fault: Any
) -> None:
    hold(world, seed, 4, record_fault)


@pytest.mark.faults_full
def test_a_quarter_of_a_minute_of_everything_at_once_shows_no_half_of_a_document(
    world: World, seed: int, record_fault: Any
) -> None:
    hold(world, seed + 1, 15, record_fault)


@pytest.mark.faults_soak
def test_ten_minutes_of_everything_at_once_show_no_half_of_a_document(
    world: World, seed: int, record_fault: Any
) -> None:
    hold(world, seed + 2, 600, record_fault)


@pytest.mark.faults_fast
def test_the_checker_knows_what_is_wrong() -> None:
    whole = [(3, part, 2) for part in range(2)]
    log = Log([[{"a": whole}, {"a": whole[:1]}, {"a": [(2, 0, 1)]}, {"a": [(4, 0, 2), (5, 1, 2)]}, {"a": whole * 2}]])
    assert [each.split(": ")[0] for each in log.violations()] == [f"reader 0, answer {n}" for n in (1, 2, 3, 4, 4)]
