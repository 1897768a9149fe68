"""One process among several that ask as the same key at once: its own throttle, as a sandbox has it."""

from __future__ import annotations

import sys
import time
import uuid

from rag import cache
from rag.throttling import Bucket, Throttle


def main(url: str, tenant: str, requests: str, window_seconds: str, times: str) -> None:
    """Wait for a line, ask so often, and tell how often it was admitted and how many seconds the slowest took."""
    # A machine that pauses is no cache that is away.
    cache.CONNECT_SECONDS = cache.CALL_SECONDS = 30.0
    throttle = Throttle(cache.Cache(url, lambda: "", signing=lambda: "", ttl_seconds=60))
    buckets = [
        Bucket.of_key(uuid.UUID(tenant), "key:aB3dE5gH", int(requests), int(window_seconds)),
        Bucket.of_tenant(uuid.UUID(tenant), 10 * int(requests), int(window_seconds)),
    ]
    # Connected, as a sandbox is that has served before.
    throttle.admit([Bucket.of_tenant(uuid.uuid4(), 1, 1)])
    print("ready", flush=True)
    for _ in sys.stdin:
        admitted, slowest = 0, 0.0
        for _ in range(int(times)):
            asked = time.monotonic()
            admitted += throttle.admit(buckets).admitted
            slowest = max(slowest, time.monotonic() - asked)
        print(admitted, slowest, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
