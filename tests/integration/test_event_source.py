"""The SQS event source mapping between a real queue and a real sandbox."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from local import aws, event_source
from local.aws_service import Aws
from local.event_source import EventSource, failures
from local.lambda_runtime import Function, Invocation
from local.runtime_api import RuntimeApi
from local.sandbox import Launch

pytestmark = pytest.mark.slow

_HANDLER = '''
import json, os, pathlib, time

def handler(event, context):
    """Do as the first message says, note which messages came."""
    records = event["Records"]
    order = json.loads(records[0]["body"])
    seen = [{"id": one["messageId"], "receives": one["attributes"]["ApproximateReceiveCount"]} for one in records]
    with (pathlib.Path(os.environ["MARKS"]) / "seen").open("a") as file:
        file.write(json.dumps({"records": records, "pid": os.getpid()}) + "\\n")
    time.sleep(order.get("sleep_seconds", 0))
    if "exit" in order:
        os._exit(order["exit"])
    if "raise" in order:
        raise ValueError(order["raise"])
    if order.get("fail"):
        return {"batchItemFailures": [{"itemIdentifier": one["messageId"]} for one in records if "fail" in one["body"]]}
    return order.get("answer")
'''
_numbers = itertools.count(1)


@dataclass
class Wire:
    """A queue, its dead letters, and what the handler saw."""

    sqs: Any
    url: str
    arn: str
    dead_letter_url: str
    folder: Path

    def send(self, *orders: Any) -> list[str]:
        entries = [{"Id": str(n), "MessageBody": json.dumps(order)} for n, order in enumerate(orders)]
        sent = self.sqs.send_message_batch(QueueUrl=self.url, Entries=entries)["Successful"]
        return [one["MessageId"] for one in sorted(sent, key=lambda one: int(one["Id"]))]

    def left(self) -> tuple[int, int]:
        """Messages that are visible, and that are hidden until their time is up."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return int(found[names[0]]), int(found[names[1]])

    def dead(self) -> list[str]:
        received = self.sqs.receive_message(QueueUrl=self.dead_letter_url, MaxNumberOfMessages=10, VisibilityTimeout=0)
        return [message["Body"] for message in received.get("Messages", [])]

    def batches(self) -> list[dict[str, Any]]:
        file = self.folder / "seen"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def received(self) -> list[str]:
        return [record["messageId"] for batch in self.batches() for record in batch["records"]]

    @asynccontextmanager
    async def running(self, **limits: Any) -> AsyncIterator[EventSource]:
        api = RuntimeApi(ports=2)
        await api.open()
        function = _function(self.folder, api, limits.pop("timeout_seconds", 30))
        limits.setdefault("visibility_seconds", 600)
        source = EventSource(function, self.sqs, queue_url=self.url, queue_arn=self.arn, region=aws.REGION, **limits)
        source.start()
        try:
            yield source
        finally:
            await source.stop(timeout_seconds=60)
            await function.close()
            await api.close()

    def run(self, until: Callable[[], bool], **limits: Any) -> None:
        async def told() -> None:
            async with self.running(**limits):
                await asyncio.to_thread(_wait_until, until)

        asyncio.run(told())


def _function(folder: Path, api: RuntimeApi, timeout_seconds: float) -> Function:
    launch = Launch(
        "ordered", "ordered.handler", {"PATH": os.defpath, "MARKS": str(folder)}, folder, folder / "tmp", folder / "log"
    )
    return Function(launch, api, function_arn="arn:x", timeout_seconds=timeout_seconds, memory_mib=128, concurrency=3)


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.05)


