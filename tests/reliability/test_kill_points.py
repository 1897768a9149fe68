"""Ingest is killed wherever it speaks to the world, or has just been told; the rows are those of a calm run."""

from __future__ import annotations

import hashlib
import itertools
import queue
import random
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from rag.migrations import ensure_space
from rag.settings import Settings
from rag.store.access import TenantStore
from rag.store.database import Database
from rag.types import EmbeddingSpace, Location
from tests import fake_model
from tests.fake_model import FakeModel
from tests.integration.deployment import BUCKET
from tests.reliability.proxy import Edge, Proxy, proxying
from tests.reliability.rows import Rows, all_rows, differing
from tests.reliability.workers import KILLED, Workers, working

SPACE = EmbeddingSpace("fake", 4)
BATCH = 3
# Batches of a document that is alone.
AT_ONCE = Settings().ingest_threads
WHEN = {"request": "before", "reply": "after"}
# A kill is at the edge itself, or up to this much later: in whatever the worker does by itself then.
LATER_SECONDS = 0.03
# Of the texts whose vectors are stored: what an attempt that was cut short has kept, and what the version has.
_STORED = """
    select content_hash, true from pending_embeddings where document_id = %(document)s
    union select c.content_hash, false from chunks c
    join embeddings e on (e.tenant_id, e.chunk_id) = (c.tenant_id, c.id) where c.document_id = %(document)s
"""

_numbers = itertools.count(1)


def text(year: int) -> str:
    """Eight chapters, of which every second one is of no year."""
    chapters = [
        f"# Chapter {n}\n\nSentence one of chapter {n} tells of trains in {year if n % 2 else 1800}. "
        + "It goes on and on about rails. " * 25
        for n in range(8)
    ]
    return "\n\n".join(chapters)


# What a key's bucket held when the base was made, and what it holds when its message comes.
SCENARIOS: dict[str, tuple[str | None, str | None]] = {
    "created.md": (None, text(1850)),
    "replaced.md": (text(1850), text(1900)),
    "deleted.md": (text(1850), None),
    "damaged.docx": (None, "no document at all"),
}


@dataclass
class Kill:
    """At the edge of this number the worker dies: before anything of it passes, or so much later."""

    edge: int
    later: float | None = None


@dataclass
class World:
    """The base that every run begins with, and a worker's three conversations."""

    database: Any
    base: str
    tenant: str
    workers: Workers
    model: FakeModel
    proxies: dict[str, Proxy]
    log: Any
    edges: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def key(self, name: str) -> str:
        return f"{self.tenant}/default/{name}"

    def url(self, name: str) -> str:
        """Of that database as an ingest worker reaches it."""
        url = self.database.server.dsn("rag_ingest", name, self.database.passwords["rag_ingest"])
        return str(url).replace(f":{self.database.server.port}/", f":{self.proxies['PostgreSQL'].port}/")

    @contextmanager
    def clone(self) -> Iterator[str]:
        """A copy of the base; its name."""
        name = f"rag_fault_{next(_numbers)}"
        administer(self.database.server, f"create database {name} template {self.base}")
        try:
            yield name
        finally:
            administer(self.database.server, f"drop database {name} with (force)")

    def rows(self, name: str) -> Rows:
        return all_rows(self.database.server.dsn(database=name))

    def stored(self, name: str, key: str) -> dict[bytes, bool]:
        """Hashes of the document's texts that have vectors, and whether they are kept for an attempt only."""
        document = Location(uuid.UUID(self.tenant), "default", key).document_id
        with psycopg.connect(self.database.server.dsn(database=name)) as connection:
            return dict(connection.execute(_STORED, {"document": document}).fetchall())

    def deliver(self, name: str, key: str, *, receives: int = 1, kill: Kill | None = None) -> int:
        """One delivery of the key's message; how the worker ended. What it said to whom is in `edges` then."""
        self.edges.clear()
        begun = threading.Event()
        timers: list[threading.Timer] = []
        asked: dict[str, str] = {}

        def watch(service: str) -> Callable[[Edge], bool]:
            def see(edge: Edge) -> bool:
                begun.wait(120)
                with self.lock:
                    if edge.direction == "request":
                        asked[service] = named(edge)
                    self.edges.append(f"{WHEN[edge.direction]} {service}: {asked[service]}")
                    if kill is None or len(self.edges) != kill.edge:
                        return True
                if kill.later is None:
                    delivery.kill()
                    delivery.wait()
                    return False
                timers.append(threading.Timer(kill.later, delivery.kill))
                timers[-1].start()
                return True

            return see

        for service, proxy in self.proxies.items():
            proxy.watch = watch(service)
        delivery = self.workers.deliver(key, receives=receives, RAG_DATABASE_URL=self.url(name), log=self.log)
        begun.set()
        status = delivery.wait()
        for timer in timers:
            timer.join()
        return status


