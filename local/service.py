"""Child processes that end with this one, and the ports, files and directories they keep."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_TETHER = Path(__file__).with_name("tether.py")
# Below the ephemeral ports of every system: no outgoing connection can take a server's port while it restarts.
_PORTS = range(20_000, 32_000)


class ServiceError(Exception):
    """A local service could not be installed, started or reached; the message holds the end of its log."""


class Child(subprocess.Popen[bytes]):
    """A tethered process that knows its name and its part of the log."""

    name: str
    log: Path
    log_start: int

    def log_end(self, lines: int = 15) -> str:
        """What it wrote since it was started: at most the last `lines` lines."""
        with self.log.open("rb") as log:
            log.seek(self.log_start)
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])


def spawn(
    command: Sequence[str | Path],
    *,
    name: str,
    env: Mapping[str, str],
    cwd: Path,
    log: Path,
    death_signal: signal.Signals = signal.SIGKILL,
    drop_root: Path | None = None,
    inherit: Sequence[int] = (),
) -> Child:
    """Start `command` so that it ends with this process, however this one ends.

    Call it only from a thread that lives as long as the process, best the main one: on Linux the child gets
    `death_signal` when the *thread* that started it ends. The child sees exactly `env` and the descriptors in
    `inherit`, has a session of its own (Ctrl-C reaches only this process) and appends its output to `log` (mode 0600).
    As root, `drop_root` names the directory to keep for a program that refuses to run as root.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        log_start = os.fstat(output).st_size
        child = Child(
            [*_tether(death_signal, drop_root), *map(str, command)],
            # The pipe is how a tether without the kernel's help learns that this process ended.
            stdin=subprocess.DEVNULL if sys.platform == "linux" else subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
            pass_fds=tuple(inherit),
        )
    finally:
        os.close(output)
    child.name, child.log, child.log_start = name, log, log_start
    return child


def _tether(death_signal: signal.Signals, drop_root: Path | None) -> list[str]:
    dropping = ["--drop-root", str(drop_root)] if drop_root else []
    options = ["--parent", str(os.getpid()), "--signal", death_signal.name, *dropping]
    # -I: neither variables of the environment nor the modules beside tether.py; -S: no site-packages, so a fast start.
    return [sys.executable, "-I", "-S", str(_TETHER), *options, "--"]


def stop(
    process: subprocess.Popen[bytes],
    *,
    timeout_seconds: float = 10,
    ask: signal.Signals = signal.SIGTERM,
    insist: signal.Signals | None = None,
) -> int:
    """Send `ask`, then `insist`, then kill, each after `timeout_seconds` of the one before; return the exit code."""
    try:
        for number in filter(None, (ask, insist)):
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                return process.wait(timeout_seconds)
        _kill(process)
        return process.wait()
    finally:
        if process.stdin:
            process.stdin.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.stdin:
        # Here the tether is still the command's parent: killed it could not end it, at the end of its input it does.
        process.stdin.close()
    else:
        process.kill()


def wait_until(probe: Callable[[], bool], *, timeout_seconds: float, process: Child) -> None:
    """Return once `probe` is true; an OSError of it (connection refused, no such file) counts as not yet.

    Raises ServiceError with the end of the log when the process ends first or the time is up.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        with suppress(OSError):
            if probe():
                return
        if (code := process.poll()) is not None:
            raise _ended(process, code)
        if time.monotonic() > deadline:
            raise _late(process, "ready", timeout_seconds)
        time.sleep(0.01)


def wait_for_end(process: Child, *, timeout_seconds: float) -> None:
    """Return once the process has ended with 0.

    Raises ServiceError with the end of the log when it ends with anything else or the time is up.
    """
    try:
        code = process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        raise _late(process, "done", timeout_seconds) from None
    if code:
        raise _ended(process, code)


def _ended(process: Child, code: int) -> ServiceError:
    return ServiceError(f"{process.name} ended with exit code {code}:\n{process.log_end()}")


def _late(process: Child, what: str, timeout_seconds: float) -> ServiceError:
    return ServiceError(f"{process.name} was not {what} within {timeout_seconds:g} s:\n{process.log_end()}")


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens now."""
    return next(port for port in random.sample(_PORTS, len(_PORTS)) if is_free(port))


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def kept_port(path: Path) -> int:
    """The port written in `path` while it is free, so that URLs survive a restart; else a new one, written there."""
    with suppress(FileNotFoundError, ValueError):
        port = int(path.read_text())
        if is_free(port):
            return port
    port = free_port()
    write_private(path, str(port))
    return port


def kept_secret(path: Path, make: Callable[[], str]) -> str:
    """The secret written in `path` (mode 0600); the first time, a new one from `make`."""
    if not path.exists():
        write_private(path, make())
    return path.read_text()


def write_private(path: Path, text: str) -> None:
    """Write the file whole or not at all, readable by its owner only."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


@contextmanager
def claimed(directory: Path, *, timeout_seconds: float) -> Iterator[int]:
    """Hold the directory (made with mode 0700 where absent); yields the descriptor of the claim.

    A process that inherits the descriptor keeps the claim until it and all its children have ended, also by kill -9. So
    whoever enters knows that no process of an earlier server on this directory is left, whatever pid files say.
    Raises ServiceError when somebody still holds it after `timeout_seconds`.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    claim = os.open(directory / "claim", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(claim, directory, time.monotonic() + timeout_seconds)
        yield claim
    finally:
        os.close(claim)


def _lock(claim: int, directory: Path, deadline: float) -> None:
    while True:
        try:
            return fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ServiceError(f"{directory} is in use by another process; stop that one first") from None
        time.sleep(0.01)


def packaged(package: str, pattern: str) -> Path:
    """The first file matching `pattern` inside an installed package, found without importing the package."""
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in Path(folder).glob(pattern):
            return path
    raise ServiceError(f"{package} with {pattern} is not installed here; run `uv sync`")
