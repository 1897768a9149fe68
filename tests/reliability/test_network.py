"""Between the functions and PostgreSQL: cut, silent, slow, full, read-only, stale. Nothing is lost, nothing twice."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from rag.spending import Budgets, Settlement
from rag.store.database import Database
from rag.store.usage import UsageStore
from rag.types import Scope
from tests.integration.deployment import BUCKET, Deployment, notification
from tests.lexeme_counts import LEXEME_COUNTS
from tests.reliability.proxy import Edge, Proxy, proxying

DONE: dict[str, Any] = {"batchItemFailures": []}
TEXT = "\n\n".join(
    f"# Chapter {n}\n\n" + f"The trains of chapter {n} go on and on about rails. " * 12 for n in range(3)
)

# Seconds beyond its deadline that a request may take (RELIABILITY, C3), and how often it may be tried to.
ALLOWED, TRIES = 0.25, 4


@dataclass
class Place:
    """A deployment whose functions reach the database through a proxy."""

    deployment: Deployment
    proxy: Proxy

    def url(self, role: str) -> str:
        port = self.deployment.database.server.port
        return str(self.deployment.database.dsn(role)).replace(f":{port}/", f":{self.proxy.port}/")

    def store(self, key: str, body: str = TEXT) -> str:
        object_key = f"{self.deployment.tenant}/default/{key}"
        self.deployment.s3.put_object(Bucket=BUCKET, Key=object_key, Body=body.encode())
        return object_key

    def ingest(self, object_key: str, *, receives: int = 1, seconds: float = 600) -> bool:
        """One delivery; whether the message may be forgotten."""
        answer = self.deployment.ingest(
            notification(object_key), receives=receives, seconds=seconds, database_url=self.url("rag_ingest")
        )
        return bool(answer == DONE)

    def ask(self) -> tuple[int, float]:
        """A search; its status, and how long it took."""
        began = time.monotonic()
        body = {"query": "trains", "mode": "lexical"}
        reply = self.deployment.ask("POST", "/v1/search", body, database_url=self.url("rag_query"))
        return reply.status, time.monotonic() - began

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.deployment.database.superuser_dsn()) as connection:
            return connection.execute(query.encode()).fetchall()

    def administer(self, statement: str) -> None:
        with psycopg.connect(self.deployment.database.superuser_dsn(), autocommit=True) as connection:
            connection.execute(statement.encode())

    def wrong(self) -> list[str]:
        """Documents that are not ready and whole, once; statistics that are not those of the chunks."""
        found = [
            f"{key}: {status}, {chunk_count} chunks said, {held} held, {runs} times ready"
            for key, status, chunk_count, held, runs in self.rows(
                "select key, status, chunk_count, (select count(*) from chunks c where c.document_id = d.id), "
                "(select count(*) from ingestions i where i.document_id = d.id and i.outcome = 'ready') "
                "from documents d"
            )
            if (status, chunk_count, runs) != ("ready", held, 1)
        ]
        kept = f"select lexeme, sum(document_frequency) from {LEXEME_COUNTS} group by 1"
        there = "select lexeme, count(*) from chunks, unnest(lexemes) as lexeme group by 1"
        found += ["statistics of lexemes"] * any(count for _, count in {*self.rows(kept)} ^ {*self.rows(there)})
        sums = self.rows("select sum(document_count), sum(chunk_count) from collection_statistics")
        counts = self.rows("select count(*), (select count(*) from chunks) from documents")
        return found + ["statistics of documents"] * (sums != counts)


Hindrance = Callable[[Place, ExitStack], AbstractContextManager[Any]]


@pytest.fixture
def place(deployment: Deployment) -> Iterator[Place]:
    deployment.settings["RAG_QUEUE_URL"] = f"{deployment.aws.url}/000000000000/none"
    with proxying(deployment.database.server.port) as proxy:
        yield Place(deployment, proxy)


@contextmanager
def seen(proxy: Proxy, see: Callable[[int, Edge], bool]) -> Iterator[list[Edge]]:
    """Every edge, numbered from 1; `see` says whether it passes."""
    edges: list[Edge] = []

    def watch(edge: Edge) -> bool:
        edges.append(edge)
        return see(len(edges), edge)

    proxy.watch = watch
    try:
        yield edges
    finally:
        proxy.watch = None


@pytest.mark.faults_full
def test_a_connection_that_is_cut_at_any_statement_or_its_reply_leaves_one_whole_document(
    place: Place, record_fault: Any
) -> None:
    """Also between COMMIT and its reply, when nobody knows whether it happened."""
    with seen(place.proxy, lambda *_: True) as edges:
        assert place.ingest(place.store("calm.md"))
    cuts = again = 0
    for number in range(1, len(edges) + 1):
        object_key = place.store(f"cut-{number}.md")
        with seen(place.proxy, lambda at, _, number=number: at != number) as passed:
            done = place.ingest(object_key)
        cuts += len(passed) >= number
        again += not done
        assert done or place.ingest(object_key, receives=2), number
    wrong = place.wrong()
    figure = f"{cuts} cuts, {again} of them left to the queue, duplicates and orphans {len(wrong)}"
    record_fault("B5", injected=cuts, violations=len(wrong), figure=figure)
    assert wrong == []
    assert cuts >= 0.9 * len(edges)


def _until_answered(place: Place) -> float:
    began = time.monotonic()
    while place.ask()[0] != 200:
        assert time.monotonic() - began < 60
        time.sleep(0.05)
    return time.monotonic() - began


@pytest.mark.faults_full
def test_a_failover_ends_questions_with_503_and_leaves_documents_to_the_queue(place: Place, record_fault: Any) -> None:
    assert place.ingest(place.store("before.md"))
    assert place.ask()[0] == 200
    place.proxy.refuse()
    refused = [place.ask() for _ in range(5)]
    object_key = place.store("meanwhile.md")
    left = not place.ingest(object_key)
    place.proxy.accept()
    first = _until_answered(place)
    for _ in range(TRIES):  # where the machine had other work meanwhile
        if first > 3:
            place.proxy.refuse()
            place.proxy.accept()
            first = min(first, _until_answered(place))
    ready = place.ingest(object_key, receives=2)
    after = [place.ask()[0] for _ in refused]
    untyped = [status for status, _ in refused if status != 503]
    wrong = place.wrong()
    record_fault(
        "C1",
        injected=len(refused) + 1,
        violations=len(untyped) + len(wrong) + (not left) + (not ready) + len(after) - after.count(200),
        figure=f"{len(refused) - len(untyped)} of {len(refused)} questions 503 meanwhile, slowest "
        f"{max(took for _, took in refused):.2f} s; first success {first:.2f} s after up (≤ 3), "
        f"{after.count(200)} of {len(after)} answered after",
    )
    assert (untyped, wrong, left, ready) == ([], [], True, True)
    assert after == [200] * len(refused)
    assert first <= 3


@pytest.mark.faults_full
def test_nobody_waits_beyond_the_deadline_for_a_server_that_says_nothing(place: Place, record_fault: Any) -> None:
    """Where the server itself stands still, or the network to it, no time-out of the server's ends anything."""
    assert place.ingest(place.store("before.md"))
    limit = 3.0
    asked: dict[str, list[tuple[int, float]]] = {
        name: _asked(place, hinder, limit) for name, hinder in HINDRANCES.items()
    }
    over = max(min(took for _, took in tries) for tries in asked.values()) - limit
    untyped = {name: tries for name, tries in asked.items() if {status for status, _ in tries} != {503}}
    record_fault(
        "C3",
        injected=sum(map(len, asked.values())),
        violations=len(untyped) + (over > ALLOWED),
        figure=f"longest request {over:+.2f} s from its deadline (≤ {ALLOWED})",
    )
    assert untyped == {}
    assert over <= ALLOWED, asked


