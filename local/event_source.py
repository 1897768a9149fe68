"""Lambda's SQS event source mapping: long poll, invoke with a batch, delete what succeeded.

Semantics of a partial batch response: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html

One deviation, because nobody at a laptop waits for six time-outs of the function: a batch that no handler answered (its
sandbox ended under it) is visible again at once. What the handler reports as failed comes back when its visibility
timeout ends. How often a message may fail is the redrive policy's business, here as there; to be throttled is no
failure: the batch is kept, and the function asked again, for as long as it is hidden.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from local.lambda_runtime import Invocation, ThrottledError

# Short, so that stopping can wait for the answer: a poll that is dropped half-way may hide a message for an hour.
POLL_SECONDS = 2
_PAUSE_SECONDS = 1.0

_log = logging.getLogger(__name__)
Message = dict[str, Any]


class Invocable(Protocol):
    async def invoke(self, payload: bytes) -> Invocation: ...


class EventSource:
    """Feeds one queue to one function, with at most `concurrency` invocations under way; `sqs` is a boto3 client.

    Without ReportBatchItemFailures (`reports_failures`), a batch whose function did not fail is done, whatever it says.
    """

    def __init__(
        self,
        function: Invocable,
        sqs: Any,
        *,
        queue_url: str,
        queue_arn: str,
        region: str,
        batch_size: int = 10,
        visibility_seconds: float,
        window_seconds: float = 0,
        concurrency: int = 2,
        reports_failures: bool = True,
    ) -> None:
        self._function = function
        self._sqs = sqs
        self._queue_url = queue_url
        self._origin = {"eventSource": "aws:sqs", "eventSourceARN": queue_arn, "awsRegion": region}
        self._batch_size = batch_size
        self._visibility_seconds = visibility_seconds
        self._window_seconds = window_seconds
        self._concurrency = concurrency
        self._reports_failures = reports_failures
        # Threads of its own: a long poll would hold one of asyncio's few.
        self._threads = ThreadPoolExecutor(max_workers=1 + concurrency, thread_name_prefix="sqs")
        self._batches: set[asyncio.Task[None]] = set()
        self._invocations: set[asyncio.Task[Invocation]] = set()
        self._stopping = asyncio.Event()
        self._polling: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._polling = asyncio.create_task(self._poll())

    async def stop(self, *, timeout_seconds: float) -> None:
        """Take no new batch, let those under way finish for at most this long; a poll under way is waited for first."""
        self._stopping.set()
        loop = asyncio.get_running_loop()
        ends = loop.time() + timeout_seconds
        if self._polling:
            await asyncio.wait([self._polling], timeout=POLL_SECONDS + timeout_seconds)
            self._polling.cancel()
        if self._batches:
            _, late = await asyncio.wait(self._batches, timeout=max(0.0, ends - loop.time()))
            for task in late:
                task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _poll(self) -> None:
        # Only with a sandbox to spare: a message that is received and then waits only ages.
        while await self._has_room():
            messages = await self._gather()
            if messages and self._stopping.is_set():
                await self._show(messages)
            elif messages:
                self._dispatch(messages)

    async def _has_room(self) -> bool:
        """Wait until another invocation may be under way; False as soon as it is stopping."""
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            while len(self._invocations) >= self._concurrency and not self._stopping.is_set():
                await asyncio.wait({stopping, *self._invocations}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        return not self._stopping.is_set()

    def _dispatch(self, messages: list[Message]) -> None:
        # Apart, so that the sandbox takes the next batch while the messages of this one are deleted.
        invocation = asyncio.create_task(self._invoke(messages))
        self._invocations.add(invocation)
        invocation.add_done_callback(self._invocations.discard)
        task = asyncio.create_task(self._handle(messages, invocation))
        self._batches.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._batches.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _log.error("a batch of %s was left to its visibility timeout", self._queue_url, exc_info=error)

    async def _gather(self) -> list[Message]:
        """One batch: what a poll gives, and what follows within the window while there is room."""
        loop = asyncio.get_running_loop()
        messages = await self._receive(self._batch_size, POLL_SECONDS)
        closes = loop.time() + self._window_seconds
        while messages and len(messages) < self._batch_size and not self._stopping.is_set() and loop.time() < closes:
            messages += await self._receive(self._batch_size - len(messages), 1)
        return messages

    async def _receive(self, count: int, wait_seconds: int) -> list[Message]:
        try:
            received = await self._call(
                self._sqs.receive_message,
                MaxNumberOfMessages=count,
                WaitTimeSeconds=wait_seconds,
                AttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
        except Exception as error:  # noqa: BLE001  (whatever it is, the queue is asked again)
            _log.warning("%s cannot be polled: %s", self._queue_url, error)
            await self._pause()
            return []
        messages: list[Message] = received.get("Messages", [])
        return messages

    async def _invoke(self, messages: list[Message]) -> Invocation:
        """ThrottledError when the messages are hidden no longer, or it is stopping, and no sandbox was free."""
        payload = json.dumps({"Records": [record(message) | self._origin for message in messages]}).encode()
        loop = asyncio.get_running_loop()
        shown = loop.time() + self._visibility_seconds
        while True:
            try:
                return await self._function.invoke(payload)
            except ThrottledError:
                await self._pause()
                if self._stopping.is_set() or loop.time() >= shown:
                    raise

    async def _handle(self, messages: list[Message], invoking: asyncio.Task[Invocation]) -> None:
        try:
            invocation = await invoking
        except ThrottledError:
            return await self._show(messages)
        if invocation.sandbox_lost:
            return await self._show(messages)
        if not self._reports_failures and not invocation.function_error:
            return await self._delete(messages)
        failed = failures(invocation, {message["MessageId"] for message in messages})
        return await self._delete([message for message in messages if message["MessageId"] not in failed])

    async def _delete(self, messages: list[Message]) -> None:
        entries = [{"Id": str(n), "ReceiptHandle": message["ReceiptHandle"]} for n, message in enumerate(messages)]
        if entries:
            await self._call(self._sqs.delete_message_batch, Entries=entries)

    async def _show(self, messages: list[Message]) -> None:
        """Make them visible again."""
        entries = [
            {"Id": str(n), "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 0}
            for n, message in enumerate(messages)
        ]
        await self._call(self._sqs.change_message_visibility_batch, Entries=entries)

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), _PAUSE_SECONDS)

    async def _call(self, operation: Callable[..., dict[str, Any]], **parameters: Any) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: operation(QueueUrl=self._queue_url, **parameters))


def record(message: Message) -> dict[str, Any]:
    """A received message as it stands in Lambda's event, but for where it came from."""
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message.get("Attributes", {}),
        "messageAttributes": {name: _attribute(value) for name, value in message.get("MessageAttributes", {}).items()},
        "md5OfBody": message.get("MD5OfBody", ""),
    }


def _attribute(value: dict[str, Any]) -> dict[str, Any]:
    named = {"stringValue": value.get("StringValue"), "binaryValue": value.get("BinaryValue")}
    binary = named["binaryValue"]
    if isinstance(binary, bytes):
        named["binaryValue"] = base64.b64encode(binary).decode()
    present = {name: content for name, content in named.items() if content is not None}
    return {**present, "stringListValues": [], "binaryListValues": [], "dataType": value["DataType"]}


def failures(invocation: Invocation, message_ids: Iterable[str]) -> set[str]:
    """Ids of the messages that stay in the queue, by the rules of ReportBatchItemFailures.

    An error of the function, a response that is not of this shape, or an id that was not in the batch fails all of it.
    """
    known = set(message_ids)
    if invocation.function_error:
        return known
    try:
        response = json.loads(invocation.payload)
        items = ({} if response is None else response).get("batchItemFailures") or []
        reported = {item["itemIdentifier"] for item in items}
    except (ValueError, AttributeError, TypeError, KeyError):
        return known
    if not reported <= known:
        return known
    return reported
