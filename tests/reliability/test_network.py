"""Between the functions and PostgreSQL: cut, silent, slow, full, read-only, stale. Nothing is lost, nothing twice."""

from __future__ import annotations

import math
import os
import random
import re
import secrets
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from local.postgres import Postgres
from rag import migrations
from rag.settings import Settings
from rag.spending import Budgets, Settlement
from rag.store.database import Database
from rag.store.usage import UsageStore
from rag.types import Scope
from rag.wiring import LAST_SECONDS
from tests.integration.deployment import BUCKET, Deployment, deployed, notification
from tests.lexeme_counts import LEXEME_COUNTS
from tests.reliability.askers import Event, ask_at_once
from tests.reliability.proxy import Edge, Proxy, proxying

DONE: dict[str, Any] = {"batchItemFailures": []}
TEXT = "\n\n".join(
    f"# Chapter {n}\n\n" + f"The trains of chapter {n} go on and on about rails. " * 12 for n in range(3)
)

# Seconds beyond its deadline that a request may take (RELIABILITY, C3), and how often it may be tried to.
ALLOWED, TRIES = 0.25, 4
# For a connection libpq waits two seconds at least; the rest is what many processes at once cost two cores.
LENIENT, SHORT = 4.0, 3.0
SLOW_CALLERS, SLOW_QUESTIONS, MODES = 12, 4, ("lexical", "hybrid", "dense")
CALLERS, CALLS, MOST_CONNECTIONS = 50, 2, 10


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


def questions(deployment: Deployment, caller: int, count: int) -> list[Event]:
    """Searches and questions in turn, of which the cache knows none."""
    return [
        deployment.event("POST", "/v1/query", {"question": f"What do trains of caller {caller} do, and of {number}?"})
        if number % 4 == 3
        else deployment.event("POST", "/v1/search", {"query": f"trains {caller} {number}", "mode": MODES[number % 4]})
        for number in range(count)
    ]


def percentile(seconds: list[float], part: float) -> float:
    return sorted(seconds)[math.ceil(part * len(seconds)) - 1]


@pytest.mark.faults_full
def test_a_slow_network_that_loses_segments_costs_time_and_nothing_else(
    place: Place, seed: int, record_fault: Any
) -> None:
    """200 ms a round trip, 10 kB/s a connection, a segment of a hundred lost: to PostgreSQL, the model and Valkey."""
    settings = place.deployment.settings
    assert place.ingest(place.store("before.md"))
    model, valkey = (urlsplit(settings[name]).port or 0 for name in ("RAG_MODEL_URL", "RAG_REDIS_URL"))
    with proxying(model) as to_model, proxying(valkey) as to_valkey:
        proxies = place.proxy, to_model, to_valkey
        for number, proxy in enumerate(proxies):
            proxy.latency_seconds, proxy.bytes_per_second = 0.1, 10_000
            proxy.loss, proxy.chance = 0.01, random.Random(f"{seed} {number}")
        through = {
            "RAG_DATABASE_URL": place.url("rag_query"),
            "RAG_MODEL_URL": settings["RAG_MODEL_URL"].replace(f":{model}", f":{to_model.port}"),
            "RAG_REDIS_URL": settings["RAG_REDIS_URL"].replace(f":{valkey}", f":{to_valkey.port}"),
        }
        # What ends a request, and what it leaves of the time that Lambda gives it.
        limits = [SHORT if caller % 4 == 3 else Settings().request_seconds for caller in range(SLOW_CALLERS)]
        asked = [
            (limit + LAST_SECONDS, questions(place.deployment, caller, SLOW_QUESTIONS))
            for caller, limit in enumerate(limits)
        ]
        callers = ask_at_once(settings | through, asked)
        lost = sum(proxy.lost for proxy in proxies)
        slow = place.store("slow.md")
        settings["RAG_MODEL_URL"] = through["RAG_MODEL_URL"]
        ready = place.ingest(slow)
    answers = [answer for caller in callers for answer in caller.answers]
    took = [answer.seconds for answer in answers]
    over = max(answer.seconds - limit for limit, one in zip(limits, callers, strict=True) for answer in one.answers)
    degraded = sum(answer.degraded is not None for answer in answers)
    errors = [answer for answer in answers if answer.status != 200]
    untyped = [answer for answer in errors if answer.status not in {503, 504} or not answer.problem]
    wrong = place.wrong()
    record_fault(
        "C4",
        injected=len(answers) + 1,
        violations=len(untyped)
        + (over > LENIENT)
        + sum(caller.ended != 0 for caller in callers)
        + (not ready)
        + len(wrong),
        figure=f"200 ms, 1 % loss ({lost} segments), 10 kB/s: p99 {percentile(took, 0.99):.1f} s, p50 "
        f"{percentile(took, 0.5):.1f} s, longest {over:+.1f} s from its deadline of {SHORT:g} or {max(limits):g} s; "
        f"{len(answers) - len(errors)} answered, {degraded} of them degraded, {len(errors)} typed errors",
    )
    assert [caller.ended for caller in callers] == [0] * SLOW_CALLERS
    assert (untyped, ready, wrong) == ([], True, [])
    assert over <= LENIENT
    assert len(answers) == SLOW_CALLERS * SLOW_QUESTIONS
    assert lost > 0
    assert any(answer.status == 200 for answer in answers)