@pytest.fixture(autouse=True)
def _short_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stops waits for the end of a poll; SQS knows none that is shorter and waits at all."""
    monkeypatch.setattr(event_source, "POLL_SECONDS", 1)


@pytest.fixture(scope="module")
def aws_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    service = Aws(tmp_path_factory.mktemp("servers") / "aws")
    service.start()
    yield service
    service.stop()


@pytest.fixture
def make_wire(aws_service: Aws, tmp_path: Path) -> Callable[..., Wire]:
    (tmp_path / "ordered.py").write_text(_HANDLER)
    sqs = aws_service.client("sqs")

    def make(*, visibility_seconds: int = 600, max_receives: int = 5) -> Wire:
        number = next(_numbers)
        dead_letter_url = sqs.create_queue(QueueName=f"dead-{number}")["QueueUrl"]
        redrive = {"deadLetterTargetArn": _arn(sqs, dead_letter_url), "maxReceiveCount": str(max_receives)}
        attributes = {"VisibilityTimeout": str(visibility_seconds), "RedrivePolicy": json.dumps(redrive)}
        url = sqs.create_queue(QueueName=f"queue-{number}", Attributes=attributes)["QueueUrl"]
        return Wire(sqs, url, _arn(sqs, url), dead_letter_url, tmp_path)

    return make


def _arn(sqs: Any, url: str) -> str:
    return str(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"])


def test_a_message_arrives_as_lambda_s_sqs_event_and_is_deleted(make_wire: Callable[..., Wire]) -> None:
    wire = make_wire()
    (sent,) = wire.send({"n": 1})
    wire.run(lambda: bool(wire.batches()) and wire.left() == (0, 0))
    (batch,) = wire.batches()
    (record,) = batch["records"]
    assert record["messageId"] == sent
    assert json.loads(record["body"]) == {"n": 1}
    assert record["attributes"]["ApproximateReceiveCount"] == "1"
    assert int(record["attributes"]["SentTimestamp"]) > 0
    assert (record["eventSource"], record["eventSourceARN"], record["awsRegion"]) == ("aws:sqs", wire.arn, aws.REGION)
    assert record["receiptHandle"]
    assert record["messageAttributes"] == {}


def test_messages_come_in_batches_of_at_most_ten(make_wire: Callable[..., Wire]) -> None:
    wire = make_wire()
    sent = wire.send(*({"n": n} for n in range(10))) + wire.send({"n": 10}, {"n": 11})
    wire.run(lambda: len(wire.received()) >= 12 and wire.left() == (0, 0), concurrency=1)
    assert sorted(wire.received()) == sorted(sent)
    assert max(len(batch["records"]) for batch in wire.batches()) == 10


def test_only_the_messages_reported_as_failed_stay(make_wire: Callable[..., Wire]) -> None:
    wire = make_wire()
    wire.send({"fail": True}, {"n": 1}, {"n": 2})
    wire.run(lambda: wire.left() == (0, 1))
    assert len(wire.received()) == 3


def test_without_partial_responses_a_batch_that_did_not_fail_is_done_whatever_it_says(
    make_wire: Callable[..., Wire],
) -> None:
    wire = make_wire()
    wire.send({"fail": True}, {"n": 1})
    wire.run(lambda: bool(wire.batches()) and wire.left() == (0, 0), reports_failures=False)
    assert len(wire.received()) == 2


def test_a_failed_message_comes_back_after_its_visibility_timeout_and_dies_in_the_end(
    make_wire: Callable[..., Wire],
) -> None:
    wire = make_wire(visibility_seconds=5, max_receives=2)
    (sent,) = wire.send({"fail": True})
    wire.run(lambda: wire.dead() == ['{"fail": true}'])
    assert wire.received() == [sent, sent]
    assert [batch["records"][0]["attributes"]["ApproximateReceiveCount"] for batch in wire.batches()] == ["1", "2"]


@pytest.mark.parametrize("order", [{"raise": "x"}, {"answer": "text"}, {"answer": {"batchItemFailures": "x"}}], ids=str)
def test_a_batch_that_was_not_answered_properly_stays_whole(make_wire: Callable[..., Wire], order: Any) -> None:
    wire = make_wire()
    wire.send(order, {"n": 1})
    wire.run(lambda: "REPORT" in _log(wire))
    assert wire.left() == (0, 2)


@pytest.mark.fault("A10")
def test_a_batch_whose_sandbox_died_is_visible_again_at_once(make_wire: Callable[..., Wire]) -> None:
    wire = make_wire(visibility_seconds=600, max_receives=3)
    wire.send({"exit": 1})
    wire.run(lambda: bool(wire.dead()))
    assert [batch["records"][0]["attributes"]["ApproximateReceiveCount"] for batch in wire.batches()] == ["1", "2", "3"]


@pytest.mark.fault("A10")
def test_a_batch_that_ran_out_of_time_is_visible_again_at_once(make_wire: Callable[..., Wire]) -> None:
    wire = make_wire(visibility_seconds=600, max_receives=1)
    wire.send({"sleep_seconds": 300})
    wire.run(lambda: bool(wire.dead()), timeout_seconds=0.3)


@pytest.mark.fault("A11")
def test_two_batches_are_under_way_at_once_and_no_third(make_wire: Callable[..., Wire]) -> None:
    wire = make_wire()
    wire.send(*({"sleep_seconds": 1, "n": n} for n in range(4)))
    wire.run(lambda: len(wire.received()) == 4 and wire.left() == (0, 0), batch_size=1, concurrency=2)
    assert len({batch["pid"] for batch in wire.batches()}) == 2


def test_a_sandbox_takes_the_next_batch_while_messages_are_deleted(make_wire: Callable[..., Wire]) -> None:
    wire = make_wire()
    wire.send({}, {})
    overlapped: list[bool] = []

    def before_deleting(**_: Any) -> None:
        if not overlapped:
            overlapped.append(False)
            _wait_until(lambda: len(wire.batches()) == 2)
            overlapped[0] = True

    wire.sqs.meta.events.register("before-call.sqs.DeleteMessageBatch", before_deleting)
    wire.run(lambda: wire.left() == (0, 0), batch_size=1, concurrency=1)
    assert overlapped == [True]


def test_stopping_lets_the_running_batch_finish_and_hides_nothing(make_wire: Callable[..., Wire]) -> None:
    wire = make_wire()
    wire.send({"sleep_seconds": 1})

    async def story() -> None:
        async with wire.running() as source:
            await asyncio.to_thread(_wait_until, lambda: bool(wire.batches()))
            stopping = asyncio.create_task(source.stop(timeout_seconds=60))
            await asyncio.sleep(0)
            await asyncio.to_thread(wire.send, {"n": "late"})
            await stopping

    asyncio.run(story())
    assert wire.left() == (1, 0)


def test_a_stop_while_every_sandbox_is_busy_waits_no_longer_than_it_may(make_wire: Callable[..., Wire]) -> None:
    wire = make_wire()
    wire.send({"sleep_seconds": 300})

    async def story() -> None:
        async with wire.running(concurrency=1) as source:
            await asyncio.to_thread(_wait_until, lambda: bool(wire.batches()))
            await asyncio.wait_for(source.stop(timeout_seconds=0.1), 60)

    asyncio.run(story())
    assert wire.left() == (0, 1)


def test_a_queue_that_cannot_be_reached_is_asked_again(make_wire: Callable[..., Wire]) -> None:
    wire = make_wire()
    flaky = _Flaky(wire.sqs, failing=1)
    wire.send({"n": 1})
    Wire(flaky, wire.url, wire.arn, wire.dead_letter_url, wire.folder).run(lambda: wire.left() == (0, 0))
    assert flaky.failing == 0


class _Flaky:
    """A client whose first polls fail as those of a queue that is being restarted do."""

    def __init__(self, sqs: Any, *, failing: int) -> None:
        self._sqs = sqs
        self.failing = failing

    def receive_message(self, **parameters: Any) -> Any:
        if self.failing:
            self.failing -= 1
            raise ConnectionRefusedError("restarting")
        return self._sqs.receive_message(**parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sqs, name)


@pytest.mark.parametrize(
    ("response", "failed"),
    [
        ("null", set()),
        ("{}", set()),
        ('{"batchItemFailures": null}', set()),
        ('{"batchItemFailures": []}', set()),
        ('{"batchItemFailures": [{"itemIdentifier": "a"}]}', {"a"}),
        ('{"batchItemFailures": [{"itemIdentifier": ""}]}', {"a", "b"}),
        ('{"batchItemFailures": [{"itemIdentifier": null}]}', {"a", "b"}),
        ('{"batchItemFailures": [{"itemIdentifier": ["a"]}]}', {"a", "b"}),
        ('{"batchItemFailures": [{"id": "a"}]}', {"a", "b"}),
        ('{"batchItemFailures": [{"itemIdentifier": "a"}, {"itemIdentifier": "unknown"}]}', {"a", "b"}),
        ('{"batchItemFailures": {"itemIdentifier": "a"}}', {"a", "b"}),
        ('{"batchItemFailures": "a"}', {"a", "b"}),
        ('"done"', {"a", "b"}),
        ("[]", {"a", "b"}),
        ("not json", {"a", "b"}),
    ],
)
def test_a_response_says_which_messages_failed(response: str, failed: set[str]) -> None:
    assert failures(Invocation("id", response.encode(), None, 1.0), ["a", "b"]) == failed


def test_an_error_of_the_function_fails_the_whole_batch() -> None:
    assert failures(Invocation("id", b'{"batchItemFailures": []}', "Unhandled", 1.0), ["a", "b"]) == {"a", "b"}


def _log(wire: Wire) -> str:
    file = wire.folder / "log"
    return file.read_text() if file.exists() else ""
