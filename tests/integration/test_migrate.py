"""An empty database becomes this code's, through the migrate handler and Secrets Manager's protocol."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

import psycopg
import pytest

from functions.table import ROLES
from local.postgres import Postgres
from rag import wiring
from rag.errors import UnavailableError
from rag.migrations import MigrationError
from tests.integration.deployment import Context, forget_wiring, sample

OWNER_SECRET = "rag/test/rag_owner"


@contextmanager
def vault(held: dict[str, str]) -> Iterator[int]:
    """Secrets Manager's one call; the port that it listens on."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            secret = held.get(asked["SecretId"])
            known = self.headers["X-Amz-Target"] == "secretsmanager.GetSecretValue" and self.headers["Authorization"]
            self.send_response(200 if known and secret else 400)
            self.end_headers()
            self.wfile.write(json.dumps({"SecretString": secret}).encode())

        def log_message(self, *_: object) -> None:
            """Tests speak for themselves."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.05], daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server of its own: roles and their passwords belong to a whole server, which other tests share."""
    server = Postgres(tmp_path_factory.mktemp("migrate") / "postgres", durable=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def passwords(fresh: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """What the secrets hold, for an empty database; the environment is that of the migrate function."""
    name = f"rag_{secrets.token_hex(4)}"
    held = {f"rag/test/{role}": secrets.token_urlsafe(12) for role in ("rag_owner", *ROLES)}
    fresh.create_database(name, owner="rag_owner", password=held[OWNER_SECRET])
    with vault(held) as port:
        environment = {
            "RAG_DATABASE_URL": fresh.dsn("rag_owner", name),
            "RAG_DATABASE_SECRET": OWNER_SECRET,
            "RAG_ROLE_SECRETS": json.dumps({role: f"rag/test/{role}" for role in ROLES}),
            "RAG_EMBEDDING_MODEL": "fake",
            "RAG_EMBEDDING_DIMENSIONS": "4",
            "AWS_ACCESS_KEY_ID": "id",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        }
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)
        forget_wiring()
        yield held
    forget_wiring()


def migrate() -> Any:
    from functions.migrate.handler import handler

    return handler(sample("migrate/deploy.json"), Context())


def log_in(server: Postgres, role: str, password: str, query: str = "select current_user") -> list[Any]:
    name = wiring.settings().database_url.rpartition("/")[2]
    with psycopg.connect(server.dsn(role, name, password)) as connection:
        return connection.execute(query.encode()).fetchall()


@pytest.mark.usefixtures("passwords")
def test_an_empty_database_gets_every_migration_once() -> None:
    every = sorted(file.name for file in files("rag").joinpath("sql/migrations").iterdir())
    assert migrate() == {"applied": every, "warnings": []}
    assert migrate() == {"applied": [], "warnings": []}


def test_each_role_logs_in_with_its_own_password_and_no_other(fresh: Postgres, passwords: dict[str, str]) -> None:
    migrate()
    for role in ROLES:
        assert log_in(fresh, role, passwords[f"rag/test/{role}"]) == [(role,)]
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            log_in(fresh, role, passwords[OWNER_SECRET])


def test_a_rotated_secret_takes_the_place_of_the_old_one(fresh: Postgres, passwords: dict[str, str]) -> None:
    migrate()
    old, passwords["rag/test/rag_query"] = passwords["rag/test/rag_query"], "rotated"
    migrate()
    assert log_in(fresh, "rag_query", "rotated") == [("rag_query",)]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        log_in(fresh, "rag_query", old)


def test_the_deployments_embedding_space_is_known_once(
    fresh: Postgres, passwords: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spaces = "select model, dimensions from embedding_spaces order by id"
    for _ in range(2):
        migrate()
    assert log_in(fresh, "rag_query", passwords["rag/test/rag_query"], spaces) == [("fake", 4)]
    monkeypatch.setenv("RAG_EMBEDDING_MODEL", "another")
    forget_wiring()
    migrate()
    assert log_in(fresh, "rag_query", passwords["rag/test/rag_query"], spaces) == [("fake", 4), ("another", 4)]


def test_no_password_reaches_the_servers_log(fresh: Postgres, passwords: dict[str, str]) -> None:
    migrate()
    log = fresh.log.read_text(errors="replace")
    assert "database system is ready" in log
    assert not [secret for secret in passwords.values() if secret in log]


def test_a_secret_that_cannot_be_read_is_named(passwords: dict[str, str]) -> None:
    del passwords["rag/test/rag_admin"]
    with pytest.raises(UnavailableError, match="rag/test/rag_admin"):
        migrate()
    passwords["rag/test/rag_admin"] = "now it is there"
    migrate()


def test_a_role_that_logs_in_by_iam_becomes_a_member_of_rds_iam_and_gets_no_password(
    fresh: Postgres, passwords: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(fresh.dsn(), autocommit=True) as superuser:
        # As on RDS: the master user may grant it, and is no superuser.
        superuser.execute("create role rds_iam")
        superuser.execute("grant rds_iam to rag_owner with admin true, inherit false, set false")
        try:
            monkeypatch.setenv("RAG_IAM_ROLES", json.dumps(ROLES))
            monkeypatch.setenv("RAG_ROLE_SECRETS", "")
            for _ in range(2):
                forget_wiring()
                migrate()
            members = "select pg_get_userbyid(member) from pg_auth_members where roleid = 'rds_iam'::regrole"
            assert {role for (role,) in superuser.execute(members)} == {"rag_owner", *ROLES}
        finally:
            superuser.execute("drop role rds_iam")


@pytest.mark.usefixtures("passwords")
def test_a_role_cannot_log_in_by_iam_where_the_server_is_not_rds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAG_IAM_ROLES", '["rag_query"]')
    forget_wiring()
    with pytest.raises(MigrationError, match="no role rds_iam"):
        migrate()


def test_the_password_of_the_owner_may_be_in_a_secret_as_rds_keeps_it(passwords: dict[str, str]) -> None:
    passwords[OWNER_SECRET] = json.dumps({"username": "rag_owner", "password": passwords[OWNER_SECRET]})
    assert migrate()["applied"]


@pytest.mark.usefixtures("passwords")
def test_the_owner_is_no_more_than_the_master_user_of_rds(fresh: Postgres) -> None:
    privileges = (
        "select rolsuper, rolbypassrls, rolreplication, rolcreaterole from pg_roles where rolname = 'rag_owner'"
    )
    with psycopg.connect(fresh.dsn()) as superuser:
        assert superuser.execute(privileges.encode()).fetchall() == [(False, False, False, True)]


@pytest.fixture
def empty(fresh: Postgres, passwords: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database as RDS makes it: no extension is in it, and its owner, who is no superuser, may create pgvector.

    RDS grants that by a list of its own; here the extension is marked as a trusted one.
    """
    ours = fresh.directory / "trusted" / "extension"
    ours.mkdir(parents=True)
    [control] = Postgres.binary("postgres").parents[1].rglob("vector.control")
    for file in control.parent.glob("vector*"):
        (ours / file.name).write_bytes(file.read_bytes())
    (ours / control.name).write_text(f"{control.read_text()}trusted = true\n")
    name = f"rag_{secrets.token_hex(4)}"
    with psycopg.connect(fresh.dsn(), autocommit=True) as superuser:
        superuser.execute(f"alter system set extension_control_path = '{ours.parent}:$system'".encode())
        superuser.execute("select pg_reload_conf()")
        superuser.execute(f"create database {name} owner rag_owner".encode())
        monkeypatch.setenv("RAG_DATABASE_URL", fresh.dsn("rag_owner", name))
        forget_wiring()
        yield name
        superuser.execute("alter system reset extension_control_path")
        superuser.execute("select pg_reload_conf()")


def test_the_owner_makes_everything_itself_in_an_empty_database(fresh: Postgres, empty: str) -> None:
    every = sorted(file.name for file in files("rag").joinpath("sql/migrations").iterdir())
    assert migrate() == {"applied": every, "warnings": []}
    assert migrate() == {"applied": [], "warnings": []}
    owner = "select pg_get_userbyid(extowner) from pg_extension where extname = 'vector'"
    with psycopg.connect(fresh.dsn(database=empty)) as superuser:
        assert superuser.execute(owner.encode()).fetchall() == [("rag_owner",)]


def test_changes_of_lexemes_that_were_sparse_vectors_become_arrays(fresh: Postgres, passwords: dict[str, str]) -> None:
    every = sorted(files("rag").joinpath("sql/migrations").iterdir(), key=lambda file: file.name)
    texts = {file.name: file.read_bytes() for file in every}
    name = wiring.settings().database_url.rpartition("/")[2]
    # As many as a row has room for.
    kept = {lexeme: lexeme % 7 - 3 or 1 for lexeme in range(5, 905)}
    sparse = "{" + ",".join(f"{lexeme}:{count}" for lexeme, count in kept.items()) + "}/1000000000"
    with (
        psycopg.connect(fresh.dsn("rag_owner", name, passwords[OWNER_SECRET]), autocommit=True) as owner,
        psycopg.connect(fresh.dsn(database=name), autocommit=True) as superuser,
    ):
        for before in (file for file in texts if file < "0043"):
            with owner.transaction():
                owner.execute(texts[before])
        superuser.execute("set session_replication_role = replica")
        superuser.execute(
            "insert into lexeme_changes (tenant_id, collection_id, changes) values (gen_random_uuid(), 1, %s)", [sparse]
        )
        with owner.transaction():
            owner.execute(texts["0043_lexeme_change_arrays.sql"])
        found = superuser.execute("select lexemes, counts from lexeme_changes").fetchall()
    assert found == [(list(kept), list(kept.values()))]


@pytest.mark.usefixtures("passwords")
def test_a_pgvector_that_is_too_old_is_refused_before_anything_is_changed(fresh: Postgres) -> None:
    name = wiring.settings().database_url.rpartition("/")[2]
    with psycopg.connect(fresh.dsn(database=name), autocommit=True) as superuser:
        superuser.execute("update pg_extension set extversion = '0.7.4' where extname = 'vector'")
        with pytest.raises(MigrationError, match=r"0\.7\.4 .* run `alter extension vector update`"):
            migrate()
        assert superuser.execute("select to_regclass('tenants')").fetchall() == [(None,)]


CVE, VACUUM = "CVE-2026-3172", "vacuum"


@pytest.mark.fault("D9")
@pytest.mark.usefixtures("passwords")
@pytest.mark.parametrize(
    ("version", "reasons"),
    [
        ("0.8.0", [CVE, VACUUM]),
        ("0.8.1", [CVE, VACUUM]),
        ("0.8.2", [VACUUM]),
        ("0.8.3", [VACUUM]),
        ("0.8.4", []),
        ("0.10.0", []),
    ],
)
def test_a_pgvector_with_known_flaws_is_warned_about_with_the_reason_and_what_to_do(
    fresh: Postgres, caplog: pytest.LogCaptureFixture, version: str, reasons: list[str]
) -> None:
    migrate()
    name = wiring.settings().database_url.rpartition("/")[2]
    with psycopg.connect(fresh.dsn(database=name), autocommit=True) as superuser:
        superuser.execute("update pg_extension set extversion = %s where extname = 'vector'", [version])
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []
    told = migrate()
    assert told["applied"] == []
    assert len(told["warnings"]) == len(reasons)
    for warning, reason in zip(told["warnings"], reasons, strict=True):
        assert warning.startswith(f"pgvector {version}: ")
        assert reason in warning
        assert warning.endswith(": run `alter extension vector update`")
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == told["warnings"]
