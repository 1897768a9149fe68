"""How many requests a caller may make: token buckets in the cache, and in this process while there is none.

A bucket holds `requests` tokens and fills within `window_seconds`; each request takes one from every bucket of its
caller, or none. What is kept of a bucket is when it will be full again (ITU-T I.371, annex A: the generic cell rate
algorithm), in whole microseconds.
"""

from __future__ import annotations

import hashlib
import math
import time
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from rag.errors import RateLimitError

PREFIX = "rate:"
# Of buckets that this process knows of; beyond them those that were not used for the longest time are forgotten.
MOST_KNOWN = 10_000

_MICROSECONDS = 1_000_000
# All buckets give or none does; by the server's own clock, so that nobody's matters. A value that is no number is a
# full bucket, one further ahead than the window (which was longer, or is not ours) an empty one.
_TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local admitted, full, reply = 1, {}, {}
local function keep(key, at)
  redis.call('SET', key, string.format('%.0f', at), 'PX', math.ceil((at - now) / 1000))
end
for n, key in ipairs(KEYS) do
  local interval, window = tonumber(ARGV[2 * n - 1]), tonumber(ARGV[2 * n])
  full[n] = math.max(tonumber(redis.call('GET', key)) or now, now)
  if full[n] > now + window then
    full[n] = now + window
    keep(key, full[n])
  end
  if full[n] + interval > now + window then admitted = 0 end
end
for n, key in ipairs(KEYS) do
  if admitted == 1 then
    full[n] = full[n] + tonumber(ARGV[2 * n - 1])
    keep(key, full[n])
  end
  reply[n + 1] = full[n] - now
end
reply[1] = admitted
return reply
"""


class Cache(Protocol):
    def evaluate(self, script: str, keys: Sequence[str], arguments: Sequence[int]) -> list[int] | None: ...


@dataclass(frozen=True, slots=True)
class Bucket:
    """Of a key (or user), or of its whole tenant; `name` is its place in the cache."""

    of: Literal["key", "tenant"]
    name: str
    requests: int
    window_seconds: int

    @classmethod
    def of_tenant(cls, tenant_id: uuid.UUID, requests: int, window_seconds: int) -> Bucket:
        return cls("tenant", _name(tenant_id, "tenant"), requests, window_seconds)

    @classmethod
    def of_key(cls, tenant_id: uuid.UUID, principal: str, requests: int, window_seconds: int) -> Bucket:
        return cls("key", _name(tenant_id, principal), requests, window_seconds)

    @property
    def window(self) -> int:
        return self.window_seconds * _MICROSECONDS

    @property
    def interval(self) -> int:
        """In which one token comes back."""
        return max(self.window // self.requests, 1)


@dataclass(frozen=True, slots=True)
class Level:
    """How full a bucket is: in so many microseconds it will be full."""

    bucket: Bucket
    full_in: int

    @property
    def remaining(self) -> int:
        return max(min((self.bucket.window - self.full_in) // self.bucket.interval, self.bucket.requests), 0)

    @property
    def full_in_seconds(self) -> float:
        return self.full_in / _MICROSECONDS

    def less(self) -> Level:
        """After one more request."""
        return Level(self.bucket, self.full_in + self.bucket.interval)

    @property
    def wait_seconds(self) -> float:
        """Until there is a token."""
        return max(self.full_in + self.bucket.interval - self.bucket.window, 0) / _MICROSECONDS


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a request may go on, and how full the caller's buckets are after it."""

    admitted: bool
    levels: list[Level]

    def require(self) -> None:
        """RateLimitError for one that may not."""
        if self.admitted:
            return
        empty = [level for level in self.levels if level.wait_seconds > 0]
        seconds = math.ceil(max(level.wait_seconds for level in empty))
        bucket = empty[0].bucket
        whose = "this key" if bucket.of == "key" else "the tenant"
        msg = f"{whose} may make {bucket.requests:,} requests in {bucket.window_seconds} s; try again in {seconds} s"
        raise RateLimitError(msg, [level.bucket.of for level in empty], retry_after_seconds=seconds)

    @property
    def fields(self) -> list[tuple[str, str]]:
        """`RateLimit-Policy` and `RateLimit`: quota and window; what remains, and the seconds until all is back.

        https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
        """
        if not self.levels:
            return []
        policies = (f'"{one.bucket.of}";q={one.bucket.requests};w={one.bucket.window_seconds}' for one in self.levels)
        levels = (f'"{one.bucket.of}";r={one.remaining};t={math.ceil(one.full_in_seconds)}' for one in self.levels)
        return [("ratelimit-policy", ", ".join(policies)), ("ratelimit", ", ".join(levels))]


class Throttle:
    """Admits requests, in one round trip to the cache; while that is away this process counts for itself.

    It knows of each bucket when it will be full at the earliest, from what it let through and was told. Others only
    take, so that what it knows to be empty is refused without asking anybody, and neither a cache that is away nor one
    that has forgotten everything gives a caller more than one bucket for each process.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._full_at: OrderedDict[str, int] = OrderedDict()

    def admit(self, buckets: Sequence[Bucket]) -> Admission:
        """Take a token from each, or none where one is empty."""
        now = time.monotonic_ns() // 1000
        known = [Level(one, min(max(self._full_at.get(one.name, now) - now, 0), one.window)) for one in buckets]
        if any(level.wait_seconds > 0 for level in known):
            return Admission(admitted=False, levels=known)
        admission = self._taken(known)
        for level in admission.levels:
            self._full_at[level.bucket.name] = now + level.full_in
            self._full_at.move_to_end(level.bucket.name)
        while len(self._full_at) > MOST_KNOWN:
            self._full_at.popitem(last=False)
        return admission

    def _taken(self, known: Sequence[Level]) -> Admission:
        arguments = [number for level in known for number in (level.bucket.interval, level.bucket.window)]
        told = self._cache.evaluate(_TAKE, [level.bucket.name for level in known], arguments) if known else None
        if told is None or len(told) != len(known) + 1:
            return Admission(admitted=True, levels=[level.less() for level in known])
        admitted, *full_in = told
        mine = [level.less() for level in known] if admitted else known
        levels = [
            Level(level.bucket, min(max(level.full_in, full), level.bucket.window))
            for level, full in zip(mine, full_in, strict=True)
        ]
        # Whoever refuses names a bucket that is empty; a server that does not is not one of ours.
        return Admission(admitted=bool(admitted) or all(level.wait_seconds == 0 for level in levels), levels=levels)


def _name(tenant_id: uuid.UUID, whose: str) -> str:
    """What stands in braces is what decides a key's place in a cluster: the buckets of a tenant are in one."""
    return f"{PREFIX}{{{tenant_id}}}:{hashlib.sha256(whose.encode()).hexdigest()[:32]}"