@pytest.mark.faults_full
def test_ingest_ends_before_its_sandbox_and_leaves_to_the_queue_what_a_silent_database_keeps(
    place: Place, record_fault: Any
) -> None:
    place.deployment.settings["RAG_PARSE_SECONDS"] = "1"
    seconds = 28.0  # with fewer it does not begin
    assert place.ingest(place.store("before.md"))
    left: dict[str, bool] = {}
    over: dict[str, float] = {}
    rescued = 0
    for number, statement in enumerate(("", "insert into chunks")):
        object_key = place.store(f"silent-{number}.md", f"{TEXT}\n\nThe silence of {number}.")
        with ExitStack() as after:
            after.callback(place.proxy.healthy)
            # Who waits without an end would never be told.
            rescue = threading.Timer(seconds + 5, place.proxy.reset)
            rescue.start()
            after.callback(rescue.cancel)
            after.enter_context(seen(place.proxy, lambda _, edge, at=statement: _silenced(place, edge, at.encode())))
            began = time.monotonic()
            left[statement] = not place.ingest(object_key, seconds=seconds)
            over[statement] = time.monotonic() - began - seconds
            rescued += rescue.finished.is_set()
            assert place.proxy.silent, statement
        assert place.ingest(object_key, receives=2), statement
    wrong = place.wrong()
    record_fault(
        "C3",
        injected=len(left),
        violations=len(wrong) + rescued + list(left.values()).count(False),
        figure=f"ingest ended {max(over.values()):+.2f} s from its time-out, ready at the next delivery",
    )
    assert (wrong, rescued, all(left.values())) == ([], 0, True)


