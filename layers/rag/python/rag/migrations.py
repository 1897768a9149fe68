"""Schema changes: numbered SQL files, each applied once, in order, in a transaction of its own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import psycopg
from psycopg import sql

from rag.errors import RagError
from rag.types import EmbeddingSpace

_FILE = re.compile(r"^(\d{4})_(\w+)\.sql$")
_LOCK = 0x5241_4700  # one migration at a time, whoever starts it
CONNECT_SECONDS = 5
# Iterative scans, without which a filter shortens what an index finds.
LEAST_VECTOR_VERSION = (0, 8)
# The version that is free of it → what an older one may do. Not refused: RDS decides when it has a newer one. Sources:
# CVE-2026-3172 (pgvector issue 959), pgvector's changelog for 0.8.3 and 0.8.4 (pull request 988, issue 993).
VECTOR_FLAWS = {
    (0, 8, 2): "the build of an index may show rows of other tables or crash the server (CVE-2026-3172)",
    (0, 8, 4): "vacuum beside ingests may corrupt the indexes of vectors, or fail over them",
}

_HISTORY = b"""
create table if not exists schema_migrations (
  version integer primary key,
  name text not null,
  digest text not null,
  applied_at timestamptz not null default now()
)
"""


class MigrationError(RagError):
    """The database's history is not the one that this code has."""


def migrate(url: str, password: str | None = None) -> list[str]:
    """Apply what has not been applied, as rag_owner, and return the names; nothing happens when run again.

    MigrationError when an applied file was changed since, or is unknown to this code, or pgvector is too old.
    """
    with _connected(url, password) as connection:
        connection.execute("select pg_advisory_lock(%s)", [_LOCK])
        connection.execute(_HISTORY)
        applied: dict[int, str] = dict(connection.execute("select version, digest from schema_migrations").fetchall())
        found = _files()
        _refuse_old(connection)
        _refuse_unknown(applied, found)
        return [
            _apply(connection, version, name, text)
            for version, name, text in found
            if not _is_applied(applied, version, name, text)
        ]


def warnings(url: str, password: str | None = None) -> list[str]:
    """What may go wrong with the pgvector of a migrated database, and what to do about it; empty for a recent one."""
    with _connected(url, password) as connection:
        version, newest = _vector_versions(connection)
    return [
        f"pgvector {version}: {flaw}; {_joined(fixed)} or newer is free of it: {_remedy(newest, fixed)}"
        for fixed, flaw in VECTOR_FLAWS.items()
        if _numbers(version) < fixed
    ]


def ensure_space(url: str, space: EmbeddingSpace, password: str | None = None) -> None:
    """Make the deployment's embedding space known; nothing happens when it is."""
    with _connected(url, password) as connection:
        connection.execute(
            "insert into embedding_spaces (model, dimensions) values (%s, %s) on conflict do nothing",
            [space.model, space.dimensions],
        )


def set_passwords(url: str, passwords: Mapping[str, str], password: str | None = None) -> None:
    """Give each role its password, hashed here so that none reaches the server or its log."""
    with _connected(url, password) as connection:
        for role, secret in passwords.items():
            hashed = connection.pgconn.encrypt_password(secret.encode(), role.encode(), b"scram-sha-256")
            connection.execute(
                sql.SQL("alter role {} password {}").format(sql.Identifier(role), sql.Literal(hashed.decode()))
            )


def grant_iam(url: str, roles: Sequence[str], password: str | None = None) -> None:
    """Have RDS ask these roles for a token of AWS's in place of a password.

    MigrationError when the server is none of RDS's. Source: RDS user guide, "Creating a database account using IAM
    authentication".
    """
    if not roles:
        return
    with _connected(url, password) as connection:
        if connection.execute("select from pg_roles where rolname = 'rds_iam'").fetchone() is None:
            msg = "the server has no role rds_iam: roles log in by IAM only on RDS with IAM database authentication"
            raise MigrationError(msg)
        for role in roles:
            connection.execute(sql.SQL("grant rds_iam to {}").format(sql.Identifier(role)))


def _connected(url: str, password: str | None) -> psycopg.Connection[Any]:
    return psycopg.connect(url, password=password, autocommit=True, connect_timeout=CONNECT_SECONDS)


def _files() -> list[tuple[int, str, str]]:
    entries = (_FILE.match(entry.name) for entry in files("rag").joinpath("sql/migrations").iterdir())
    found = sorted((int(match[1]), match[0]) for match in entries if match)
    folder = files("rag").joinpath("sql/migrations")
    return [(version, name, folder.joinpath(name).read_text(encoding="utf-8")) for version, name in found]


def _refuse_old(connection: psycopg.Connection[Any]) -> None:
    version, newest = _vector_versions(connection)
    if _numbers(version) < LEAST_VECTOR_VERSION:
        wanted = _joined(LEAST_VECTOR_VERSION)
        msg = f"pgvector {version} cannot search an index on until its list is full: {wanted} or newer is needed; "
        msg += _remedy(newest, LEAST_VECTOR_VERSION)
        raise MigrationError(msg)


def _vector_versions(connection: psycopg.Connection[Any]) -> tuple[str, str]:
    """Its version, and the one that the server has for it.

    An extension keeps its version when the server gets a newer one; as yet unmade, it becomes the server's.
    """
    found = connection.execute("""
        select coalesce(installed_version, default_version), default_version
        from pg_available_extensions where name = 'vector'
    """).fetchone()
    if found is None:
        msg = "the server has no pgvector: install the extension `vector`"
        raise MigrationError(msg)
    version, newest = found
    return version, newest


def _remedy(newest: str, wanted: tuple[int, ...]) -> str:
    if _numbers(newest) >= wanted:
        return "run `alter extension vector update`"
    return "upgrade the database's engine"


def _joined(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _refuse_unknown(applied: Mapping[int, str], known: Sequence[tuple[int, str, str]]) -> None:
    unknown = sorted(applied.keys() - {version for version, _, _ in known})
    if unknown:
        msg = f"the database has migrations that this code does not know ({unknown}): deploy the newer code"
        raise MigrationError(msg)


def _is_applied(applied: Mapping[int, str], version: int, name: str, text: str) -> bool:
    if version not in applied:
        return False
    if applied[version] != _digest(text):
        msg = f"{name} was changed after it had been applied: put it back and add a new migration"
        raise MigrationError(msg)
    return True


def _apply(connection: psycopg.Connection[Any], version: int, name: str, text: str) -> str:
    with connection.transaction():
        connection.execute(text.encode())
        connection.execute(
            "insert into schema_migrations (version, name, digest) values (%s, %s, %s)", [version, name, _digest(text)]
        )
    return name


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
