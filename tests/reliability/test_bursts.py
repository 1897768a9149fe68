"""A burst of uploads at a function that is throttled meanwhile (A11): it takes longer, and nothing dies of it."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from functions.table import INGEST, INGEST_BATCH_SIZE
from local import code
from local.aws import REGION
from local.aws_service import Aws
from local.event_source import EventSource
from local.lambda_runtime import Function, Invocation, ThrottledError
from local.plan import Announcement, Bucket, Queue
from local.resources import CreatedQueue, create_bucket, create_queues
from local.runtime_api import RuntimeApi
from local.sandbox import Launch
from tests.integration.deployment import Deployment

UPLOADS, AT_ONCE, SANDBOXES, MAX_RECEIVES, HIDDEN_SECONDS = 1_000, 5, 2, 3, 3600
BATCH_SECONDS, PATIENCE_SECONDS = 0.02, 0.02
HANDLER = f"""
import json, os, pathlib, time, urllib.parse

def handler(event, context):
    while "held" in event and not pathlib.Path(event["held"]).exists():
        time.sleep(0.01)
    told = [one for record in event.get("Records", []) for one in json.loads(record["body"]).get("Records", [])]
    with pathlib.Path(os.environ["MARKS"]).open("a") as file:
        file.writelines(urllib.parse.unquote_plus(one["s3"]["object"]["key"]) + "\\n" for one in told)
    time.sleep({BATCH_SECONDS})
"""
_numbers = itertools.count(1)


class Crowded(Function):
    """Counts what it refuses."""

    refused = 0

    async def invoke(self, payload: bytes, **asked: Any) -> Invocation:
        try:
            return await super().invoke(payload, **asked)
        except ThrottledError:
            self.refused += 1
            raise


@dataclass(frozen=True)
class Drained:
    """`at_once`: batches that were under way while all were refused, where they were; `seconds` after that."""

    seconds: float
    refused: int
    at_once: int


@dataclass
class Wire:
    """A bucket that tells a queue of what is put there, and the queue's dead letters."""

    s3: Any
    sqs: Any
    bucket: str
    queue: CreatedQueue
    dead_letter_url: str

    def put(self, *keys: str) -> None:
        def put(key: str) -> None:
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=f"Note {key} tells of rivers.".encode())

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(put, keys))

    @property
    def left(self) -> int:
        return sum(self._count(self.queue.url))

    @property
    def batches(self) -> int:
        """How many were received and not deleted yet."""
        return math.ceil(self._count(self.queue.url)[1] / INGEST_BATCH_SIZE)

    @property
    def dead(self) -> int:
        return sum(self._count(self.dead_letter_url))

    def _count(self, url: str) -> tuple[int, int]:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return int(found[names[0]]), int(found[names[1]])


@pytest.fixture
def wire(aws: Aws) -> Wire:
    sqs, s3, number = aws.client("sqs"), aws.client("s3"), next(_numbers)
    names = f"burst-{number}", f"burst-{number}-dead-letters"
    queues = create_queues(sqs, [Queue(names[1], 3600), Queue(names[0], 3600, HIDDEN_SECONDS, names[1], MAX_RECEIVES)])
    bucket = Bucket(names[0], (Announcement(names[0], "s3:ObjectCreated:*"),))
    create_bucket(s3, bucket, queues)
    return Wire(s3, sqs, bucket.name, queues[names[0]], queues[names[1]].url)