def _silenced(place: Place, edge: Edge, statement: bytes) -> bool:
    place.proxy.silent |= statement in edge.data
    return True


def _asked(place: Place, hinder: Hindrance, limit: float) -> list[tuple[int, float]]:
    """What was asked meanwhile: once, and again where the machine may have had other work than to end it in time."""
    tries: list[tuple[int, float]] = []
    enough = limit + ALLOWED
    while len(tries) < TRIES and all(took > enough for _, took in tries):
        with ExitStack() as after:
            after.callback(place.proxy.healthy)
            # Who waits without an end would never be told.
            rescue = threading.Timer(enough + 2, place.proxy.reset)
            rescue.start()
            after.callback(rescue.cancel)
            place.deployment.settings["RAG_REQUEST_SECONDS"] = f"{limit}"
            after.callback(place.deployment.settings.pop, "RAG_REQUEST_SECONDS")
            with hinder(place, after):
                tries.append(place.ask())
        assert place.ask()[0] == 200
    return tries


def _in_the_search(hinder: Callable[[Place, ExitStack], None]) -> Hindrance:
    def hindering(place: Place, after: ExitStack) -> AbstractContextManager[Any]:
        def see(_: int, edge: Edge) -> bool:
            if b"search(" in edge.data:
                hinder(place, after)
            return True

        return seen(place.proxy, see)

    return hindering


def _from_the_start(place: Place, _: ExitStack) -> AbstractContextManager[Any]:
    place.proxy.silent = True
    return nullcontext()


def stopped(place: Place, after: ExitStack) -> None:
    """The backend that is about to answer, as by SIGSTOP."""
    [(pid,)] = place.rows(
        "select pid from pg_stat_activity where usename = 'rag_query' and datname = current_database()"
    )
    os.kill(pid, signal.SIGSTOP)
    after.callback(os.kill, pid, signal.SIGCONT)


def silent(place: Place, after: ExitStack) -> None:
    place.proxy.silent = True


def dripping(place: Place, after: ExitStack) -> None:
    place.proxy.bytes_per_second = 100


HINDRANCES: dict[str, Hindrance] = {
    "a stopped backend": _in_the_search(stopped),
    "a silent network": _in_the_search(silent),
    "a dripping network": _in_the_search(dripping),
    "silent from the start": _from_the_start,
}


@pytest.mark.faults_full
def test_a_server_that_only_reads_loses_no_write(place: Place, record_fault: Any) -> None:
    """25006, as of a primary that was demoted while nobody looked."""
    assert place.ingest(place.store("before.md"))
    name = place.deployment.database.name
    place.administer(f"alter database {name} set default_transaction_read_only = on")
    keys = [place.store(f"meanwhile-{number}.md") for number in range(3)]
    left = [key for key in keys if not place.ingest(key)]
    reads = [place.ask()[0] for _ in range(3)]
    with psycopg.connect(place.deployment.database.superuser_dsn(), autocommit=True) as connection:
        connection.execute("set default_transaction_read_only = off")
        connection.execute(f"alter database {name} reset default_transaction_read_only".encode())
    ready = [place.ingest(key, receives=2) for key in left]
    wrong = place.wrong()
    record_fault(
        "C2",
        injected=len(keys),
        violations=len(wrong) + ready.count(False) + sum(status != 200 for status in reads),
        figure=f"{len(left)} writes left to the queue, {reads.count(200)} of {len(reads)} reads answered",
    )
    assert (len(left), ready, reads, wrong) == (3, [True] * 3, [200] * 3, [])


