"""The whole platform in one program: services, functions, the ways in, and a file that says it is ready.

    python -m local.platform --data DIR [--port N] [--ready-file FILE] [--packages FILE]

does what `rag up` does, without its words.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    closing,
    contextmanager,
    suppress,
)
from functools import partial
from pathlib import Path
from socket import socket
from typing import Any

from functions.table import INGEST
from local import clock, issuer, service
from local.account import Account
from local.asgi import listen
from local.backing import Backing, OnEvent
from local.code import Code, of_packages
from local.entrances import Entrances
from local.issuer import Users
from local.plan import Plan, of_the_table
from local.preparation import prepared
from local.resources import Queues
from local.service import ServiceError
from local.shell import Shell, read

DRAIN_SECONDS = 10
# A killed predecessor lets go by itself, but not before the kernel has buried it.
_CLAIM_SECONDS = 2.0

Ready = dict[str, Any]


def _quiet(_part: str, _seconds: float) -> None:
    pass


@asynccontextmanager
async def platform(
    directory: Path,
    *,
    port: int | None = None,
    ready_file: Path | None = None,
    on_event: OnEvent = _quiet,
    shell: Shell | None = None,
    packaged: Mapping[str, Code] | None = None,
    plan: Plan | None = None,
) -> AsyncIterator[Ready]:
    """Start everything, yield what DIR/ready.json says, stop everything; to be entered in the main thread.

    `port` is the API's; without it, the one of the last time. `on_event` hears of each part and the seconds it took.
    `shell` is what the user's environment says; without it, that of this process is read. `packaged` is the code of
    functions that shall not run out of the repository, by name. Without a `plan`, that of the functions' table is run.
    Raises ServiceError when something cannot be started or does not stay alive; then the body is cancelled.
    """
    plan = plan or of_the_table()
    directory, shell = directory.resolve(), shell or read(os.environ)  # noqa: ASYNC240  (microseconds, once)
    with _first_failure(), _claimed(directory), _logged(directory / "logs"), closing(_door(directory, port)) as door:
        ready_files = _ready_files(directory, ready_file)
        async with AsyncExitStack() as stack:
            issuer_door = stack.enter_context(issuer.door(directory))
            backing = Backing(directory, plan, shell.model, on_event)
            stack.push_async_callback(backing.stop)
            async with asyncio.TaskGroup() as group:
                group.create_task(backing.start_models())
                queues = await backing.start()
                account = Account(
                    directory,
                    plan,
                    backing,
                    queues,
                    shell.settings,
                    packaged or {},
                    issuer_url=issuer.url_of(issuer_door),
                )
                stack.push_async_callback(account.close, drain_seconds=DRAIN_SECONDS)
                await account.open()
                tenant = await prepared(account, directory, on_event)
            entrances = Entrances(
                account, plan, backing.aws, queues, door, Users(directory), issuer_door, grace_seconds=DRAIN_SECONDS
            )
            stack.push_async_callback(entrances.close)
            await entrances.open()
            ready = _described(directory, plan, backing, queues, entrances) | tenant
            announce = stack.enter_context(_announced(ready, backing, ready_files))
            async with _kept(plan, backing, account, announce):
                yield ready


def run(
    directory: Path,
    port: int | None = None,
    ready_file: Path | None = None,
    *,
    on_event: OnEvent = _quiet,
    packaged: Mapping[str, Code] | None = None,
    plan: Plan | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; raises ServiceError."""
    served = platform(directory, port=port, ready_file=ready_file, on_event=on_event, packaged=packaged, plan=plan)
    with suppress(asyncio.CancelledError):
        asyncio.run(_serve(served))


async def _serve(served: AbstractAsyncContextManager[Ready]) -> None:
    serving = asyncio.current_task()
    assert serving is not None  # noqa: S101  (this is a coroutine)
    loop = asyncio.get_running_loop()

    def end() -> None:
        # Once: a second cancellation would interrupt the stopping, which is bounded anyway.
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, lambda: None)
        serving.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    async with served:
        await asyncio.Event().wait()


