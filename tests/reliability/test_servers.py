"""PostgreSQL is killed under load, and a worker is frozen in the middle of its transaction."""

from __future__ import annotations

import secrets
import shutil
import signal
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from local.postgres import Postgres
from rag import ingestion, migrations
from rag.deadline import Deadline
from rag.errors import UnavailableError
from rag.migrations import ensure_space
from rag.store.access import TenantStore
from rag.store.database import Database
from rag.store.index import IndexStore
from rag.store.staged import StagingStore
from rag.types import Delivery, Location
from tests.reliability.bucket_model import BucketModel
from tests.reliability.plain import LIMITS, SPACE, PlainEmbedder, PlainParser, body, count_tokens
from tests.reliability.test_kill_points import World, calm, differing, embedded, world

# Fixtures of the module beside this one.
__all__ = ["calm", "world"]

CYCLES, WRITERS = 6, 3


@pytest.mark.faults_full
def test_postgresql_killed_under_load_again_and_again_loses_nothing_that_was_acknowledged(
    tmp_path_factory: pytest.TempPathFactory, record_fault: Any
) -> None:
    directory: Path = tmp_path_factory.mktemp("servers") / "killed"
    server = Postgres(directory)  # durable, as the tests' own is not
    server.start()
    try:
        owner, password = "rag_owner", secrets.token_urlsafe(12)
        server.create_database("rag", owner=owner, password=password)
        dsn = server.dsn(owner, "rag", password)
        migrations.migrate(dsn)
        passwords = {role: secrets.token_urlsafe(12) for role in ("rag_admin", "rag_ingest")}
        migrations.set_passwords(dsn, passwords)
        ensure_space(dsn, SPACE)
        with closing(Database(server.dsn("rag_admin", "rag"), lambda: passwords["rag_admin"])) as admin:
            tenant, _ = TenantStore(admin, SPACE).create("tenant")
        bucket, stop = BucketModel(), threading.Event()
        acknowledged: list[list[str]] = [[] for _ in range(WRITERS)]

        def write(mine: list[str], writer: int) -> None:
            with closing(Database(server.dsn("rag_ingest", "rag"), lambda: passwords["rag_ingest"])) as database:
                store = IndexStore(database, SPACE)
                number = 0
                while not stop.is_set():
                    number += 1
                    location = Location(tenant, "default", f"{writer}-{number}.txt")
                    bucket.put(location.object_key, body(number, 2))
                    ingest_until_done(location, bucket, store)
                    mine.append(location.key)

        threads = [threading.Thread(target=write, args=[acknowledged[n], n]) for n in range(WRITERS)]
        for thread in threads:
            thread.start()
        recoveries = []
        for _ in range(CYCLES):
            time.sleep(1)
            assert server.process is not None
            server.process.kill()
            server.process.wait()
            down = time.monotonic()
            server.start()
            recoveries.append(time.monotonic() - down)
        before = sum(map(len, acknowledged))
        time.sleep(1)
        stop.set()
        for thread in threads:
            thread.join(120)
        keys = {key for mine in acknowledged for key in mine}
        with psycopg.connect(server.dsn(database="rag")) as connection:
            found = connection.execute(
                "select key, status = 'ready' and chunk_count = 2 and 2 = "
                "(select count(*) from chunks c where c.document_id = d.id) from documents d"
            ).fetchall()
    finally:
        server.stop()
        shutil.rmtree(directory)
    lost, torn = keys - {key for key, _ in found}, [key for key, whole in found if not whole]
    record_fault(
        "B2",
        injected=CYCLES,
        violations=len(lost) + len(torn),
        figure=f"{len(keys)} acknowledged, lost {len(lost)}, torn {len(torn)}, back after ≤ {max(recoveries):.1f} s",
    )
    assert (lost, torn) == (set(), [])
    assert len(keys) >= before > 0


def ingest_until_done(location: Location, bucket: BucketModel, store: IndexStore) -> None:
    """As the queue does: again, while it is not acknowledged."""
    for number in range(1, 200):
        try:
            ingestion.ingest(
                location,
                bucket=bucket,
                parser=PlainParser(),
                embedder=PlainEmbedder(),
                store=store,
                staging=StagingStore(store),
                count_tokens=count_tokens,
                limits=LIMITS,
                deadline=Deadline.after(600),
                delivery=Delivery(location.key, number),
            )
        except UnavailableError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(location)


@pytest.mark.faults_full
def test_a_worker_frozen_in_its_transaction_keeps_its_lock_for_thirty_seconds_at_most(
    world: World, calm: dict[str, Any], record_fault: Any
) -> None:
    locked = (
        "select count(*) from pg_locks where locktype = 'advisory' "
        "and database = (select oid from pg_database where datname = current_database())"
    )
    key = world.key("created.md")
    with world.clone() as database:
        world.model.requests.clear()
        frozen = threading.Event()

        def watch(edge: Any) -> bool:
            if b"finish_document(" in edge.data and not frozen.is_set():
                delivery.send(signal.SIGSTOP)
                frozen.set()
            return True

        for proxy in world.proxies.values():
            proxy.watch = None
        world.proxies["PostgreSQL"].watch = watch
        delivery = world.workers.deliver(key, alone=True, RAG_DATABASE_URL=world.url(database))
        assert frozen.wait(60)
        began = time.monotonic()
        with psycopg.connect(world.database.server.dsn(database=database), autocommit=True) as connection:
            while connection.execute(locked).fetchone() != (0,):
                assert time.monotonic() - began < 120
                time.sleep(0.1)
        held = time.monotonic() - began
        world.proxies["PostgreSQL"].watch = None
        redelivered = world.workers.deliver(key, receives=2, alone=True, RAG_DATABASE_URL=world.url(database)).wait()
        delivery.send(signal.SIGCONT)
        thawed = delivery.wait()
        differs = differing(world.rows(database), calm["created.md"].rows)
    again = embedded(world.model) - calm["created.md"].embedded
    figure = f"lock held {held:.1f} s (≤ 30), {again} texts embedded again, thawed worker ended with {thawed}"
    record_fault("B6", injected=1, violations=len(differs) + (redelivered != 0) + (held > 40), figure=figure)
    assert (redelivered, differs) == (0, [])
    assert thawed in {0, 1}
    assert held <= 40  # and not as long as it is frozen
