"""The door itself: bodies, headers, methods, origins, names of requests, and what errors give away."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from functions.query import telemetry
from functions.query.api import app
from functions.table import PUBLIC
from local.asgi import Server, listen
from local.authorizer import Authorizer
from local.gateway import Gateway, Refused, problem
from local.lambda_runtime import Invocation
from local.plan import of_the_table
from rag.answer_headers import ON_EVERY_ANSWER, POLICY
from tests import fake_model
from tests.integration.deployment import Deployment, sample
from tests.malformed import OTHER_TYPES, REFUSED
from tests.security.knocking import JSON_BODY, UNLIMITED, Answer, Door, open_door, slowness

Record = Callable[..., None]

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = [
    (method.upper(), path, operation)
    for path, operations in app.openapi()["paths"].items()
    for method, operation in operations.items()
]
TAKING_BODIES = [(method, path) for method, path, operation in OPERATIONS if "requestBody" in operation]
ABSENT = "00000000-0000-5000-8000-000000000000"
MOST_SECONDS = 0.05


def filled_in(path: str) -> str:
    """The path of what is not there."""
    absent = {"key_id": "aB3dE5gH", "name": "absent"}
    return re.sub(r"\{(\w+)\}", lambda found: absent.get(found[1], ABSENT), path)


# I4


def _tried(send: Callable[[], Answer], most_seconds: float) -> list[Answer]:
    """Until it is quick: on a busy machine one that takes long may have been kept waiting."""
    tries = [send()]
    while tries[-1].seconds > most_seconds and len(tries) < 8:
        tries.append(send())
    return tries


def test_what_is_no_body_is_refused_before_it_costs_anything(deployment: Deployment, record_attack: Record) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    attacks: list[tuple[str, dict[str, str], bytes, set[int]]] = [
        (what, JSON_BODY, body, {status}) for what, body, status in REFUSED
    ]
    attacks += [(f"type {each!r}", {"content-type": each}, b"{}", {415}) for each in OTHER_TYPES]
    attacks += [
        (f"{each} bomb", {**JSON_BODY, "content-encoding": each}, bomb, {415}) for each in ("gzip", "br", "gzip, gzip")
    ]
    attacks += [
        (f"text {each!r}", JSON_BODY, json.dumps({name: each}).encode(), {400, 413, 422})
        for each in ("a\0b", "\ud800", "\udfff\ud800", "x" * 500_000)
        for name in ("query", "question", "key", "name")
    ]
    accepted, slowest, worst = [], 0.0, ""
    most = MOST_SECONDS * slowness()
    with open_door(deployment) as door:
        for method, path in TAKING_BODIES:
            for what, headers, body, statuses in attacks:
                tries = _tried(lambda: door.send(method, filled_in(path), headers=headers, body=body), most)  # noqa: B023 (now)
                slowest, worst = max((slowest, worst), (min(each.seconds for each in tries), what))
                if not all(each.status in statuses and each.is_problem for each in tries):
                    accepted.append((path, what, tries[0].status, tries[0].text[:200]))
        for text in ("a%00b", "%ff", "%ed%a0%80", "%c0%ae%c0%ae", "..%2f..%2f"):
            for method, path, _ in OPERATIONS:
                if "{" in path:
                    answer = door.send(method, path.partition("{")[0] + text)
                    if answer.status not in {400, 404, 405, 422} or not answer.is_problem:
                        accepted.append((path, text, answer.status, answer.text[:200]))
    tried = len(TAKING_BODIES) * len(attacks) + 5 * sum("{" in path for _, path, _ in OPERATIONS)
    record_attack(
        "I4",
        tried=tried,
        succeeded=len(accepted),
        figure=f"each refused with 4xx; the slowest ({worst}) after {slowest * 1000:.0f} ms of the processor",
    )
    assert accepted == []
    assert slowest <= 2 * most  # the processor itself is slower beside others


# I6


def test_fifty_at_once_have_one_effect(deployment: Deployment, record_attack: Record) -> None:
    with open_door(deployment) as door, ThreadPoolExecutor(50) as pool:

        def at_once(bodies: list[Any], key: str) -> list[Answer]:
            together = threading.Barrier(len(bodies))

            def one(body: Any) -> Answer:
                together.wait()
                # The database here has fewer connections than clients come at once: who gets none tries again.
                tries = (door.beside_others("POST", "/v1/keys", body, **{"idempotency-key": key}) for _ in range(50))
                return next(answer for answer in tries if answer.status != 503)

            return list(pool.map(one, bodies))

        same = at_once([{"name": "made once"}] * 50, "same")
        other = at_once([{"name": f"other {number}"} for number in range(50)], "other")
        late = [door.beside_others("POST", "/v1/keys", {"name": name}, **{"idempotency-key": key})
                for name, key in (("made once", "same"), ("made twice", "same"))]  # fmt: skip
        free = door.beside_others("POST", "/v1/keys", {"name": "made once"}, **{"idempotency-key": "another"})
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        made = dict(connection.execute("select name, count(*) from api_keys group by name").fetchall())
        kept = connection.execute("select count(*) from idempotent_requests where body is not null").fetchone()
    others = sum(count for name, count in made.items() if name.startswith("other"))
    refused = {answer.status for answer in (*same, *other) if answer.status != 201}
    waiting = [answer for answer in same if answer.status == 409 and "retry-after" in answer.headers]
    effects = made["made once"] - 2 + others - 1 + made.get("made twice", 0)
    record_attack(
        "I6",
        tried=len(same) + len(other) + len(late),
        succeeded=effects,
        figure=f"50 at once made 1 key, {len(waiting)} were told to wait; 50 of one name and different bodies made 1",
    )
    assert effects == 0
    assert [sum(answer.status == 201 for answer in each) for each in (same, other)] == [1, 1]
    assert refused <= {409, 422}
    assert [answer.status for answer in (*late, free)] == [409, 422, 201]
    assert kept == (0,), "a secret that is shown once was kept"


# I7


ORIGINS = ["https://app.example.org", "https://xn--bcher-kva.example"]
STRANGERS = [
    *("https://evil.com", "null", "https://sub.app.example.org", "https://appxexample.org", "http://app.example.org"),
    *("https://app.example.org.evil.com", "https://evilapp.example.org", "https://app.example.org:444", "file://"),
    *(
        "https://APP.example.org",
        "https://app.example.org/",
        "https://app.example.org@evil.com",
        "https://bücher.example",
    ),
    *("https://app.example.org https://evil.com", "*", "https://app.example.org%2eevil.com", "https://app.example.or"),
]


def test_no_page_of_a_stranger_may_read_an_answer(deployment: Deployment, record_attack: Record) -> None:
    tried, allowed = 0, []
    with open_door(deployment, cors_origins=json.dumps(ORIGINS)) as door:
        for method, path, _ in OPERATIONS:
            for origin in STRANGERS:
                asking = {"origin": origin, "access-control-request-method": method}
                for answer in (
                    door.send("OPTIONS", filled_in(path), headers=asking),
                    door.send("GET", filled_in(path), headers={"origin": origin}),
                ):
                    tried += 1
                    if {"access-control-allow-origin", "access-control-allow-credentials"} & set(answer.headers):
                        allowed.append((origin, path, answer.headers))
        for origin in ORIGINS:
            answer = door.send("GET", "/v1/collections", headers={"origin": origin})
            assert answer.headers["access-control-allow-origin"] == origin
            assert "access-control-allow-credentials" not in answer.headers
    figure = f"{len(STRANGERS)} origins; credentials are allowed to nobody"
    record_attack("I7", tried=tried, succeeded=len(allowed), figure=figure)
    assert allowed == []


# I8


def test_no_answer_is_without_the_headers_of_security(deployment: Deployment, record_attack: Record) -> None:
    asked = [(method, filled_in(path)) for method, path, _ in OPERATIONS]
    asked += [("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/"), ("PUT", "/health"), ("HEAD", "/health")]
    asked += [("OPTIONS", "/v1/search")]
    with open_door(deployment) as door:
        answers = [(path, door.send(method, path, body=b"{}").headers) for method, path in asked]
    # What the gateway answers itself; that AWS's says the same is tested with the templates.
    answers += [("gateway", dict(problem(Refused(status, "no"), "1").headers)) for status in (401, 404, 413, 503)]
    missing = [
        (path, name)
        for path, headers in answers
        for name, value in ON_EVERY_ANSWER.items()
        if headers.get(name) != value and not (path == "/docs" and name == POLICY and value in headers[name])
    ]
    telling = [
        (path, name) for path, headers in answers for name in ("server", "x-powered-by", "via") if name in headers
    ]
    record_attack(
        "I8",
        tried=len(answers) * len(ON_EVERY_ANSWER),
        succeeded=len(missing) + len(telling),
        figure=f"{len(answers)} answers x {len(ON_EVERY_ANSWER)} headers",
    )
    assert (missing, telling) == ([], [])


# I9


class _Handled:
    """A function of the deployment, called as a sandbox would be: by one at a time."""

    def __init__(self, handle: Callable[[Any], Any]) -> None:
        self._handle = handle
        self._turn = asyncio.Lock()

    async def invoke(self, payload: bytes, *, trace_id: str | None = None, recipient: Any = None) -> Invocation:
        async with self._turn:
            try:
                told = await asyncio.get_running_loop().run_in_executor(None, self._handle, json.loads(payload))
            except Exception as error:  # noqa: BLE001 (as Lambda reports it)
                return Invocation("1", json.dumps({"errorMessage": str(error)}).encode(), "Unhandled", 0)
        return Invocation("1", json.dumps(told).encode(), None, 0)


def _query(event: Any) -> Any:
    from functions.query.handler import handler
    from tests.integration.deployment import Context

    return handler(event, Context())


def _verdict(tenant: Any) -> Callable[[Any], Any]:
    def authorize(event: Any) -> Any:
        if event["headers"].get("x-api-key") != "good":
            raise Exception("Unauthorized")  # noqa: TRY002 (what API Gateway looks for)
        statement = {"Action": "execute-api:Invoke", "Effect": "Allow", "Resource": "*"}
        context = sample("query/search.json")["requestContext"]["authorizer"]
        told = {name: value for name, value in context.items() if name != "integrationLatency"}
        return {
            "principalId": "key:aB3dE5gH",
            "policyDocument": {"Version": "2012-10-17", "Statement": [statement]},
            "context": {**told, "tenant_id": str(tenant), "role": "reader"},
        }

    return authorize


@asynccontextmanager
async def _gateway(tenant: Any) -> AsyncIterator[int]:
    functions = {"query": _Handled(_query), "answer": _Handled(_query)}
    routes = [route for route in of_the_table().routes if not route.streams]
    door = listen()
    server = Server(
        Gateway(functions, routes, Authorizer(_Handled(_verdict(tenant)), cache_seconds=60)), grace_seconds=1
    )
    await server.open([door])
    try:
        yield door.getsockname()[1]
    finally:
        await server.close()


@pytest.fixture
def gate(deployment: Deployment) -> Iterator[Gate]:
    """A port that takes requests as they are written: (status, head, body)."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    context = _gateway(deployment.tenant)
    with deployment.function("rag_query", **UNLIMITED):
        port = asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result(30)

        def send(line: str, *headers: str, body: str = "") -> tuple[int, str, str]:
            head = [f"{line} HTTP/1.1", *headers, f"Content-Length: {len(body)}", "Connection: close"]
            with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                connection.sendall("\r\n".join([*head, "", body]).encode("latin-1"))
                received = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
            top, _, rest = received.partition("\r\n\r\n")
            return int(top.split()[1]), top, rest

        yield send
        asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


