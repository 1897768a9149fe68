"""Starting the platform of this machine from a command: a line for each part, and everything ends with the command."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local.cli.connection import under_uv
from local.cli.failure import Failure
from local.cli.output import note

if TYPE_CHECKING:
    from local.shell import Shell

_PARENT_SECONDS = 0.5


@asynccontextmanager
async def started(
    directory: Path,
    *,
    port: int | None = None,
    ready_file: Path | None = None,
    quiet: bool = False,
    shell: Shell | None = None,
) -> AsyncIterator[dict[str, Any]]:
    """Start every part, yield what `ready.json` says, stop every part; raises Failure with the place of the logs.

    `shell` stands in for the environment of this process.
    """
    from local.platform import platform  # noqa: PLC0415 (it imports every service, after the first line is printed)
    from local.service import ServiceError  # noqa: PLC0415

    on_event = (lambda *_: None) if quiet else tell_part
    try:
        async with platform(directory, port=port, ready_file=ready_file, on_event=on_event, shell=shell) as ready:
            yield ready
    except ServiceError as problem:
        raise Failure(str(problem), hint=f"The logs are in {directory / 'logs'}.") from problem


def tell_part(part: str, seconds: float) -> None:
    """One line on stderr as soon as a part answers."""
    note(f"  {part:<14} {seconds:5.1f} s")


def stop_on_signals() -> None:
    """Let Ctrl-C and SIGTERM end the running task, so that what it started is stopped in order."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 (it is called from a coroutine)

    def stop() -> None:
        # Once: a second cancellation would interrupt the stopping, which is bounded anyway.
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, lambda: None)
        note("\nStopping")
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    if under_uv():
        _stop_with_parent(loop, os.getppid(), stop)


def _stop_with_parent(loop: asyncio.AbstractEventLoop, parent: int, stop: Callable[[], None]) -> None:
    """`uv run` stays beside its command as the process that people see; a kill -9 of it must not leave us running."""
    if os.getppid() == parent:
        loop.call_later(_PARENT_SECONDS, _stop_with_parent, loop, parent, stop)
    else:
        stop()
