"""A tenant that searches or uploads as fast as it is told, as sandboxes beside those of others do."""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable

from tests.integration.deployment import BUCKET, Context, notification, sample

# Others' sandboxes run on other machines: what is shared with them is the database, the cache and the bucket.
BEHIND_OTHERS = 5
KEYS = 20


def searching(tenant: str) -> Callable[[int], int]:
    """Ask as one key of the tenant after another, and return the status."""
    from functions.query.handler import handler

    def search(number: int) -> int:
        event = sample("query/search.json")
        event["requestContext"]["authorizer"] |= {"tenant_id": tenant, "principal": f"key:noisy-{number % KEYS}"}
        event["body"] = json.dumps({"query": f"How are refunds paid, and of what are they number {number}?"})
        return int(handler(event, Context())["statusCode"])

    return search


def uploading(tenant: str) -> Callable[[int], int]:
    """Upload a document and ingest it; 0 where it must be delivered again."""
    import boto3

    from functions.ingest.handler import handler

    s3 = boto3.client("s3")
    delivered = sample("ingest/object_created.json")["Records"][0]

    def upload(number: int) -> int:
        key = f"{tenant}/uploads/{number % 50}.txt"
        s3.put_object(Bucket=BUCKET, Key=key, Body=f"Refund {uuid.uuid4()}. " * 200)
        told = handler({"Records": [{**delivered, "body": notification(key)}]}, Context())
        return 200 if told == {"batchItemFailures": []} else 0

    return upload


def main(what: str, tenant: str, per_second: str) -> None:
    """Be loud from one line of the input to the next, and tell after each second one how it went."""
    os.nice(BEHIND_OTHERS)
    # Logs and metrics go where nobody reads.
    told = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    act = {"searching": searching, "uploading": uploading}[what](tenant)
    assert act(0) == 200
    loud, quiet = threading.Event(), threading.Event()
    quiet.set()
    statuses: Counter[int] = Counter()

    def work() -> None:
        for number in itertools.count(1):
            loud.wait()
            quiet.clear()
            began = time.monotonic()
            statuses[act(number)] += 1
            quiet.set()
            time.sleep(max(1 / float(per_second) - (time.monotonic() - began), 0))

    threading.Thread(target=work, daemon=True).start()
    print("ready", file=told, flush=True)
    for _ in sys.stdin:
        if loud.is_set():
            loud.clear()
            quiet.wait()
            print(json.dumps(statuses), file=told, flush=True)
            statuses.clear()
        else:
            loud.set()


if __name__ == "__main__":
    main(*sys.argv[1:])