@pytest.mark.faults_fast
def test_a_connection_that_died_while_nobody_used_it_fails_no_first_statement(place: Place, record_fault: Any) -> None:
    assert place.ingest(place.store("before.md"))
    failed = 0
    with closing(Database(place.url("rag_query"), lambda: "")) as database:
        for number in range(20):
            place.proxy.reset()
            if number % 2:
                place.proxy.refuse()
                place.proxy.accept()
            try:
                assert database.read(Scope(place.deployment.tenant), lambda transaction: transaction.rows("alive"))
            except Exception:  # noqa: BLE001 (counted)
                failed += 1
    record_fault("C6", injected=20, violations=failed, figure=f"failed first queries {failed} of 20 (0)")
    assert failed == 0


@pytest.mark.faults_fast
@pytest.mark.parametrize("direction", ["request", "reply"])
def test_what_a_call_came_to_is_never_counted_as_less_when_a_settlement_is_cut(
    place: Place, direction: str, record_fault: Any
) -> None:
    tenant, calls = place.deployment.tenant, 5
    settles, cut = False, False

    def see(_: int, edge: Edge) -> bool:
        nonlocal settles, cut
        if edge.direction == "request":
            settles = b"settle_usage(" in edge.data
        if cut or not settles or edge.direction != direction:
            return True
        cut = True
        return False

    with closing(Database(place.url("rag_query"), lambda: "")) as database:
        usage = UsageStore(database, Budgets(tokens_per_day=1_000_000))
        for _ in range(calls):
            day = usage.reserve(tenant, "key:one", "chat", prompt_tokens=100, completion_tokens=0).day
            cut = False
            with seen(place.proxy, see):
                usage.settle(Settlement(tenant, "key:one", "chat", day, 0, -60, 0))
            assert cut
    [(counted,)] = place.rows("select sum(prompt_tokens)::int from model_usage")
    record_fault(
        "C6", injected=calls, violations=counted < 40 * calls, figure=f"{counted} tokens counted of {40 * calls} used"
    )
    assert counted == (40 if direction == "reply" else 100) * calls


@pytest.mark.faults_full
def test_a_slow_network_costs_time_and_nothing_else(place: Place, record_fault: Any) -> None:
    assert place.ingest(place.store("before.md"))
    place.proxy.latency_seconds = 0.1  # each way
    asked = [place.ask() for _ in range(5)]
    ready = place.ingest(place.store("slow.md"))
    place.proxy.healthy()
    wrong = place.wrong()
    bad = sum(status != 200 for status, _ in asked) + (not ready) + len(wrong)
    slowest = max(took for _, took in asked)
    record_fault(
        "C4", injected=len(asked) + 1, violations=bad, figure=f"200 ms a round trip: slowest search {slowest:.1f} s"
    )
    assert bad == 0


@pytest.mark.faults_fast
def test_no_connection_left_for_a_role_is_a_503_and_a_message_that_comes_again(place: Place, record_fault: Any) -> None:
    """53300, here by the role's own limit."""
    assert place.ingest(place.store("before.md"))
    object_key = place.store("meanwhile.md")
    place.administer("alter role rag_query connection limit 0")
    place.administer("alter role rag_ingest connection limit 0")
    try:
        asked = [place.ask()[0] for _ in range(5)]
        left = not place.ingest(object_key)
    finally:
        place.administer("alter role rag_query connection limit -1")
        place.administer("alter role rag_ingest connection limit -1")
    after, ready = place.ask()[0], place.ingest(object_key, receives=2)
    wrong = place.wrong()
    bad = sum(status != 503 for status in asked) + (after != 200) + (not left) + (not ready) + len(wrong)
    record_fault("C5", injected=6, violations=bad, figure=f"{asked.count(503)} of 5 questions 503, 1 document later")
    assert bad == 0, (asked, after, left, ready, wrong)


