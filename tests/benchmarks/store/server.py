"""One embedded PostgreSQL: the product's database, migrated as the product does it, and one for each of the others."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

from local.postgres import Postgres
from rag import migrations

OWNER, PRODUCT = "rag_owner", "rag"
EF_SEARCH = 100
# Memory as of a small RDS instance, so that contestants do not push each other's tables out; connections for all
# contestants' clients at once.
_SETTINGS = {"shared_buffers": "2GB", "max_connections": "120", "max_wal_size": "4GB"}


@dataclass(slots=True)
class Server:
    """A running server; each database's owner has the database's name."""

    postgres: Postgres
    passwords: dict[str, str] = field(default_factory=dict)

    def url(self, role: str, database: str | None = None) -> str:
        """With the password; the role's own database where none is named."""
        return self.postgres.dsn(role, database or role, self.passwords[role])

    def database(self, name: str) -> str:
        """Make a new database where all HNSW indexes are searched equally wide; return its owner's URL."""
        self.drop(name)
        self.passwords[name] = secrets.token_urlsafe(12)
        self.postgres.create_database(name, owner=name, password=self.passwords[name])
        with psycopg.connect(self.postgres.dsn(database=name), autocommit=True) as connection:
            connection.execute("load 'vector'")
            setting = sql.SQL("alter role {} in database {} set {} = {}")
            for option, value in (("hnsw.ef_search", str(EF_SEARCH)), ("jit", "off")):
                connection.execute(
                    setting.format(sql.Identifier(name), sql.Identifier(name), sql.SQL(option), sql.Literal(value))
                )
        return self.url(name)

    def product(self) -> None:
        """Make the product's database anew, with a password for each of its roles."""
        self.drop(PRODUCT)
        self.passwords[OWNER] = secrets.token_urlsafe(12)
        self.postgres.create_database(PRODUCT, owner=OWNER, password=self.passwords[OWNER])
        owner = self.url(OWNER, PRODUCT)
        migrations.migrate(owner)
        roles = {role: secrets.token_urlsafe(12) for role in ("rag_ingest", "rag_query", "rag_admin", "rag_authorize")}
        migrations.set_passwords(owner, roles)
        self.passwords |= roles

    def vacuum(self, database: str) -> None:
        """What autovacuum does within minutes, done now, so that it does not come in the middle."""
        with psycopg.connect(self.postgres.dsn(database=database), autocommit=True) as connection:
            connection.execute("vacuum analyze")
            connection.execute("checkpoint")

    def drop(self, database: str) -> None:
        with psycopg.connect(self.postgres.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(database)))


@contextmanager
def server(directory: Path) -> Iterator[Server]:
    """Start, yield, stop."""
    postgres = Postgres(directory / "postgres")
    postgres._settings = postgres._settings | _SETTINGS
    postgres.start()
    try:
        yield Server(postgres)
    finally:
        postgres.stop()