SPELLINGS = [
    *("//v1/documents", "/v1//documents", "/v1/documents/", "/V1/documents", "/v1/documents;a=b", "/v1/documents%2f"),
    *("/v1%2Fdocuments", "/health/../v1/documents", "/health/%2e%2e/v1/documents", "/docs/..%2fv1/documents"),
    *("/health;/v1/documents", "/health%00/v1/documents", "/./v1/documents", "/v1/./documents", "/v1/documents%20"),
    *("/v1/documents%09", "\\v1\\documents", "/%76%31/documents", "/openapi.json/../v1/documents", "*", "v1/documents"),
    *(
        "http://evil.example/v1/documents",
        "http://127.0.0.1/v1/documents",
        "http://evil.example/health/../v1/documents",
    ),
    *("/health/v1/documents", "/ready#/v1/documents", "/health?/v1/documents/..", "/v1/documents?x=/health"),
]
OVERRIDES = ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "_method"]
SPOOFS = [
    *(
        "X-Forwarded-Host: evil.example",
        "X-Forwarded-Proto: gopher",
        "X-Forwarded-For: 127.0.0.1",
        "X-Real-IP: 127.0.0.1",
    ),
    *("Forwarded: for=127.0.0.1;host=evil.example", "X-Original-URL: /health", "X-Rewrite-URL: /health"),
    *(
        "X-Forwarded-Prefix: /evil",
        "X-Forwarded-Port: 1",
        "X-Amzn-Request-Context: {}",
        "X-Tenant-Id: 1",
        "X-Role: admin",
    ),
    *("X-Original-Method: DELETE", "X-Forwarded-Uri: /health", "X-Custom-IP-Authorization: 127.0.0.1"),
]