def named(edge: Edge) -> str:
    """What is about to be asked, in words that are the same in every run."""
    found = re.search(
        rb"\b(begin|select|insert|update|delete|with|commit|rollback) [ -~]{0,60}|HEAD|GET|POST", edge.data
    )
    words = re.search(rb"(\w+ document|into \w+|from \w+|lock\w*)", edge.data[found.end() :]) if found else None
    return " ".join(each[0].decode().strip() for each in (found, words) if each) or "connection"


@contextmanager
def opened(database: Any, base: str, tenant: str, aws: Any, log: Path) -> Iterator[World]:
    with ExitStack() as stack:
        model = stack.enter_context(fake_model.serving(FakeModel(SPACE.dimensions)))
        ports = {"PostgreSQL": database.server.port, "S3": aws.port, "the model": urlsplit(model.url).port}
        # The local S3 wants its own port in the Host header.
        proxies = {name: stack.enter_context(proxying(port, same_port=name == "S3")) for name, port in ports.items()}
        environment = {
            **aws.environment,
            "AWS_ENDPOINT_URL": f"http://{proxies['S3'].host}:{aws.port}",
            "RAG_BUCKET": BUCKET,
            "RAG_QUEUE_URL": f"{aws.url}/000000000000/none",
            "RAG_MODEL_URL": f"http://127.0.0.1:{proxies['the model'].port}/v1",
            "RAG_EMBEDDING_MODEL": SPACE.model,
            "RAG_EMBEDDING_DIMENSIONS": str(SPACE.dimensions),
            "RAG_BATCH_SIZE": str(BATCH),
        }
        workers = stack.enter_context(working(environment))
        yield World(database, base, tenant, workers, model, proxies, log)


