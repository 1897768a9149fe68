"""No API key lets anybody in but a live one, whole, in the header that is meant for it; nothing keeps its secret."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
import redis

from functions.authorize.handler import handler
from local import authorizer, environment
from local.lambda_runtime import Invocation
from local.proxy_event import Request
from local.runtime_api import Recipient
from rag import calling, keys
from tests.integration.deployment import Context, Deployment, presenting

pytestmark = pytest.mark.slow

Headers = list[tuple[str, str]]


def verdict(event: Any) -> str:
    """Whose key the authorizer takes it for; Unauthorized, or the name of what it broke with."""
    try:
        return calling.caller(handler(event, Context())["context"]).principal
    except Exception as refused:  # noqa: BLE001 (whatever it breaks with is compared)
        return str(refused) if str(refused) == "Unauthorized" else repr(refused)


def changed(text: str, place: int) -> str:
    other = "a" if text[place] != "a" else "b"
    return text[:place] + other + text[place + 1 :]


def whole(key_id: str, secret: str) -> str:
    """With the checksum that an attacker who has read our code puts there."""
    body = f"rag_{key_id}.{secret}"
    return body + keys._checksum(body)


def malformed(key: str) -> dict[str, str]:
    """What is no key of ours, made of one that is."""
    key_id, secret = key[4:12], key[13:-6]
    return {
        "nothing": "",
        "cut at its end": key[:-1],
        "cut at its beginning": key[1:],
        "cut in the middle": key[:30] + key[31:],
        "without its checksum": key[:-6],
        "without its prefix": key.removeprefix("rag_"),
        "its id alone": key_id,
        "its prefix alone": key[:13],
        "its secret alone": secret,
        "one letter of the id": changed(key, 6),
        "one letter of the secret": changed(key, 20),
        "one letter of the checksum": changed(key, -1),
        "two letters in the other order": key[:20] + key[21] + key[20] + key[22:],
        "upper case": key.upper(),
        "lower case": key.lower(),
        "the other case": key.swapcase(),
        "twice": key + key,
        "twice, with a comma": f"{key},{key}",
        "a letter more": key + "A",
        "a NUL behind it": key + "\0",
        "a NUL within": key[:20] + "\0" + key[20:],
        "a line feed behind it": key + "\n",
        "a line feed and a header": key + "\r\nx-api-key: " + key,
        "a space within": key[:20] + " " + key[20:],
        "a no-break space": key + "\u00a0",
        "an ideographic space": "\u3000" + key,
        "a zero-width space": key[:20] + "\u200b" + key[20:],
        "a byte order mark": "\ufeff" + key,
        "full-width letters": "".join(chr(ord(letter) + 0xFEE0) for letter in key),
        "a Cyrillic letter that looks alike": key.replace("a", "\u0430", 1).replace("r", "\u0433", 1),
        "digits of another script": key[:4] + "\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668" + key[12:],
        "a full stop of another width": key.replace(".", "\uff0e"),
        "with a combining accent": key[:20] + "\u0301" + key[20:],
        "a lone surrogate": key[:20] + "\ud800" + key[21:],
        "percent-encoded": quote(key, safe="").replace(".", "%2E"),
        "in quotation marks": f'"{key}"',
        "as JSON": json.dumps([key]),
        "a pattern": "rag_%.%",
        "a longer pattern": f"rag_{key_id}.{'_' * 43}{key[-6:]}",
        "SQL": "rag_' or true--.x",
        "SQL in the place of the id": f"rag_' or 1=1.{secret}{key[-6:]}",
        "a megabyte": "rag_" + "A" * 1_000_000,
        "a megabyte behind it": key + "A" * 1_000_000,
        "its digest": keys.parse(key)[1].hex(),
        "null": "null",
        "undefined": "undefined",
    }


def well_formed(mine: str, other: str) -> dict[str, str]:
    """Prefix, length and checksum are right, and yet nobody gave it to anybody."""
    return {
        "never made": keys.new()[0],
        "of another stage": whole(mine[4:12], keys.new()[0][13:-6]),
        "an id with another tenant's secret": whole(mine[4:12], other[13:-6]),
        "another tenant's id with one's own secret": whole(other[4:12], mine[13:-6]),
        "the secret of zeros": whole(mine[4:12], "0" * 43),
        "another id with the secret": whole("00000000", mine[13:-6]),
        "one letter, with a new checksum": whole(mine[4:12], changed(mine[13:-6], 7)),
        "the id in the other case": whole(mine[4:12].swapcase(), mine[13:-6]),
    }


def elsewhere(key: str) -> dict[str, Any]:
    """A live key in a place where none is looked for."""
    by_query = {
        name: presenting()
        | {"queryStringParameters": {name: key}, "multiValueQueryStringParameters": {name: [key]}}
        | {"path": f"/v1/search?{name}={key}"}
        for name in ("x-api-key", "api_key", "apikey", "key", "token", "access_token", "authorization", "X-Api-Key")
    }
    by_header = {
        name: presenting((name, value))
        for name, value in (
            ("cookie", f"x-api-key={key}"),
            ("x-api-token", key),
            ("api-key", key),
            ("x_api_key", key),
            ("proxy-authorization", f"Bearer {key}"),
            ("referer", f"https://example.com/?x-api-key={key}"),
            ("authorization", key),
            ("Authorization", f"Basic {key}"),
            ("AUTHORIZATION", f"Bearer{key}"),
            ("authorization ", f"Bearer {key}"),
            ("x-forwarded-authorization", f"Bearer {key}"),
        )
    }
    body = {"in the body": presenting() | {"body": json.dumps({"api_key": key})}}
    path = {"in the path": presenting() | {"path": f"/v1/{key}", "pathParameters": {"proxy": f"v1/{key}"}}}
    variables = {"in a variable": presenting() | {"stageVariables": {"x-api-key": key}}}
    return {f"in {name}": event for name, event in (by_query | by_header).items()} | body | path | variables


def ambiguous(key: str, other: str) -> dict[str, Headers]:
    """A live key and something else beside it: who looks at the one must not be led by the other."""
    wrong = keys.new()[0]
    pairs: dict[str, Headers] = {
        "two headers": [("x-api-key", key), ("x-api-key", wrong)],
        "two headers, the live one last": [("x-api-key", wrong), ("x-api-key", key)],
        "two headers in two cases": [("x-api-key", key), ("X-API-KEY", wrong)],
        "both schemes": [("x-api-key", key), ("authorization", f"Bearer {wrong}")],
        "both schemes, the live one as bearer": [("x-api-key", wrong), ("authorization", f"Bearer {key}")],
        "two live keys of two tenants": [("x-api-key", key), ("authorization", f"Bearer {other}")],
        "two bearers": [("authorization", f"Bearer {key}"), ("Authorization", f"bearer {other}")],
    }
    return pairs


def test_no_key_lets_anybody_in_but_a_live_one_as_it_was_given(
    deployment: Deployment, record_attack: Callable[..., None]
) -> None:
    key = deployment.key
    _, other = deployment.tenants.create("second")
    forms = {name: [("x-api-key", text)] for name, text in (malformed(key) | well_formed(key, other)).items()}
    bearers = {f"{name}, as bearer": [("authorization", f"Bearer {text}")] for name, [(_, text)] in forms.items()}
    events = {name: presenting(*headers) for name, headers in (forms | bearers | ambiguous(key, other)).items()}
    events |= elsewhere(key)
    with deployment.function("rag_authorize"):
        assert verdict(presenting(("x-api-key", key))) == f"key:{key[4:12]}"
        said = {name: verdict(event) for name, event in events.items()}
    accepted = {name: what for name, what in said.items() if what != "Unauthorized"}
    record_attack("I2", tried=len(said), succeeded=len(accepted), figure="keys malformed, forged, misplaced, doubled")
    assert accepted == {}
    assert len(said) >= 30


def _revoked(deployment: Deployment, made: Any) -> None:
    assert ask(deployment, "DELETE", f"/{made['id']}").json["status"] == "revoked"


def _rotated(deployment: Deployment, made: Any) -> None:
    assert ask(deployment, "POST", f"/{made['id']}/rotate", {"overlap_hours": 0}).status == 201


def _expired(deployment: Deployment, made: Any) -> None:
    _administer(deployment, "update api_keys set expires_at = now() where id = %s", made["id"])


def _tenant_erased(deployment: Deployment, made: Any) -> None:
    from functions.tenants.handler import handler as tenants

    with deployment.function("rag_admin"):
        tenants({"action": "erase", "tenant_id": str(deployment.tenant)}, Context())


def _all_replaced(deployment: Deployment, made: Any) -> None:
    from functions.tenants.handler import handler as tenants

    with deployment.function("rag_admin"):
        tenants({"action": "key", "tenant_id": str(deployment.tenant), "revoke_others": True}, Context())


ENDINGS = (_revoked, _rotated, _expired, _all_replaced, _tenant_erased)


def test_a_key_that_ended_is_refused_from_the_next_request_on(
    deployment: Deployment, record_attack: Callable[..., None]
) -> None:
    accepted, slowest = 0, 0.0
    for end in ENDINGS:
        made = ask(deployment, "POST", "", {"name": end.__name__, "role": "admin"}).json
        event = presenting(("x-api-key", made["api_key"]))
        with deployment.function("rag_authorize"):
            assert verdict(event) == f"key:{made['id']}"
        end(deployment, made)
        began = time.monotonic()
        with deployment.function("rag_authorize"):
            accepted += verdict(event) != "Unauthorized"
        slowest = max(slowest, time.monotonic() - began)
    record_attack("I2", tried=len(ENDINGS), succeeded=accepted, figure=f"refused within {slowest:.1f} s of their end")
    assert accepted == 0


class _Function:
    """The authorizer's handler where the gateway looks for a function."""

    async def invoke(
        self, payload: bytes, *, trace_id: str | None = None, recipient: Recipient | None = None
    ) -> Invocation:
        try:
            answer, error = handler(json.loads(payload), Context()), None
        except Exception as refused:  # noqa: BLE001 (as Lambda's runtime does)
            answer, error = {"errorMessage": str(refused)}, "Unhandled"
        return Invocation("1", json.dumps(answer).encode(), error, 1.0)


