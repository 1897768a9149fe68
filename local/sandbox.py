"""One execution environment of a function: a process under AWS's runtime client, on a Runtime API port of its own.

A function whose environment has AWS_LAMBDA_EXEC_WRAPPER is started by that program, as on Lambda.
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-modify.html#runtime-wrapper
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from local import service
from local.runtime_api import Event, Exchange, Outcome, Recipient, RuntimeApi
from local.watching import exit_of

T = TypeVar("T")
# Whether an event waits for the sandbox, or it was started ahead of any.
InitializationType = Literal["on-demand", "provisioned-concurrency", "snap-start"]

# AWS allows 10 s; a laptop that compiles every module for the first time may need more.
INIT_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Launch:
    """How a function's sandboxes are started; `environment` is complete but for what differs between sandboxes."""

    name: str
    handler: str
    environment: Mapping[str, str]
    task_root: Path
    scratch: Path
    log: Path
    python: Path = Path(sys.executable)


class SandboxError(Exception):
    """The sandbox cannot be used any more; `error_type` is Lambda's name for why."""

    def __init__(self, error_type: str, reason: str) -> None:
        super().__init__(reason)
        self.error_type = error_type
        self.reason = reason


class InitError(Exception):
    """The handler's module could not be imported; `outcome` is what the runtime reported."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.payload.decode(errors="replace"))
        self.outcome = outcome


class Sandbox:
    """Takes one event at a time; ends when it crashes, runs out of time or is told to.

    `gone` is set when the process has ended and its port is free for another sandbox.
    """

    def __init__(self, launch: Launch, runtime_api: RuntimeApi, *, initialization_type: InitializationType) -> None:
        self._started = time.perf_counter()
        self._runtime_api = runtime_api
        self._exchange = Exchange()
        self._port = runtime_api.attach(self._exchange)
        self._home = launch.scratch / f"{launch.name}-{self._port}"
        self.gone = asyncio.Event()
        try:
            self.process = self._spawn(launch, initialization_type)
        except BaseException:
            self._clear()
            raise
        self._ended = exit_of(self.process)
        self._ended.add_done_callback(self._release)

    @property
    def alive(self) -> bool:
        return not self._ended.done()

    async def initialise(self) -> float:
        """Milliseconds until the runtime asked for its first event.

        Raises InitError when it reported why it cannot, SandboxError when it ended or hung instead.
        """
        reported = await self._outcome(self._exchange.initialised, INIT_TIMEOUT_SECONDS)
        if reported is not None:
            self.kill()
            await self.gone.wait()
            raise InitError(reported)
        return (time.perf_counter() - self._started) * 1000

    async def run(self, event: Event, *, timeout_seconds: float, recipient: Recipient | None = None) -> Outcome:
        """What the handler returned or raised. SandboxError: it ended first, or was killed because time was up.

        What it streams goes to the recipient, if there is one.
        """
        return await self._outcome(self._exchange.offer(event, recipient), timeout_seconds)

    def kill(self) -> None:
        """SIGKILL, as Lambda does it."""
        if self.process.stdin:  # a tether stands between: it kills the command when this pipe closes
            self.process.stdin.close()
        else:
            self.process.kill()

    async def _outcome(self, awaited: asyncio.Future[T], timeout_seconds: float) -> T:
        either: set[asyncio.Future[Any]] = {awaited, self._ended}
        await asyncio.wait(either, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        if awaited.done():
            return awaited.result()
        if self._ended.done():
            await self.gone.wait()
            raise SandboxError("Runtime.ExitError", f"Runtime exited {_manner(self._ended.result())}")
        self.kill()
        await self.gone.wait()
        raise SandboxError("Sandbox.Timedout", f"Task timed out after {timeout_seconds:.2f} seconds")

    def _spawn(self, launch: Launch, initialization_type: InitializationType) -> service.Child:
        shutil.rmtree(self._home, ignore_errors=True)
        self._home.mkdir(mode=0o700, parents=True)
        day = time.strftime("%Y/%m/%d", time.gmtime())
        wrapper = launch.environment.get("AWS_LAMBDA_EXEC_WRAPPER")
        return service.spawn(
            [*([wrapper] if wrapper else []), launch.python, "-m", "awslambdaric", launch.handler],
            name=launch.name,
            env={
                **launch.environment,
                "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._port}",
                "AWS_LAMBDA_INITIALIZATION_TYPE": initialization_type,
                "AWS_LAMBDA_LOG_STREAM_NAME": f"{day}/[$LATEST]{os.urandom(16).hex()}",
                "HOME": str(self._home),
                "TMPDIR": str(self._home),
            },
            cwd=launch.task_root,
            log=launch.log,
        )

    def _release(self, _: asyncio.Future[int]) -> None:
        self._clear()
        self.gone.set()

    def _clear(self) -> None:
        self._runtime_api.detach(self._port)
        shutil.rmtree(self._home, ignore_errors=True)


def _manner(code: int) -> str:
    if code == 0:
        return "without providing a reason"
    if code > 0:
        return f"with error: exit status {code}"
    return f"with error: signal: {(signal.strsignal(-code) or str(-code)).lower()}"