@pytest.mark.faults_full
@pytest.mark.parametrize(("code", "times"), [("40P01", 1), ("40001", 1), ("40P01", 9)])
def test_a_deadlock_or_a_serialization_failure_is_repeated_and_then_left_to_the_queue(
    place: Place, code: str, times: int, record_fault: Any
) -> None:
    """Raised by the server itself, in the last statement before the commit."""
    place.administer(f"""
        create sequence failures;
        grant usage on sequence failures to public;
        create function fail() returns trigger language plpgsql as $$ begin
          if nextval('failures') <= {times} then raise exception 'scripted' using errcode = '{code}'; end if;
          return new;
        end $$;
        create trigger fail before insert on collection_statistics for each row execute function fail();
    """)
    object_key = place.store("contended.md")
    receives, done = 0, False
    while not done and receives < 5:
        receives += 1
        done = place.ingest(object_key, receives=receives)
    [(tries,)] = place.rows("select last_value from failures")
    place.administer("drop trigger fail on collection_statistics; drop function fail; drop sequence failures")
    wrong = [each for each in place.wrong() if "times ready" not in each or "1 times" not in each]
    record_fault(
        "C7",
        injected=times,
        violations=len(wrong) + (not done) + (tries > 3 * receives),
        figure=f"{code} {times} times: {tries} tries in {receives} deliveries (≤ 3 each)",
    )
    assert done
    assert wrong == []
    assert tries <= 3 * receives


@pytest.mark.faults_full
def test_whoever_waits_behind_a_migration_waits_for_five_seconds_at_most(place: Place, record_fault: Any) -> None:
    assert place.ingest(place.store("before.md"))
    object_key = place.store("meanwhile.md")
    with psycopg.connect(place.deployment.database.superuser_dsn()) as migration:
        migration.execute("lock table documents in access exclusive mode")
        began = time.monotonic()
        left = not place.ingest(object_key)
        waited = time.monotonic() - began
        status, asked = place.ask()
    ready = place.ingest(object_key, receives=2)
    wrong = place.wrong()
    bad = (not left) + (not ready) + (status != 503) + len(wrong)
    record_fault(
        "C8",
        injected=2,
        violations=bad,
        figure=f"ingest gave way after {waited:.1f} s, a search by 503 after {asked:.1f} s",
    )
    assert (left, ready, status, wrong) == (True, True, 503, [])
    assert max(waited, asked) < 20


@pytest.mark.faults_fast
def test_no_statement_leaves_anything_in_the_session(place: Place, record_fault: Any) -> None:
    """What RDS Proxy would pin a session for, in all that a life of documents and questions sends to the server."""
    name = place.deployment.database.name
    place.administer(f"alter database {name} set log_statement = 'all'")
    for number in range(3):
        assert place.ingest(place.store(f"{number}.md"))
        assert place.ingest(place.store(f"{number}.md", TEXT + f"More of {number}."))
        assert place.ask()[0] == 200
    object_key = place.store("gone.md")
    assert place.ingest(object_key)
    place.deployment.s3.delete_object(Bucket=BUCKET, Key=object_key)
    assert place.ingest(object_key)
    for method, path in (("GET", "/v1/documents"), ("GET", "/v1/collections"), ("GET", "/health")):
        place.deployment.ask(method, path, database_url=place.url("rag_query"))
    log = place.deployment.database.server.log.read_text(errors="replace")
    said = re.findall(
        rf"@{name} LOG:\s+(?:statement|execute [^:]*): (.*?)(?=^\d{{4}}-|\Z)", log, re.DOTALL | re.MULTILINE
    )
    ours = [each for each in said if "default_transaction_read_only" not in each]
    pinning = re.compile(
        r"^\s*(set\s+(?!local\b)|prepare|deallocate|listen|discard|declare|create\s+(local\s+|global\s+)?temp)"
        r"|\bpg(_try)?_advisory_lock\b|\bset_config\([^()]*,\s*false\s*\)|\bwith\s+hold\b",
        re.IGNORECASE,
    )
    offending = [part for each in ours for part in each.split(";") if pinning.search(part)]
    record_fault(
        "C11",
        injected=len(ours),
        violations=len(offending),
        figure=f"{len(ours)} statements of a log, {len(offending)} offending",
    )
    assert offending == []
    assert len(ours) > 50


@pytest.mark.faults_full
def test_a_client_cut_off_in_mid_transaction_leaves_no_lock(place: Place, record_fault: Any) -> None:
    """As `kill -9` of its machine: the server hears of it by the reset."""
    object_key = place.store("cut.md")
    with seen(place.proxy, lambda _, edge: b"with gone as" not in edge.data):
        place.ingest(object_key)
    ours = "database = (select oid from pg_database where datname = current_database())"
    held = place.rows(f"select pid from pg_locks where locktype = 'advisory' and {ours}")
    ready = place.ingest(object_key, receives=2)
    wrong = place.wrong()
    record_fault("B5", injected=1, violations=len(held) + len(wrong) + (not ready), figure=f"locks left {len(held)}")
    assert (held, ready, wrong) == ([], True, [])
