"""Keeping a service alive: started, watched, started again on its port when it dies."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn, Protocol

from local.service import Child, ServiceError
from local.watching import exit_of

MAX_QUICK_DEATHS = 5
_QUICK_SECONDS = 10.0
_PAUSE_SECONDS = 0.5

_log = logging.getLogger(__name__)


class Service(Protocol):
    name: str
    process: Child | None

    def start(self) -> None: ...
    def stop(self) -> None: ...


class Keeper:
    """One service, used only from a thread of its own.

    Starting blocks, and on Linux a child gets its death signal when the *thread* that started it ends: this one ends
    with the program.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=service.name)

    async def start(self) -> None:
        """Return when it answers; raises ServiceError."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self.service.start)

    async def stop(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self.service.stop)
        self._thread.shutdown(wait=False)

    async def keep(self, on_restart: Callable[[], None]) -> NoReturn:
        """Start it again whenever it ends; ServiceError when it ends MAX_QUICK_DEATHS times soon after its start."""
        deaths = 0
        while True:
            started = time.monotonic()
            code = await exit_of(self._process())
            deaths = deaths + 1 if time.monotonic() - started < _QUICK_SECONDS else 1
            _log.warning("%s ended with exit code %d; starting it again", self.service.name, code)
            deaths = await self._restart(deaths)
            on_restart()

    async def _restart(self, deaths: int) -> int:
        while deaths < MAX_QUICK_DEATHS:
            try:
                await self.start()
            except ServiceError as error:
                _log.warning("%s", error)
                deaths += 1
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                return deaths
        raise ServiceError(
            f"{self.service.name} ended {deaths} times shortly after its start:\n{self._process().log_end()}"
        )

    def _process(self) -> Child:
        if self.service.process is None:
            raise ServiceError(f"{self.service.name} was never started")
        return self.service.process
