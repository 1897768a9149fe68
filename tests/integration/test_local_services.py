"""The servers of local mode as real processes: started, killed, interrupted, started again."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import redis

from local import service
from local.postgres import Postgres
from local.valkey import Valkey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def initialised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    server = Postgres(tmp_path_factory.mktemp("initialised") / "postgres")
    server.start()
    server.stop()
    return server.directory


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Postgres]:
    """A durable server of the test's own, under pytest's folder, which is closed to other users (0700)."""
    server = Postgres(tmp_path / "postgres")
    yield server
    server.stop()


@pytest.fixture
def durable(fresh: Postgres, initialised: Path) -> Postgres:
    """The same on a copy of one directory, which saves an initdb."""
    shutil.copytree(initialised, fresh.directory)
    return fresh


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path / "valkey")
    yield server
    server.stop()


def test_the_server_is_postgresql_18_with_pgvector_in_unicode(postgres: Postgres) -> None:
    assert value(postgres, "select current_setting('server_version_num')::int / 10000") == 18
    assert value(postgres, "select default_version from pg_available_extensions where name = 'vector'") == "0.8.5"
    assert value(postgres, "select upper('żółw é')") == "ŻÓŁW É"
    assert value(postgres, "show listen_addresses") == "127.0.0.1"


def test_a_wrong_or_missing_password_is_refused(postgres: Postgres) -> None:
    for password in ("wrong", ""):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(postgres.dsn(password=password))
    assert value(postgres, "select count(*) from pg_hba_file_rules where auth_method <> 'scram-sha-256'") == 0


def test_secrets_are_for_the_owner_only_and_in_no_command_line(postgres: Postgres, valkey: Valkey) -> None:
    kept = [postgres.directory / "superuser-password", valkey.directory / "password", valkey.directory / "valkey.conf"]
    assert [path.stat().st_mode & 0o777 for path in [*kept, postgres.log, valkey.log]] == [0o600] * 5
    commands = [command_line(process_id(server)) for server in (postgres, valkey)]
    assert not [secret for secret in (postgres.password, valkey.password) if any(secret in line for line in commands)]


def test_starting_a_running_server_changes_nothing(postgres: Postgres, valkey: Valkey) -> None:
    before = [(process_id(server), server.port) for server in (postgres, valkey)]
    postgres.start()
    valkey.start()
    assert [(process_id(server), server.port) for server in (postgres, valkey)] == before


def test_a_killed_server_loses_no_committed_row(durable: Postgres) -> None:
    durable.start()
    port = durable.port
    with connect(durable) as busy:
        busy.execute("create table kept (n int)")
        for n in range(100):
            busy.execute("insert into kept values (%s)", [n])
        # The session outlives its postmaster for a moment: the next server has to wait for it.
        kill(durable)
        durable.start()
    assert durable.port == port
    assert value(durable, "select count(*) from kept") == 100


def test_a_server_comes_back_on_its_port_with_its_data(durable: Postgres) -> None:
    durable.start()
    with connect(durable) as connection:
        connection.execute("create table kept as select 1 as n")
    dsn = durable.dsn()
    durable.stop()
    again = Postgres(durable.directory)
    again.start()
    try:
        assert again.dsn() == dsn
        assert value(again, "select n from kept") == 1
    finally:
        again.stop()


def test_a_leftover_pid_file_with_the_number_of_a_living_process_is_no_obstacle(durable: Postgres) -> None:
    durable.start()
    port = durable.port
    durable.stop()
    (durable.data / "postmaster.pid").write_text(
        f"{os.getpid()}\n{durable.data}\n0\n{port}\n\n127.0.0.1\n0 0\nready   \n"
    )
    durable.start()
    assert value(durable, "select 1") == 1


def test_an_interrupted_initdb_is_done_again(fresh: Postgres) -> None:
    with parent("Postgres(Path(sys.argv[1])).start()", str(fresh.directory)) as starter:
        eventually((fresh.directory / "data.new" / "base").exists)
        starter.kill()
    assert not fresh.data.exists()
    fresh.start()
    assert value(fresh, "select count(*) from pg_database") == 3
    assert not (fresh.directory / "data.new").exists()


def test_two_servers_run_side_by_side(postgres: Postgres, durable: Postgres) -> None:
    durable.start()
    assert durable.port != postgres.port
    assert value(durable, "show data_directory") == str(durable.data)
    assert value(postgres, "show data_directory") == str(postgres.data)
    assert value(durable, "show fsync") == "on"


def test_a_directory_in_use_is_refused_by_name(postgres: Postgres) -> None:
    with pytest.raises(service.ServiceError, match=f"{postgres.directory} is in use"):
        Postgres(postgres.directory).start(timeout_seconds=0.1)
    assert value(postgres, "select 1") == 1


def test_a_server_that_cannot_start_says_why(durable: Postgres) -> None:
    durable.start()
    durable.stop()
    with (durable.data / "postgresql.conf").open("a") as configuration:
        configuration.write("nonsense = on\n")
    with pytest.raises(service.ServiceError, match="unrecognized configuration parameter"):
        durable.start()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("true", None),
        ("echo what went wrong; exit 3", "ended with exit code 3:\nwhat went wrong"),
        ("exec sleep 60", "not done within"),
    ],
)
def test_a_program_that_ends_is_waited_for(tmp_path: Path, command: str, said: str | None) -> None:
    log, path = tmp_path / "log", {"PATH": os.defpath}
    program = service.spawn(["sh", "-c", command], name="a program", env=path, cwd=tmp_path, log=log)
    try:
        with nullcontext() if said is None else pytest.raises(service.ServiceError, match=said):
            service.wait_for_end(program, timeout_seconds=2)
    finally:
        service.stop(program)


@pytest.mark.parametrize("program", ["psql", "pg_dump", "pg_restore", "pgbench"])
def test_the_client_programs_run(program: str) -> None:
    version = subprocess.run([Postgres.binary(program), "--version"], capture_output=True, text=True, check=True)
    assert "18." in version.stdout


def test_no_server_outlives_a_killed_parent(tmp_path: Path) -> None:
    code = """
        postgres, valkey = Postgres(Path(sys.argv[1], "postgres")), Valkey(Path(sys.argv[1], "valkey"))
        postgres.start(), valkey.start()
        print(postgres.process.pid, valkey.process.pid, flush=True)
        time.sleep(600)
    """
    with parent(code, str(tmp_path)) as starter:
        assert starter.stdout
        servers = [int(number) for number in starter.stdout.readline().split()]
        backends = children(servers[0])
        assert all(map(is_alive, servers))
        assert backends
        starter.kill()
        starter.wait()
        eventually(lambda: not any(map(is_alive, [*servers, *backends])))
    assert not (tmp_path / "postgres" / "data" / "postmaster.pid").exists()


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="only root can drop root's rights")
def test_as_root_the_server_runs_as_an_ordinary_user_inside_a_closed_folder(durable: Postgres) -> None:
    durable.start()
    assert durable.directory.parent.stat().st_mode & 0o077 == 0
    assert Path(f"/proc/{process_id(durable)}/uid_map").read_text().split() == ["65534", "0", "1"]
    status = Path(f"/proc/{process_id(durable)}/status").read_text()
    assert "CapEff:\t0000000000000000" in status


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="only root can drop root's rights")
def test_as_root_without_user_namespaces_the_server_runs_as_nobody(
    tmp_path: Path, fresh: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = tmp_path / "tether.py"
    original = service._TETHER.read_text()
    refused.write_text(original.replace("if __name__", "_namespace_works = lambda: False\nif __name__"))
    monkeypatch.setattr(service, "_TETHER", refused)
    fresh.start()
    assert fresh.data.stat().st_uid == 65534
    fresh.stop()
    monkeypatch.undo()
    fresh.start()
    assert fresh.data.stat().st_uid == 0
    assert value(fresh, "select 1") == 1


def test_a_killed_valkey_comes_back_at_the_same_address(cache: Valkey) -> None:
    cache.start()
    url = cache.url
    with redis.Redis.from_url(url) as client:
        client.set("kept", "yes")
        client.save()
    kill(cache)
    cache.start()
    assert cache.url == url
    with redis.Redis.from_url(url) as client:
        assert client.get("kept") == b"yes"


def test_a_stopped_valkey_keeps_its_keys(cache: Valkey) -> None:
    cache.start()
    with redis.Redis.from_url(cache.url) as client:
        client.set("kept", "yes")
    cache.stop()
    cache.start()
    with redis.Redis.from_url(cache.url) as client:
        assert client.get("kept") == b"yes"


def test_valkey_wants_its_password(valkey: Valkey) -> None:
    with socket.create_connection(("127.0.0.1", valkey.port)) as stranger:
        stranger.sendall(b"PING\r\n")
        assert stranger.recv(100).startswith(b"-NOAUTH")


def test_each_test_has_a_database_of_its_own_with_the_schema(database: Any) -> None:
    with psycopg.connect(database.dsn("rag_query")) as connection:
        assert connection.execute("select count(*) from documents").fetchone() == (0,)
        assert connection.execute("select current_database()").fetchone() == (database.name,)


def connect(server: Postgres) -> psycopg.Connection[Any]:
    return psycopg.connect(server.dsn(), autocommit=True)


def value(server: Postgres, query: str) -> object:
    with connect(server) as connection:
        row = connection.execute(query.encode()).fetchone()
        assert row
        return row[0]


def process_id(server: Postgres | Valkey) -> int:
    assert server.process
    return server.process.pid


def kill(server: Postgres | Valkey) -> None:
    assert server.process
    server.process.kill()
    server.process.wait()


def command_line(pid: int) -> str:
    return subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=True).stdout


def children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=True)
    return [int(number) for number in listed.stdout.split()]


def is_alive(pid: int) -> bool:
    """A zombie, whose parent is gone or busy, is not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def eventually(probe: Callable[[], bool], timeout_seconds: float = 60) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not probe():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def parent(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Another process that starts servers; its end is the test's subject."""
    imports = """
        import sys, time
        from pathlib import Path
        from local.postgres import Postgres
        from local.valkey import Valkey
    """
    script = textwrap.dedent(imports) + textwrap.dedent(code)
    return subprocess.Popen([sys.executable, "-c", script, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
