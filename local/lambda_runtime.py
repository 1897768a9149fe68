"""Lambda on this machine: functions that grow sandboxes as they are needed, up to their concurrency.

What is not Lambda's: memory is not limited (an address-space limit is another thing than Lambda's, and breaks native
code that reserves more than it uses), and idle sandboxes stay until the end.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass

from local.runtime_api import MAX_PAYLOAD_BYTES, Event, Outcome, Recipient, RuntimeApi
from local.sandbox import InitError, InitializationType, Launch, Sandbox, SandboxError

TIMED_OUT = "Sandbox.Timedout"
EXITED = "Runtime.ExitError"


class ThrottledError(Exception):
    """All sandboxes stayed busy for as long as an event may wait."""


class PayloadTooLargeError(Exception):
    """Lambda takes and gives at most 6 MB at once."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """What an invocation gave; `function_error` is set where Lambda sets the header X-Amz-Function-Error."""

    request_id: str
    payload: bytes
    function_error: str | None
    duration_ms: float
    init_ms: float | None = None

    @property
    def error_type(self) -> str | None:
        """The `errorType` of a failed invocation: an exception's name, or one of Lambda's own."""
        if self.function_error is None:
            return None
        with suppress(ValueError, AttributeError):
            return str(json.loads(self.payload).get("errorType", "Unknown"))
        return "Unknown"

    @property
    def sandbox_lost(self) -> bool:
        """Whether the sandbox ended under the event instead of the handler answering it."""
        return self.error_type in {TIMED_OUT, EXITED}


class Function:
    """One function of the account; `invoke` is all there is to it."""

    def __init__(
        self,
        launch: Launch,
        runtime_api: RuntimeApi,
        *,
        function_arn: str,
        timeout_seconds: float,
        memory_mib: int,
        concurrency: int,
        queue_seconds: float = 10,
    ) -> None:
        self.name = launch.name
        self.function_arn = function_arn
        self._launch = launch
        self._runtime_api = runtime_api
        self._timeout_seconds = timeout_seconds
        self._memory_mib = memory_mib
        self._queue_seconds = queue_seconds
        self._free = asyncio.Semaphore(concurrency)
        self._sandboxes: set[Sandbox] = set()
        self._idle: list[Sandbox] = []
        self._running: set[asyncio.Task[Invocation]] = set()

    async def invoke(
        self, payload: bytes, *, trace_id: str | None = None, recipient: Recipient | None = None
    ) -> Invocation:
        """Run the handler on this JSON; a caller who goes away does not stop it.

        A recipient gets what is streamed when it comes; without one it is the payload, like what is returned.

        Raises ThrottledError after `queue_seconds` without a free sandbox, PayloadTooLargeError at once.
        """
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise PayloadTooLargeError(f"{len(payload)} bytes, of at most {MAX_PAYLOAD_BYTES}")
        try:
            async with asyncio.timeout(self._queue_seconds):
                await self._free.acquire()
        except TimeoutError:
            raise ThrottledError(f"{self.name}: every sandbox was busy for {self._queue_seconds:g} s") from None
        task = asyncio.create_task(self._run(payload, trace_id or new_trace_id(), recipient))
        self._running.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    async def warm(self) -> None:
        """Have one sandbox ahead of the first event; what goes wrong shows itself at that event."""
        if self._sandboxes:
            return
        async with self._free:
            with suppress(InitError, SandboxError):
                sandbox, _ = await self._sandbox("provisioned-concurrency")
                self._idle.append(sandbox)

    async def drain(self, *, timeout_seconds: float) -> None:
        """Wait for running invocations, but no longer than this."""
        if self._running:
            await asyncio.wait(self._running, timeout=timeout_seconds)

    async def close(self) -> None:
        """Kill every sandbox; another event would start a new one."""
        for sandbox in self._sandboxes:
            sandbox.kill()
        await asyncio.gather(*(sandbox.gone.wait() for sandbox in self._sandboxes))
        self._idle.clear()
        self._sandboxes.clear()

    def _done(self, task: asyncio.Task[Invocation]) -> None:
        self._running.discard(task)
        self._free.release()

    async def _run(self, payload: bytes, trace_id: str, recipient: Recipient | None) -> Invocation:
        request_id = str(uuid.uuid4())
        try:
            sandbox, init_ms = await self._sandbox()
        except InitError as error:
            return self._report(request_id, error.outcome, duration_ms=0, init_ms=None)
        except SandboxError as error:
            return self._report(request_id, _lost(request_id, error), duration_ms=0, init_ms=None)
        event = Event(
            request_id, payload, int((time.time() + self._timeout_seconds) * 1000), self.function_arn, trace_id
        )
        started = time.perf_counter()
        try:
            outcome = await sandbox.run(event, timeout_seconds=self._timeout_seconds, recipient=recipient)
            self._idle.append(sandbox)
        except SandboxError as error:
            await self._forget(sandbox)
            outcome = _lost(request_id, error)
        duration_ms = (time.perf_counter() - started) * 1000
        return self._report(request_id, _within_limit(outcome), duration_ms=duration_ms, init_ms=init_ms)

    async def _sandbox(self, initialization_type: InitializationType = "on-demand") -> tuple[Sandbox, float | None]:
        """The one that was idle for the shortest time, or a new one and the milliseconds its start took."""
        while self._idle:
            sandbox = self._idle.pop()
            if sandbox.alive:
                return sandbox, None
            await self._forget(sandbox)
        sandbox = Sandbox(self._launch, self._runtime_api, initialization_type=initialization_type)
        self._sandboxes.add(sandbox)
        try:
            return sandbox, await sandbox.initialise()
        except (InitError, SandboxError):
            await self._forget(sandbox)
            raise

    async def _forget(self, sandbox: Sandbox) -> None:
        await sandbox.gone.wait()
        self._sandboxes.discard(sandbox)

    def _report(self, request_id: str, outcome: Outcome, *, duration_ms: float, init_ms: float | None) -> Invocation:
        error = "Unhandled" if outcome.failed else None
        invocation = Invocation(request_id, outcome.payload, error, duration_ms, init_ms)
        cold = f"\tInit Duration: {init_ms:.2f} ms" if init_ms is not None else ""
        failed = f"\tStatus: error\tError Type: {invocation.error_type}" if error else ""
        line = (
            f"REPORT RequestId: {request_id}\tDuration: {duration_ms:.2f} ms"
            f"\tBilled Duration: {math.ceil(duration_ms)} ms\tMemory Size: {self._memory_mib} MB{cold}{failed}\n"
        )
        self._launch.log.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._launch.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
        return invocation


def new_trace_id() -> str:
    """An X-Ray trace id; nothing is sampled here."""
    return f"Root=1-{int(time.time()):08x}-{os.urandom(12).hex()};Sampled=0"


def error_payload(error_type: str, message: str) -> bytes:
    """Lambda's shape of an error that the handler did not raise itself."""
    return json.dumps({"errorType": error_type, "errorMessage": message}).encode()


def _lost(request_id: str, error: SandboxError) -> Outcome:
    return Outcome(error_payload(error.error_type, f"RequestId: {request_id} Error: {error.reason}"), failed=True)


def _within_limit(outcome: Outcome) -> Outcome:
    if len(outcome.payload) <= MAX_PAYLOAD_BYTES:
        return outcome
    message = f"Response payload size exceeded maximum allowed payload size ({MAX_PAYLOAD_BYTES} bytes)."
    return Outcome(error_payload("Function.ResponseSizeTooLarge", message), failed=True)
