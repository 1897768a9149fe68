"""The cache: Valkey or Redis behind a small in-process one; without it everything is right, only slower.

Every key of the product in the cache begins with one of the prefixes below, or with rag.throttling's. Every value that
is kept here is JSON that names its own key, behind an HMAC (RFC 2104, SHA-256) over it: what whoever can write to the
server puts there, or moves under another key, is a miss.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rag.breaker import Breaker
from rag.errors import UnavailableError
from rag.types import JSON

if TYPE_CHECKING:
    import redis

ANSWER = "answer:"
EMBEDDING = "embedding:"
FLIGHT = "flight:"

CONNECT_SECONDS = 0.1
CALL_SECONDS = 0.1
PAUSE_SECONDS = 5.0  # how long a cache that failed is left alone
FLIGHT_SECONDS = 15
LOCAL_ENTRIES = 1000
LARGEST_ENTRY_BYTES = 1 << 20  # fifty times the longest answer or embedding
SCANNED_AT_ONCE = 1000

_SIGNATURE_BYTES = 32

# Deletes a lock only while it is still the caller's: one that expired may be somebody else's by now.
_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"


class Cache:
    """Get and set JSON objects; no error of the server ever reaches the caller.

    `signing` gives a secret that the functions have and the server does not; the same in all of them.
    """

    def __init__(self, url: str, password: Callable[[], str], *, signing: Callable[[], str], ttl_seconds: int) -> None:
        self._url = url
        self._password = password
        self._signing = signing
        self._signing_key: bytes | None = None
        self._ttl_seconds = ttl_seconds
        # Kept for a server that is away: its secret need not be read again every few seconds.
        self._known: str | None = None
        self._client: redis.Redis | None = None
        self._breaker = Breaker(failures=1, pause_seconds=PAUSE_SECONDS)
        self._local: OrderedDict[str, tuple[float, JSON]] = OrderedDict()

    @staticmethod
    def embedding_key(tenant_id: uuid.UUID, model: str, dimensions: int, text: str) -> str:
        """Of a question of this tenant: how quickly it is embedded tells nobody else that it was asked before."""
        return _key(_of(EMBEDDING, tenant_id), model, dimensions, text)

    @staticmethod
    def answer_key(tenant_id: uuid.UUID, *parts: object) -> str:
        """Of what a model was told of this tenant's documents; the tenant's keys can be told from all others."""
        return _key(_of(ANSWER, tenant_id), *parts)

    @property
    def available(self) -> bool:
        """Whether a server is configured and has not failed in the last seconds."""
        return bool(self._url) and self._breaker.wait_seconds == 0

    def alive(self) -> bool | None:
        """Whether the server answers now; None when there is none configured."""
        if not self._url:
            return None
        return bool(self._call(lambda client: client.ping()))

    def get(self, key: str) -> JSON | None:
        found = self._local.get(key)
        if found is not None and found[0] > time.monotonic():
            self._local.move_to_end(key)
            return found[1]
        value: JSON | None = self._call(lambda client: self._opened(key, _entry(client, key)))
        if value is not None:
            self._keep(key, value)
        return value

    def set(self, key: str, value: JSON) -> None:
        self._keep(key, value)
        entry = json.dumps({"key": key, "value": value}, separators=(",", ":")).encode()
        self._call(lambda client: client.set(key, self._signature(entry) + entry, ex=self._ttl_seconds))

    def evaluate(self, script: str, keys: Sequence[str], arguments: Sequence[int]) -> list[int] | None:
        """Return the integers of a Lua script, in one round trip where the server knows it; None without them."""

        def run(client: redis.Redis) -> Any:
            from redis.exceptions import NoScriptError  # noqa: PLC0415 (with the client)

            digest = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()  # as Valkey names scripts
            try:
                return client.evalsha(digest, len(keys), *keys, *arguments)
            except NoScriptError:
                return client.eval(script, len(keys), *keys, *arguments)

        answer = self._call(run)
        return answer if isinstance(answer, list) and all(isinstance(number, int) for number in answer) else None

    def erase(self, tenant_id: uuid.UUID) -> int:
        """Remove what is kept of a tenant's questions, and return how many answers there were.

        UnavailableError when the server does not answer: then they end by their own time.
        """
        if not self._url:
            return 0
        answers = _of(ANSWER, tenant_id)
        kept = answers, _of(EMBEDDING, tenant_id)

        def unlink(client: redis.Redis) -> int:
            erased = 0
            for found in client.scan_iter(match=f"*:{tenant_id}:*", count=SCANNED_AT_ONCE):
                # Each by itself: in a cluster the keys of one command must be of one slot.
                if found.startswith(tuple(map(str.encode, kept))):
                    erased += int(client.unlink(found)) * found.startswith(answers.encode())
            return erased

        for key in [key for key in self._local if key.startswith(kept)]:
            del self._local[key]
        erased = self._call(unlink)
        if erased is None:
            msg = "the cache is not available"
            raise UnavailableError(msg, retry_after_seconds=int(PAUSE_SECONDS))
        return int(erased)

    @contextmanager
    def flight(self, key: str, *, wait_seconds: float) -> Iterator[JSON | None]:
        """Of those who want the same value at once, let one compute it while the others wait for what it stores.

        Yields the value when somebody else stored it, else None: then it is the caller's to compute, because it is the
        first, because the one before failed, or because it waited long enough.
        """
        name, owner = FLIGHT + key, secrets.token_hex(8)
        until = time.monotonic() + wait_seconds
        value = None
        mine = self._takes_off(name, owner)
        while not mine and value is None and self.available and time.monotonic() < until:
            time.sleep(0.02)
            mine = self._takes_off(name, owner)
            # Looked for even by who may compute it now: the one before stores first and lands then.
            value = self.get(key)
        try:
            yield value
        finally:
            if mine:
                self._call(lambda client: client.eval(_RELEASE, 1, name, owner))

    def _takes_off(self, name: str, owner: str) -> bool:
        return bool(self._call(lambda client: client.set(name, owner, nx=True, ex=FLIGHT_SECONDS)))

    def _opened(self, key: str, entry: bytes | None) -> JSON | None:
        """The value of an entry that one of us wrote under this key."""
        if entry is None or len(entry) > LARGEST_ENTRY_BYTES:
            return None
        signature, signed = entry[:_SIGNATURE_BYTES], entry[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._signature(signed)):
            return None
        stored = json.loads(signed)
        value: JSON = stored["value"]
        return value if stored["key"] == key else None

    def _signature(self, entry: bytes) -> bytes:
        if self._signing_key is None:
            # A key of its own, so that nothing signed for another purpose passes here.
            self._signing_key = hmac.digest(self._signing().encode(), b"rag cache entries", "sha256")
        return hmac.digest(self._signing_key, entry, "sha256")

    def _keep(self, key: str, value: JSON) -> None:
        self._local[key] = (time.monotonic() + self._ttl_seconds, value)
        self._local.move_to_end(key)
        if len(self._local) > LOCAL_ENTRIES:
            self._local.popitem(last=False)

    def _call(self, command: Callable[[redis.Redis], Any]) -> Any:
        """Run a command, or return None at once while the server is being left alone."""
        if not self._url or not self._breaker.admits():
            return None
        try:
            answer = self._once_more(command)
        except Exception:  # noqa: BLE001 (also ValueError and RecursionError, which garbage on the wire raises in redis-py)
            self._breaker.failed()
            self._close()
            return None
        self._breaker.succeeded()
        return answer

    def _once_more(self, command: Callable[[redis.Redis], Any]) -> Any:
        """Run a command; where the server refuses the password, with the one that the secret holds by then."""
        from redis.exceptions import AuthenticationError  # noqa: PLC0415 (with the client)

        try:
            return command(self._connected())
        except AuthenticationError:
            self._close()
            self._known = None
            return command(self._connected())

    def _close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _connected(self) -> redis.Redis:
        if self._client is None:
            import redis  # noqa: PLC0415 (0.3 s that a deployment without a cache does not need)
            from redis.backoff import NoBackoff  # noqa: PLC0415
            from redis.retry import Retry  # noqa: PLC0415

            if self._known is None:
                self._known = self._password()
            self._client = redis.Redis.from_url(
                self._url,
                password=self._known or None,
                socket_connect_timeout=CONNECT_SECONDS,
                socket_timeout=CALL_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )
        return self._client


def preload() -> None:
    """Import the client ahead of the first call."""
    import redis.backoff  # noqa: PLC0415
    import redis.exceptions  # noqa: PLC0415
    import redis.retry  # noqa: F401, PLC0415


def _of(prefix: str, tenant_id: uuid.UUID) -> str:
    return f"{prefix}{tenant_id}:"


def _key(prefix: str, *parts: object) -> str:
    """Prefix and sha256 of the parts, which are kept apart by their JSON form."""
    return prefix + hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()


def _entry(client: redis.Redis, key: str) -> bytes | None:
    """What the server has under a key, if it is a string; anything else is not ours, and no failure of the server."""
    from redis.exceptions import ResponseError  # noqa: PLC0415 (with the client)

    try:
        found = client.get(key)
    except ResponseError as error:
        if str(error).startswith("WRONGTYPE"):
            return None
        raise
    return found if isinstance(found, bytes) else None