def drained(launch: Launch, wire: Wire, held: Path | None = None) -> Drained:
    """Work the queue off with fewer sandboxes than the source may use.

    With `held`, a file that is not there yet, others have all sandboxes until every batch was refused several times.
    """

    async def told() -> Drained:
        api = RuntimeApi(ports=SANDBOXES)
        await api.open()
        function = Crowded(
            launch,
            api,
            function_arn="arn:x",
            timeout_seconds=600,
            memory_mib=512,
            concurrency=SANDBOXES,
            queue_seconds=PATIENCE_SECONDS,
        )
        source = EventSource(
            function,
            wire.sqs,
            queue_url=wire.queue.url,
            queue_arn=wire.queue.arn,
            region=REGION,
            batch_size=INGEST_BATCH_SIZE,
            visibility_seconds=HIDDEN_SECONDS,
            concurrency=AT_ONCE,
        )
        others = [
            asyncio.create_task(Function.invoke(function, json.dumps({"held": str(held)}).encode()))
            for _ in range(SANDBOXES if held else 0)
        ]
        await asyncio.sleep(0)
        source.start()
        at_once = 0
        try:
            if held:
                await until(lambda: wire.batches >= AT_ONCE or wire.dead > 0)
                refusals = function.refused + (MAX_RECEIVES + 1) * AT_ONCE
                await until(lambda: function.refused > refusals or wire.dead > 0)
                at_once = await asyncio.to_thread(lambda: wire.batches)
                await asyncio.to_thread(held.touch)
                await asyncio.gather(*others)
            began = time.monotonic()
            await until(lambda: wire.left == 0)
            return Drained(time.monotonic() - began, function.refused, at_once)
        finally:
            await source.stop(timeout_seconds=60)
            await function.close()
            await api.close()

    return asyncio.run(told())


async def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 600
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < ends, "it never came about"
        await asyncio.sleep(0.5)  # a look at a queue keeps the server of all queues from other work


@pytest.mark.faults_full
def test_a_thousand_uploads_at_once_reach_a_throttled_function_and_none_of_them_dies(
    wire: Wire, tmp_path: Path, record_fault: Any
) -> None:
    """The platform's own bucket, queue, source and sandboxes; the function only notes what comes."""
    (tmp_path / "noting.py").write_text(HANDLER)
    marks = tmp_path / "marks"
    told = {"PATH": os.defpath, "MARKS": str(marks)}
    keys = {f"tenant/default/{number}.md" for number in range(UPLOADS)}
    wire.put(*keys)
    launch = Launch("noting", "noting.handler", told, tmp_path, tmp_path / "tmp", tmp_path / "log")
    done = drained(launch, wire, tmp_path / "held")
    received = Counter(marks.read_text().split())
    lost, again = keys - set(received), received.total() - len(received)
    record_fault(
        "A11",
        injected=UPLOADS,
        violations=wire.dead + len(lost) + max(0, done.at_once - AT_ONCE),
        figure=f"{wire.dead} of {UPLOADS:,} in the DLQ, {UPLOADS - len(lost):,} delivered, {again} twice, "
        f"{done.at_once} batches at once, {done.refused} times throttled; {UPLOADS / done.seconds:.0f} messages/s",
    )
    assert (wire.dead, lost, again) == (0, set(), 0)
    assert done.at_once == AT_ONCE


@pytest.mark.slow
@pytest.mark.faults_soak
def test_a_thousand_uploads_at_once_become_ready_though_ingest_is_throttled(
    deployment: Deployment, wire: Wire, tmp_path: Path, record_fault: Any
) -> None:
    """The same with the real function."""
    keys = [f"{deployment.tenant}/default/{number}.md" for number in range(UPLOADS)]
    wire.put(*keys)
    repository = code.of_repository()
    told = repository.environment | deployment.environment("rag_ingest", queue_url=wire.queue.url, bucket=wire.bucket)
    told |= {"RAG_MAX_RECEIVES": str(MAX_RECEIVES), "POWERTOOLS_TRACE_DISABLED": "1", "LANG": "C.UTF-8"}
    launch = Launch(INGEST.name, INGEST.handler, told, repository.task_root, tmp_path / "tmp", tmp_path / "log")
    done = drained(launch, wire)
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        [(ready, attempts)] = connection.execute(
            "select count(*) filter (where status = 'ready'), max(attempts) from documents"
        ).fetchall()
    record_fault(
        "A11",
        injected=UPLOADS,
        violations=wire.dead + UPLOADS - ready,
        figure=f"{wire.dead} of {UPLOADS:,} in the DLQ, {ready:,} ready after at most {attempts} attempts, "
        f"{done.refused} times throttled; {UPLOADS / done.seconds:.1f} uploads/s",
    )
    assert (wire.dead, ready, attempts) == (0, UPLOADS, 1)
    assert done.refused > 0