HOST = "Host: api.example.com"
KEY = "x-api-key: good"
SECRET = "a-file-that-is-there.txt"
Gate = Callable[..., tuple[int, str, str]]
# What was tried, and whether it led to something that it should not.
Tried = Iterator[tuple[Any, bool]]


def _spelt(gate: Gate) -> Tried:
    for method in ("GET", "HEAD", "POST", "OPTIONS", "DELETE", "TRACE", "PROPFIND", "get"):
        for path in SPELLINGS:
            status, head, body = gate(f"{method} {path}", HOST)
            public = any(path.startswith(each) for each in PUBLIC) and status == 200
            shown = SECRET in body or "location:" in head.lower()
            yield (method, path, status, body[:100]), shown or status >= 500 or (status < 400 and not public)


def _overridden(gate: Gate, document: str) -> Tried:
    for header in OVERRIDES:
        for method in ("DELETE", "PUT", "GET"):
            for verb, wanted in (("GET", 200), ("POST", 405)):
                status, _, body = gate(f"{verb} /v1/documents/{document}", HOST, KEY, f"{header}: {method}")
                yield (header, verb, method, status, body[:100]), status != wanted


def _spoofed(gate: Gate, document: str) -> Tried:
    for line in SPOOFS:
        status, _, _ = gate("GET /v1/documents", HOST, line)
        yield (line, status), status != 401
        status, head, body = gate(f"DELETE /v1/documents/{document}", HOST, KEY, line)
        yield (line, status, body), status != 403 or "evil" in head + body


