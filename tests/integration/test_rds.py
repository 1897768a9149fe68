"""The functions on what RDS asks of them: TLS that is verified, tokens in place of passwords, passwords that rotate.

PostgreSQL is real; in front of it stands what RDS adds, which checks a token as RDS does: with the SDK's own signature.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import boto3
import botocore.auth
import psycopg
import pytest

import rag
from functions.table import OWNER, ROLES
from local.postgres import Postgres
from rag import wiring
from rag.deadline import Deadline
from rag.errors import UnavailableError
from rag.signing import Credentials, connect_token
from rag.store.database import Database
from rag.store.maintenance import IndexMaintenance
from tests import doors
from tests.certificates import Authority
from tests.integration.deployment import Context, forget_wiring, sample

pytestmark = pytest.mark.slow

HOST = "database.rag.test"
CERTIFICATES = Path(rag.__file__).parent / "certificates"


@dataclass
class Instance:
    """Where a role reaches the database: `tokens` is whoever is a member of rds_iam, `passwords` anybody else."""

    server: Postgres
    name: str
    authority: Authority
    owner_password: str
    passwords: int
    tokens: int

    def url(self, role: str, *, host: str = HOST, ca: Authority | None = None, iam: bool = False) -> str:
        port = self.tokens if iam else self.passwords
        trust = f"sslmode=verify-full&sslrootcert={(ca or self.authority).pem}&hostaddr=127.0.0.1"
        return f"postgresql://{role}@{host}:{port}/{self.name}?{trust}"

    def superuser(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.server.dsn(database=self.name), autocommit=True)


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory, aws: Any) -> Iterator[Instance]:
    folder = tmp_path_factory.mktemp("rds")
    server = Postgres(folder / "postgres", durable=False)
    server.start()
    owner_password = secrets.token_urlsafe(12)
    server.create_database("rag", owner=OWNER, password=owner_password)
    access = server.data / "pg_hba.conf"
    # The owner's line is first, because here, unlike there, who may grant rds_iam is a member of it. To pass the door
    # is all that other members need, as it is PAM that lets them in on RDS.
    lines = [f"host all {OWNER} 127.0.0.1/32 scram-sha-256", "host all +rds_iam 127.0.0.1/32 trust", access.read_text()]
    access.write_text("\n".join(lines))
    with psycopg.connect(server.dsn(), autocommit=True) as superuser:
        superuser.execute("create role rds_iam")
        superuser.execute(f"grant rds_iam to {OWNER} with admin true, inherit false, set false")
        superuser.execute("select pg_reload_conf()")
    authority = Authority(folder, "authority")
    with ExitStack() as stack:
        made = Instance(server, "rag", authority, owner_password, 0, 0)
        made.passwords = stack.enter_context(doors.rds(server.port, authority.server(HOST)))
        made.tokens = stack.enter_context(
            doors.rds(server.port, authority.server(HOST), check=lambda *login: token_is_good(aws, made.tokens, *login))
        )
        yield made
    server.stop()


@pytest.fixture
def function(instance: Instance, aws: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Become the sandbox of a function that connects as this role."""

    def become(role: str, **settings: str) -> None:
        for name, value in aws.environment.items():
            monkeypatch.setenv(name, value)
        iam = {"database_url": instance.url(role, iam=True), "database_auth": "iam"}
        chosen = {"embedding_model": "fake", "embedding_dimensions": "4"} | (settings or iam)
        for name, value in chosen.items():
            monkeypatch.setenv(f"RAG_{name.upper()}", value)
        close()

    def close() -> None:
        if wiring.database.cache_info().currsize:
            wiring.database().close()
        forget_wiring()

    yield become
    close()


@pytest.fixture
def migrated(instance: Instance, aws: Any, function: Callable[..., None]) -> Instance:
    """By the migrate function, with the secret that RDS keeps for its master user."""
    from functions.migrate.handler import handler

    held = json.dumps({"username": OWNER, "password": instance.owner_password})
    secret = aws.client("secretsmanager").create_secret(Name=f"rds!{secrets.token_hex(4)}", SecretString=held)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAG_IAM_ROLES", json.dumps(ROLES))
        patch.setenv("RAG_DATABASE_AUTH", "password")
        function(OWNER, database_url=instance.url(OWNER), database_secret=secret["ARN"])
        handler(sample("migrate/deploy.json"), Context())
    return instance