@pytest.fixture(scope="module")
def world(template_database: Any, aws: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    server, base = template_database.server, "rag_fault_base"
    administer(server, f"create database {base} template {template_database.name} owner rag_owner")
    passwords = template_database.passwords
    ensure_space(server.dsn("rag_owner", base, passwords["rag_owner"]), SPACE)
    admin = Database(server.dsn("rag_admin", base, passwords["rag_admin"]), lambda: passwords["rag_admin"])
    tenant, _ = TenantStore(admin, SPACE).create("tenant")
    admin.close()
    log = tmp_path_factory.mktemp("kill-points") / "handler.log"
    with opened(template_database, base, str(tenant), aws, log) as made:
        s3 = aws.client("s3")
        for name, (before, _) in SCENARIOS.items():
            if before is not None:
                s3.put_object(Bucket=BUCKET, Key=made.key(name), Body=before.encode())
                assert made.deliver(base, made.key(name)) == 0
        for name, (_, now) in SCENARIOS.items():
            if now is None:
                s3.delete_object(Bucket=BUCKET, Key=made.key(name))
            else:
                s3.put_object(Bucket=BUCKET, Key=made.key(name), Body=now.encode())
        yield made
    administer(server, f"drop database {base} with (force)")


@pytest.fixture(scope="module")
def worlds(world: World, aws: Any) -> Iterator[list[World]]:
    """Two of them, since the machines that this runs on have two processors."""
    with opened(world.database, world.base, world.tenant, aws, world.log) as other:
        yield [world, other]


@dataclass
class Calm:
    """A run that nobody disturbs."""

    rows: Rows
    edges: list[str]
    embedded: int


@pytest.fixture(scope="module")
def calm(world: World) -> dict[str, Calm]:
    runs = {}
    for name in SCENARIOS:
        with world.clone() as database:
            world.model.requests.clear()
            assert world.deliver(database, world.key(name)) == 0
            runs[name] = Calm(world.rows(database), list(world.edges), embedded(world.model))
            assert asked(world.model) <= world.stored(database, name).keys()
    return runs


@pytest.mark.faults_fast
def test_a_dozen_kills_leave_the_rows_of_an_undisturbed_run(
    worlds: list[World], calm: dict[str, Calm], seed: int, record_fault: Any
) -> None:
    hold(worlds, calm, random_kills(calm, seed, runs=12), record_fault)


@pytest.mark.faults_full
def test_kills_everywhere_also_of_the_redelivery_leave_the_rows_of_an_undisturbed_run(
    worlds: list[World], calm: dict[str, Calm], seed: int, record_fault: Any
) -> None:
    ended = hold(worlds, calm, random_kills(calm, seed + 1, runs=240), record_fault)
    assert len({point for one in ended for point in one.points}) >= 12
    assert sum(one.kept for one in ended)  # else nothing was there to be charged for again


@pytest.mark.faults_fast
def test_a_duplicate_that_comes_meanwhile_asks_the_model_for_nothing(
    world: World, calm: dict[str, Calm], record_fault: Any
) -> None:
    meanwhile: dict[str, int] = {}
    with world.clone() as database:
        key = world.key("created.md")

        def disturbed(handler: Any, body: dict[str, Any]) -> None:
            for message in ("another", "1"):
                delivery = world.workers.deliver(key, message=message, alone=True, RAG_DATABASE_URL=world.url(database))
                meanwhile[message] = delivery.wait()
            fake_model.send_json(handler, fake_model.embeddings([fake_model.unit(text, 4) for text in body["input"]]))

        world.model.requests.clear()
        world.model.script = [disturbed]
        assert world.deliver(database, key) == 0
        repeated = embedded(world.model) - calm["created.md"].embedded
        differs = differing(world.rows(database), calm["created.md"].rows)
    figure = f"2 deliveries at the same time as the first: {repeated} texts embedded again"
    record_fault("A1", injected=2, violations=repeated + len(differs), figure=figure)
    # The message itself must not be deleted while its other delivery may still be the one that dies.
    assert (meanwhile, repeated, differs) == ({"another": 0, "1": 1}, 0, [])


@pytest.mark.faults_soak
def test_twenty_kills_at_each_single_edge_leave_the_rows_of_an_undisturbed_run(
    worlds: list[World], calm: dict[str, Calm], seed: int, record_fault: Any
) -> None:
    chance = random.Random(seed)
    kills = [
        (name, [Kill(edge, None if run % 2 else chance.uniform(0, LATER_SECONDS))])
        for name in SCENARIOS
        for edge in range(1, len(calm[name].edges) + 1)
        for run in range(20)
    ]
    hold(worlds, calm, kills, record_fault)


def random_kills(calm: dict[str, Calm], seed: int, *, runs: int) -> list[tuple[str, list[Kill]]]:
    """Each edge in turn, at it or a moment later; every fourth redelivery is killed as well."""
    chance = random.Random(seed)
    edges = [(name, edge) for name in SCENARIOS for edge in range(1, len(calm[name].edges) + 1)]
    chosen = list(itertools.islice(itertools.cycle(chance.sample(edges, len(edges))), runs))
    return [
        (name, [Kill(edge, chance.choice([None, chance.uniform(0, LATER_SECONDS)]))]
         + [Kill(chance.randint(1, len(calm[name].edges)))] * (chance.random() < 0.25))
        for name, edge in chosen
    ]  # fmt: skip


def hold(
    worlds: list[World], calm: dict[str, Calm], runs: list[tuple[str, list[Kill]]], record_fault: Any
) -> list[Ended]:
    """Every run ends with the rows of the calm one, and paid twice for nothing stored, and for no more than a round."""
    began = time.monotonic()
    idle: queue.SimpleQueue[World] = queue.SimpleQueue()
    for world in worlds:
        idle.put(world)

    def run(name: str, kills: list[Kill]) -> Ended:
        world = idle.get()
        try:
            return killed(world, name, kills, calm[name])
        finally:
            idle.put(world)

    with ThreadPoolExecutor(len(worlds)) as lanes:
        ended = list(lanes.map(lambda each: run(*each), runs))
    broken = [each for one in ended for each in one.broken]
    points = Counter(point for one in ended for point in one.points)
    again, took = sum(one.embedded_again for one in ended), time.monotonic() - began
    kept, stored = sum(one.kept for one in ended), sum(one.stored_again for one in ended)
    figure = f"{len(points)} points, {points.total()} kills, {again} texts embedded again, {took:.0f} s"
    figure += f"; of {kept} kept by who was killed {stored}"
    record_fault("B1", injected=points.total(), violations=len(broken), figure=figure)
    assert broken == []
    assert points.total() >= 0.75 * len(runs)  # some come too late: the worker was done
    return ended


@dataclass
class Ended:
    """`kept` texts had their vectors when a worker had died before the document was whole."""

    broken: list[str]
    points: list[str]
    embedded_again: int
    kept: int
    stored_again: int


def killed(world: World, name: str, kills: list[Kill], expected: Calm) -> Ended:
    broken, points = [], []
    kept, stored_again = set[bytes](), set[bytes]()
    at = f"{name}, {kills}"
    with world.clone() as database:
        world.model.requests.clear()
        for receives, kill in enumerate([*kills, None], start=1):
            stored, before = world.stored(database, name), len(world.model.requests)
            kept |= {content_hash for content_hash, pending in stored.items() if pending}
            status = world.deliver(database, world.key(name), receives=receives, kill=kill)
            stored_again |= stored.keys() & asked(world.model, before)
            if kill is not None and status == KILLED:
                points.append(world.edges[kill.edge - 1])
        broken += [f"{at}: the redelivery ended with {status}"] * (status != 0)
        broken += [f"{at}: other rows in {table}" for table in differing(world.rows(database), expected.rows)]
    repeated = embedded(world.model) - expected.embedded
    broken += [f"{at}: {repeated} texts were embedded again"] * (repeated > BATCH * AT_ONCE * len(points))
    broken += [f"{at}: {len(stored_again)} texts that were stored were embedded again"] * bool(stored_again)
    return Ended(broken, points, max(repeated, 0), len(kept), len(stored_again))


def embedded(model: FakeModel) -> int:
    return sum(len(request["input"]) for request in model.requests)


def asked(model: FakeModel, since: int = 0) -> set[bytes]:
    """Of the texts of its requests from that number on, the hashes by which `rag.types.Chunk` knows them."""
    return {hashlib.sha256(text.encode()).digest() for request in model.requests[since:] for text in request["input"]}


def administer(server: Any, statement: str) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(statement.encode())