def _misnamed(gate: Gate) -> Tried:
    for name in ("evil.example", "localhost", "127.0.0.1:1", "api.example.com.evil.example", "a" * 200):
        for path in ("/openapi.json", "/docs", "/v1/documents", "/v1/documents/", "/nothing"):
            status, head, body = gate(f"GET {path}", f"Host: {name}", KEY)
            yield (path, name, status), name in head + body or "location:" in head.lower() or status >= 500


def test_no_spelling_of_a_request_goes_round_who_may_ask_what(
    deployment: Deployment, gate: Gate, record_attack: Record
) -> None:
    with psycopg.connect(deployment.database.superuser_dsn(), autocommit=True) as connection:
        connection.execute(
            "insert into documents (tenant_id, id, collection_id, key, status) "
            "select tenant_id, gen_random_uuid(), id, %s, 'processing' from collections where tenant_id = %s",
            [SECRET, deployment.tenant],
        )
        [(document,)] = connection.execute("select id from documents").fetchall()
        status, _, body = gate("GET /v1/documents", HOST, KEY)
        assert (status, SECRET in body) == (200, True)
        tried = [*_spelt(gate), *_overridden(gate, document), *_spoofed(gate, document), *_misnamed(gate)]
        left = connection.execute("select (select count(*) from documents), (select count(*) from erasures)").fetchone()
    through = [what for what, wrong in tried if wrong]
    figure = (
        f"{len(SPELLINGS)} spellings x 8 methods, {len(OVERRIDES)} overrides, {len(SPOOFS)} forwarded headers, 5 hosts"
    )
    record_attack("I9", tried=len(tried), succeeded=len(through), figure=figure)
    assert through == []
    assert left == (1, 0)