def token_is_good(aws: Any, port: int, user: str, token: str) -> bool:
    """Whether it is what the SDK would have made then for this user at this endpoint, and then is not too long ago."""
    stamped = parse_qs(token.partition("?")[2]).get("X-Amz-Date", ["19700101T000000Z"])[0]
    at = datetime.strptime(stamped, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    credentials = aws.credentials
    client = boto3.client(
        "rds",
        region_name="us-east-1",
        aws_access_key_id=credentials.access_key_id,
        aws_secret_access_key=credentials.secret_access_key,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda: at)
        wanted = client.generate_db_auth_token(HOST, port, user)
    return token == wanted and timedelta() <= datetime.now(UTC) - at + timedelta(seconds=1) < timedelta(seconds=900)


def connected(instance: Instance, password: Callable[[], str], role: str = "rotating", **place: Any) -> Database:
    return Database(instance.url(role, **place), password)


@pytest.fixture
def rotating(instance: Instance) -> Iterator[Callable[[str], None]]:
    """A role whose password becomes what it is called with, and whose connections end then."""
    with instance.superuser() as superuser:
        superuser.execute("create role rotating login password 'first'")

        def rotate(password: str) -> None:
            superuser.execute(f"alter role rotating password '{password}'".encode())
            superuser.execute("select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = 'rotating'")

        yield rotate
        rotate("over")
        superuser.execute("drop role rotating")


@pytest.mark.usefixtures("migrated")
def test_tenants_are_made_and_known_by_functions_that_log_in_with_tokens(function: Callable[..., None]) -> None:
    from functions.authorize.handler import handler as authorize
    from functions.tenants.handler import handler as tenants

    function("rag_admin")
    made = tenants({"action": "create", "name": secrets.token_hex(4)}, Context())
    function("rag_authorize")
    event = sample("authorize/api_key.json")
    event |= {"headers": {"x-api-key": made["api_key"]}, "multiValueHeaders": {"x-api-key": [made["api_key"]]}}
    assert authorize(event, Context())["context"]["tenant_id"] == made["tenant_id"]


@pytest.mark.usefixtures("migrated")
@pytest.mark.parametrize("role", ROLES)
def test_each_role_of_a_function_logs_in_with_a_token(function: Callable[..., None], role: str) -> None:
    function(role)
    with wiring.database()._connection() as connection:
        assert connection.execute("select current_user").fetchall() == [(role,)]
        assert connection.pgconn.ssl_in_use


@pytest.mark.usefixtures("migrated")
def test_a_lost_connection_is_made_again_with_a_token_of_its_own(
    function: Callable[..., None], instance: Instance
) -> None:
    function("rag_query")
    assert wiring.database().alive()
    with instance.superuser() as superuser:
        superuser.execute("select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = 'rag_query'")
    assert wiring.database().alive()


@pytest.mark.usefixtures("migrated")
def test_a_role_of_another_account_is_refused(function: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    function("rag_query")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(UnavailableError, match="refuses the login"):
        wiring.database().query("alive")


def test_a_token_that_is_too_old_is_refused(migrated: Instance, aws: Any) -> None:
    credentials = Credentials(*aws.credentials)

    def token(age: int) -> Callable[[], str]:
        at = datetime.now(UTC) - timedelta(seconds=age)
        named = {"region": "us-east-1", "credentials": credentials, "at": at}
        return lambda: connect_token(HOST, migrated.tokens, "rag_query", **named)

    young = connected(migrated, token(880), "rag_query", iam=True)
    assert young.alive()
    young.close()
    with pytest.raises(UnavailableError, match="refuses the login"):
        connected(migrated, token(901), "rag_query", iam=True).query("alive")


def test_maintenance_works_with_the_owners_password(migrated: Instance) -> None:
    owner = IndexMaintenance(migrated.url(OWNER), lambda: migrated.owner_password, threshold=10, memory_mib=16)
    assert owner.run(Deadline.after(60)) == []


def test_a_password_that_was_rotated_is_read_again(instance: Instance, rotating: Callable[[str], None]) -> None:
    held = ["first"]
    database = connected(instance, lambda: held[-1])
    assert database.alive()
    rotating("second")
    held.append("second")
    assert database.alive()
    database.close()


def test_a_password_that_is_rotated_between_its_reading_and_its_use_is_read_again(
    instance: Instance, rotating: Callable[[str], None]
) -> None:
    rotating("second")
    given = iter(["first", "second"])
    database = connected(instance, lambda: next(given))
    assert database.alive()
    database.close()


@pytest.mark.usefixtures("rotating")
def test_a_password_that_is_wrong_is_tried_twice_and_no_more(instance: Instance) -> None:
    asked: list[None] = []

    def wrong() -> str:
        asked.append(None)
        return "wrong"

    with pytest.raises(UnavailableError, match="the database refuses the login of this function's role"):
        connected(instance, wrong).query("alive")
    assert len(asked) == 2


def refusal(url: str) -> str:
    with pytest.raises(psycopg.OperationalError) as refused:
        psycopg.connect(url, password="first")
    return str(refused.value)


@pytest.mark.usefixtures("rotating")
def test_only_the_host_that_was_asked_for_may_answer(instance: Instance, tmp_path: Path) -> None:
    assert 'does not match host name "other.rag.test"' in refusal(instance.url("rotating", host="other.rag.test"))
    foreign = Authority(tmp_path, "foreign")
    assert "certificate verify failed" in refusal(instance.url("rotating", ca=foreign))
    with psycopg.connect(instance.url("rotating"), password="first") as verified:
        assert verified.pgconn.ssl_in_use


@pytest.mark.usefixtures("rotating")
@pytest.mark.parametrize("file", ["eu-central-1.pem", "proxy.pem"])
def test_the_roots_that_we_trust_do_not_vouch_for_anybody_else(instance: Instance, file: str) -> None:
    ours = instance.url("rotating").replace(str(instance.authority.pem), str(CERTIFICATES / file))
    assert "certificate verify failed" in refusal(ours)


@pytest.mark.usefixtures("rotating")
def test_without_tls_nobody_gets_in(instance: Instance) -> None:
    assert "no encryption" in refusal(instance.url("rotating").replace("verify-full", "disable"))