def test_the_laptops_gateway_forgets_a_verdict_within_sixty_seconds(
    deployment: Deployment, record_attack: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ask(deployment, "POST", "", {"name": "short-lived"}).json
    gate = authorizer.Authorizer(_Function(), cache_seconds=environment.VERDICT_SECONDS)

    def let_in() -> bool:
        try:
            asyncio.run(gate.context(_request(("x-api-key", made["api_key"]))))
        except authorizer.UnauthorizedError:
            return False
        return True

    now = time.monotonic()
    clock = {"ahead": 0.0}
    monkeypatch.setattr(authorizer, "time", _Clock(now, clock))
    with deployment.function("rag_authorize"):
        assert let_in()
    _revoked(deployment, made)
    with deployment.function("rag_authorize"):
        kept = []
        for clock["ahead"] in (1, 30, 59, 60, 61, 3600):
            kept.append((clock["ahead"], let_in()))
    late = [ahead for ahead, inside in kept if inside and ahead >= 60]
    record_attack("I2", tried=len(kept), succeeded=len(late), figure="a revoked key at the laptop, up to an hour later")
    assert late == []


class _Clock:
    def __init__(self, start: float, clock: dict[str, float]) -> None:
        self._start, self._clock = start, clock

    def monotonic(self) -> float:
        return self._start + self._clock["ahead"]


def _request(*headers: tuple[str, str]) -> Request:
    return Request(
        request_id=str(uuid.uuid4()),
        trace_id="",
        method="POST",
        path="/v1/search",
        query=[],
        headers=headers,
        source_ip="127.0.0.1",
        protocol="HTTP/1.1",
        resource="/{proxy+}",
        parameters={},
    )


def test_no_secret_stands_in_the_database_the_cache_or_a_log(
    deployment: Deployment,
    record_attack: Callable[..., None],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = [ask(deployment, "POST", "", {"name": f"key {n}"}, **_named(f"make-{n}")).json for n in range(2)]
    made.append(ask(deployment, "POST", f"/{made[0]['id']}/rotate", {}, **_named("rotate")).json)
    secrets = [key["api_key"].partition(".")[2][:-6] for key in made] + [deployment.key.partition(".")[2][:-6]]
    whole_keys = [key["api_key"] for key in made]
    deployment.put("a.md", "# Zeppelins\n\nA zeppelin is filled with helium.")
    for key in whole_keys:
        with deployment.function("rag_authorize"):
            verdict(presenting(("x-api-key", key)))
            verdict(presenting(("x-api-key", key + "x")))
        header = {"headers": {"x-api-key": key, "content-type": "application/json"}, "multiValueHeaders": None}
        deployment.ask("POST", "/v1/search", {"query": "helium"}, **header)
        deployment.ask(
            "POST", "/v1/search", {"query": "helium"}, **header, database_url="postgresql://nobody@127.0.0.1:1/x"
        )
        deployment.ask("GET", "/v1/documents", queryStringParameters={"x-api-key": key}, **header)
        deployment.ask("GET", "/v1/nothing", **header)
        ask(deployment, "DELETE", f"/{key}", **header)
        ask(deployment, "POST", "", {"name": 5, "api_key": key}, **header)
    logged = "".join(capfd.readouterr()) + str([vars(record) for record in caplog.records])
    places = {"database": _everything(deployment), "cache": _cached(deployment), "logs": logged}
    found = {(place, secret) for place, text in places.items() for secret in secrets if _stands(secret, text)}
    record_attack(
        "I2", tried=len(places) * len(secrets), succeeded=len(found), figure="secrets in database, cache, logs"
    )
    assert made[0]["id"] in places["database"]
    assert "query" in logged
    assert found == set()


def ask(deployment: Deployment, method: str, path: str = "", body: Any = None, **event: Any) -> Any:
    return deployment.ask(method, f"/v1/keys{path}", body, principal=f"key:{deployment.key[4:12]}", **event)


def _named(key: str) -> dict[str, Any]:
    return {"headers": {"idempotency-key": key, "content-type": "application/json"}, "multiValueHeaders": None}


def _administer(deployment: Deployment, statement: str, *values: str) -> None:
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        assert connection.execute(statement.encode(), values).rowcount == 1


def _stands(secret: str, text: str) -> bool:
    """As it is, or as a column of bytes shows it."""
    return secret in text or secret.encode().hex() in text


def _everything(deployment: Deployment) -> str:
    """Every row of every table, as text."""
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        tables = connection.execute("select oid::regclass::text from pg_class where relkind = 'r' and oid > 16384")
        names = [name for (name,) in tables]
        rows = [connection.execute(f"select t::text from {name} t".encode()).fetchall() for name in names]
    return str(rows)


def _cached(deployment: Deployment) -> str:
    client = redis.Redis.from_url(deployment.settings["RAG_REDIS_URL"])
    try:
        names: list[bytes] = list(client.scan_iter())
        values = [client.get(name) if client.type(name) == b"string" else client.dump(name) for name in names]
    finally:
        client.close()
    return str(names) + str(values)
