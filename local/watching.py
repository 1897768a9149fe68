"""How the supervisor learns that a process ended."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import threading


def exit_of(process: subprocess.Popen[bytes]) -> asyncio.Future[int]:
    """A future of the return code (negative: a signal).

    A thread waits for it: asyncio knows only processes that it started itself, and those cannot be tethered.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()

    def settle(code: int) -> None:
        if not ended.done():
            ended.set_result(code)

    def wait() -> None:
        code = process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
            loop.call_soon_threadsafe(settle, code)

    threading.Thread(target=wait, name=f"wait-{process.pid}", daemon=True).start()
    return ended