@pytest.fixture
def small(template_database: Any, aws: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A deployment on a server that has ten connections, three of them for superusers."""
    directory = tmp_path_factory.mktemp("servers") / "small"
    server = Postgres(directory, durable=False)
    server._settings = {**server._settings, "max_connections": f"{MOST_CONNECTIONS}"}
    server.start()
    try:
        owner = "rag_owner"
        passwords = {role: secrets.token_urlsafe(12) for role in (owner, "rag_admin", "rag_ingest", "rag_query")}
        server.create_database("rag", owner=owner, password=passwords[owner])
        database = replace(template_database, server=server, name="rag", passwords=passwords)
        migrations.migrate(database.dsn(owner))
        migrations.set_passwords(database.dsn(owner), {role: passwords[role] for role in passwords if role != owner})
        with deployed(database, aws, "") as made:
            yield made
    finally:
        server.stop()
        shutil.rmtree(directory)


@contextmanager
def counted_connections(server: Postgres) -> Iterator[list[int]]:
    """How many clients the server has, every hundredth of a second; whoever counts has a superuser's connection."""
    counts: list[int] = []
    over = threading.Event()

    def count() -> None:
        query = "select count(*) from pg_stat_activity where backend_type = 'client backend'"
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            while not over.wait(0.01):
                counts.extend(found for (found,) in connection.execute(query))

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield counts
    finally:
        over.set()
        thread.join()


@pytest.mark.faults_full
def test_fifty_callers_of_ten_connections_are_answered_or_told_to_come_again(
    small: Deployment, record_fault: Any
) -> None:
    """53300, of a real max_connections."""
    small.put("before.md", TEXT)
    server = small.database.server
    asked = [
        (29.0, [small.event("POST", "/v1/search", {"query": "trains", "mode": "lexical"})] * CALLS)
        for _ in range(CALLERS)
    ]
    with counted_connections(server) as counts:
        callers = ask_at_once(small.environment("rag_query"), asked, again=1)
    attempts = len(re.findall("FATAL:  (?:sorry, too many clients|remaining connection)", server.log.read_text()))
    answers = [answer for caller in callers for answer in caller.answers]
    refused = [answer for answer in answers if answer.status == 503 and answer.problem and answer.waits]
    answered = sum(answer.status == 200 for answer in answers)
    crashed = [caller.ended for caller in callers if caller.ended != 0]
    after = [answer.status for caller in callers for answer in caller.afterwards]
    held = max(answer.connections for answer in answers)
    record_fault(
        "C5",
        injected=len(answers),
        violations=len(answers) - answered - len(refused) + len(crashed) + CALLERS - after.count(200) + (held > 1),
        figure=f"{CALLERS} callers of max_connections {MOST_CONNECTIONS}: at most {max(counts)} connections, "
        f"{held} of a caller; {answered} answers, {len(refused)} times 503 with Retry-After after {attempts} attempts, "
        f"{len(crashed)} crashes; afterwards {after.count(200)} of {CALLERS} answered",
    )
    assert crashed == []
    assert answered + len(refused) == len(answers) == CALLERS * CALLS
    assert answered > 0
    assert len(refused) > 0
    assert attempts <= 3 * len(refused)  # one of another kind, and then two that look like a refused password
    assert after == [200] * CALLERS
    assert held == 1
    assert max(counts) <= MOST_CONNECTIONS


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