# I10

CANARY = "canary-7c1f"
INSIDE = [
    CANARY,
    "Traceback",
    'File "',
    "psycopg",
    "botocore",
    str(ROOT),
    "/site-packages/",
    "select ",
    "SELECT ",
    "127.0.0.1",
]


UNLOGGED = [CANARY, "Traceback", 'File "', "LINE 1", "select ", "SELECT ", "river"]


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the functions write to their log from here on."""
    written = io.StringIO()
    handler: Any = telemetry.logger.registered_handler
    before = handler.setStream(written)
    yield written
    handler.setStream(before)


def test_no_error_of_any_layer_tells_of_the_inside(
    deployment: Deployment, record_attack: Record, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.put("one.txt", "A note about rivers.")
    document = deployment.documents()["one.txt"]["id"]
    deployment.model.says = "A note about rivers. [1]"
    dead = f"postgresql://rag_query:{CANARY}@127.0.0.1:1/rag"
    refused = deployment.database.dsn("rag_query").replace(deployment.database.passwords["rag_query"], CANARY)
    answers: list[tuple[str, Answer]] = []

    def ask(layer: str, **settings: str) -> None:
        with deployment.function("rag_query", **UNLIMITED, **settings):
            door = Door(deployment.tenant)
            for method, path, operation in OPERATIONS:
                example = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
                body = None if example is None else json.dumps(example).encode()
                where = path.replace("{document_id}", document) if method == "GET" else filled_in(path)
                answers.append((f"{layer}: {method} {path}", door.send(method, filled_in(where), body=body)))

    ask("database down", database_url=dead)
    ask("login refused", database_url=refused)
    ask("model down", model_url=f"http://127.0.0.1:1/{CANARY}")
    ask("cache down", redis_url=f"redis://:{CANARY}@127.0.0.1:1/0")
    ask("storage down", bucket=CANARY)
    deployment.model.script = [fake_model.status(500)] * 40
    ask("model failing")
    deployment.model.script = []
    with monkeypatch.context() as patch:

        def broken(*_: object, **__: object) -> None:
            raise RuntimeError(f"SELECT '{CANARY}' FROM {ROOT}/store.py")

        for place in ("read", "write", "by_statement", "query"):
            patch.setattr(f"rag.store.database.Database.{place}", broken)
        ask("bug")
        patch.setattr("rag.wiring.throttle", broken)
        ask("bug before the routes")
    import redis

    with redis.Redis.from_url(deployment.settings["RAG_REDIS_URL"]) as cache:
        ask("cache filled")
        for key in cache.keys("*"):
            cache.delete(key)
            cache.set(key, f'{{"{CANARY}": '.encode() + b"\xff" * 100)
    ask("cache garbage")
    with psycopg.connect(deployment.database.superuser_dsn(), autocommit=True) as connection:
        for table in ("documents", "conversations", "api_keys", "erasures"):
            connection.execute(f"alter table {table} rename to {table}_moved_{CANARY[-4:]}".encode())
    ask("schema broken")
    errors = [(layer, answer) for layer, answer in answers if answer.status >= 400]
    leaks = [(layer, word, answer.text) for layer, answer in errors for word in INSIDE if word in answer.text]
    odd = [(layer, answer.text) for layer, answer in errors if not _told(layer, answer)]
    lines = [line for line in log.getvalue().splitlines() if any(word in line for word in UNLOGGED)]
    failed = sum(answer.status >= 500 for _, answer in answers)
    record_attack(
        "I10",
        tried=len(answers),
        succeeded=len(leaks) + len(odd) + len(lines),
        figure=f"10 layers, {failed} answers of 5xx; {len(INSIDE)} words looked for, {len(UNLOGGED)} in the log",
    )
    assert "dependency failed" in log.getvalue()
    assert "unforeseen" in log.getvalue()
    assert leaks == []
    assert odd == []
    assert lines == []
    assert failed > len(OPERATIONS)


def _told(layer: str, answer: Answer) -> bool:
    """A problem; of health it is the state that is told."""
    return answer.is_problem or layer.endswith(("/health", "/ready"))