def _described(directory: Path, plan: Plan, backing: Backing, queues: Queues, entrances: Entrances) -> Ready:
    arrivals = plan.queue_of(INGEST)
    dead_letters = {"dead_letter_queue_url": queues[arrivals.dead_letters].url} if arrivals.dead_letters else {}
    return {
        "url": entrances.url,
        "openai_base_url": backing.model.url,
        "s3_endpoint": backing.aws.url,
        "bucket": plan.bucket.name,
        "data": str(directory),
        "queue_url": queues[arrivals.name].url,
        **dead_letters,
        **backing.aws.credentials._asdict(),
        "issuer_url": entrances.issuer_url,
        "admin_url": entrances.admin_url,
        "admin_token": entrances.admin_token,
    }


def _ready_files(directory: Path, another: Path | None) -> list[Path]:
    """Where readiness is announced; what a killed predecessor announced there is no longer true."""
    paths = [path for path in (directory / "ready.json", another) if path]
    for path in paths:
        path.unlink(missing_ok=True)
    return paths


@contextmanager
def _announced(ready: Ready, backing: Backing, paths: Sequence[Path]) -> Iterator[Callable[[], None]]:
    """Write the files, give the function that writes them anew after a restart, remove them at the end."""

    def announce() -> None:
        ready["pids"] = {"supervisor": os.getpid(), **backing.pids}
        for path in paths:
            service.write_private(path, json.dumps(ready, indent=2))

    announce()
    try:
        yield announce
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


@asynccontextmanager
async def _kept(plan: Plan, backing: Backing, account: Account, on_restart: Callable[[], None]) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        works = (backing.keep(on_restart), account.warm(), clock.run(account, plan.functions))
        tasks = [group.create_task(work) for work in works]
        yield
        for task in tasks:
            task.cancel()


@contextmanager
def _first_failure() -> Iterator[None]:
    """What started side by side fails in a group: the first one is the cause, the others were cancelled for it."""
    try:
        yield
    except BaseExceptionGroup as group:
        failure: BaseException = group
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
        raise failure from None


@contextmanager
def _claimed(directory: Path) -> Iterator[None]:
    """One platform per directory; ServiceError names the process that has it."""
    holder = directory / "pid"
    claim = service.claimed(directory, timeout_seconds=_CLAIM_SECONDS)
    try:
        claim.__enter__()
    except ServiceError:
        pid = holder.read_text() if holder.exists() else "unknown"
        raise ServiceError(f"{directory} is in use by the platform with process id {pid}; end it first") from None
    try:
        service.write_private(holder, str(os.getpid()))
        yield
    finally:
        holder.unlink(missing_ok=True)
        claim.__exit__(None, None, None)


def _door(directory: Path, port: int | None) -> socket:
    """The API's socket, bound before anything is started: a port that is taken is better heard of at once."""
    wanted = service.kept_port(directory / "port") if port is None else port
    try:
        return listen(wanted)
    except OSError as error:
        raise ServiceError(f"port {wanted} cannot be used ({error.strerror}); choose another one") from error


@contextmanager
def _logged(logs: Path) -> Iterator[None]:
    """What the supervisor's own parts have to say goes to `platform.log`."""
    logs.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(logs / "platform.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    loggers = [logging.getLogger(name) for name in ("local", "uvicorn.error")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
            logger.propagate = True
        handler.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m local.platform", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="directory that keeps everything")
    parser.add_argument("--port", type=int, help="port of the API; else the one of the last time")
    parser.add_argument("--ready-file", type=Path, help="written once everything is ready, removed at the end")
    parser.add_argument("--packages", type=Path, help="JSON file that says where the packaged functions are")
    options = parser.parse_args()
    began = time.monotonic()
    try:
        packaged = of_packages(options.packages) if options.packages else None
        heard = partial(_tell, began=began)
        run(options.data, options.port, options.ready_file, on_event=heard, packaged=packaged)
    except ServiceError as error:
        sys.exit(str(error))


def _tell(part: str, _seconds: float, *, began: float) -> None:
    print(f"{time.monotonic() - began:6.2f} s  {part}", flush=True)  # noqa: T201  (it is a program here)


if __name__ == "__main__":
    main()
