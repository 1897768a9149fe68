"""The servers that tests share: one PostgreSQL and one Valkey a session, a database of its own for each test."""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

pytest_plugins = ["tests.tables"]

# Whoever runs the tests in the background has them ignore Ctrl-C, and so would the programs that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no failure of a property.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import psycopg

    from local.aws_service import Aws
    from local.postgres import Postgres
    from local.valkey import Valkey
    from tests.integration.deployment import Deployment

_OWNER = "rag_owner"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class MigratedDatabase:
    """A database with the project's schema, and the passwords of its roles."""

    server: Postgres
    name: str
    passwords: Mapping[str, str]

    def url(self, role: str) -> str:
        """Without the password, as RAG_DATABASE_URL is."""
        return self.server.dsn(role, self.name)

    def dsn(self, role: str) -> str:
        """With the password."""
        return self.server.dsn(role, self.name, self.passwords[role])

    def superuser_dsn(self) -> str:
        """For looking behind row-level security."""
        return self.server.dsn(database=self.name)


@pytest.fixture(scope="session", autouse=True)
def _patience() -> Iterator[None]:
    """A machine that pauses is no server that is away: a test of one that is sets its own times."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("cache.CONNECT", "cache.CALL", "identity.TIMEOUT", "jwks.TIMEOUT", "jwks.ANSWER"):
            patch.setattr(f"rag.{name}_SECONDS", 30.0)
        yield


@pytest.fixture
def one_day() -> None:
    """For what is counted by the day: the test does not run across midnight UTC."""
    left = -time.time() % 86_400
    if left < 120:
        time.sleep(left + 1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The documents and retrieval sets; a clone without them skips what reads them."""
    named = os.environ.get("TEST_DATA")
    folder = Path(named or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not folder.is_dir():
        reason = f"there is no {folder}: the test documents are not part of the repository (set TEST_DATA)"
        # Who names the folder wants these tests run.
        pytest.fail(reason) if named else pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    from local.postgres import Postgres

    directory = tmp_path_factory.mktemp("servers") / "postgres"
    server = Postgres(directory, durable=False)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def template_database(postgres: Postgres) -> MigratedDatabase:
    """Migrated once; nothing may stay connected to it, or it cannot be cloned."""
    from rag import migrations

    template = MigratedDatabase(postgres, "rag_template", {_OWNER: secrets.token_urlsafe(12)})
    postgres.create_database(template.name, owner=_OWNER, password=template.passwords[_OWNER])
    migrations.migrate(template.dsn(_OWNER))
    passwords = {role: secrets.token_urlsafe(12) for role in _login_roles(template)}
    migrations.set_passwords(template.dsn(_OWNER), passwords)
    return MigratedDatabase(postgres, template.name, {**template.passwords, **passwords})


@pytest.fixture
def database(template_database: MigratedDatabase) -> Iterator[MigratedDatabase]:
    """A fresh clone of the migrated database, gone after the test."""
    with _cloned(template_database) as clone:
        yield clone


@pytest.fixture(scope="module")
def module_database(template_database: MigratedDatabase) -> Iterator[MigratedDatabase]:
    """The same, gone after the module: for processes that are not started anew for each test."""
    with _cloned(template_database) as clone:
        yield clone


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    from local.valkey import Valkey

    server = Valkey(tmp_path_factory.mktemp("servers") / "valkey")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def valkey(valkey_server: Valkey) -> Valkey:
    """The session's server, emptied."""
    import redis

    with redis.Redis.from_url(valkey_server.url) as client:
        client.flushall()
    return valkey_server


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """S3 with a versioned bucket, and SQS."""
    from local.aws_service import Aws
    from tests.integration.deployment import BUCKET

    server = Aws(tmp_path_factory.mktemp("servers") / "aws")
    server.start()
    s3 = server.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    yield server
    server.stop()


@pytest.fixture
def deployment(database: MigratedDatabase, aws: Aws, valkey: Valkey) -> Iterator[Deployment]:
    """The handlers of one deployment, with a tenant of its own."""
    from tests.integration.deployment import deployed

    with deployed(database, aws, valkey.url) as made:
        yield made


@contextmanager
def _cloned(template: MigratedDatabase) -> Iterator[MigratedDatabase]:
    server, name = template.server, f"rag_test_{next(_numbers)}"
    _administer(server, f"create database {name} template {template.name} owner {_OWNER}")
    yield MigratedDatabase(server, name, template.passwords)
    _administer(server, f"drop database {name} with (force)")


def _login_roles(database: MigratedDatabase) -> list[str]:
    query = "select rolname from pg_roles where rolcanlogin and rolname like 'rag\\_%%' and rolname <> %s"
    with _connect(database.superuser_dsn()) as connection:
        return [role for (role,) in connection.execute(query, [_OWNER])]


def _administer(server: Postgres, statement: str) -> None:
    with _connect(server.dsn()) as connection:
        connection.execute(statement.encode())


def _connect(dsn: str) -> psycopg.Connection[Any]:
    import psycopg

    return psycopg.connect(dsn, autocommit=True)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show what tests of the whole measured and printed: their figures are part of the result."""
    shown = "tests/acceptance", "tests/infrastructure"
    passed = [report for report in terminalreporter.stats.get("passed", []) if report.nodeid.startswith(shown)]
    lines = [line for report in passed for line in report.capstdout.splitlines() if line and not line.startswith("{")]
    if lines:
        terminalreporter.section("measured")
        terminalreporter.write("\n".join(lines) + "\n")
