"""Whatever is killed, and whenever: no acknowledged document is lost, none is torn, and nothing is left running."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from rag.settings import Settings
from tests.acceptance.index_rows import Rows, ingestions_of, rows_of
from tests.acceptance.platform_process import Api, PlatformProcess, assert_problem, platform_process, wait_for

pytestmark = pytest.mark.slow

# More chunks than one request to the model carries, so that a kill can fall between checkpoint and end.
_LONG_SECTIONS = 110


def _section(topic: str, number: int) -> str:
    lamp = number * 7 % 101
    return (
        f"## {topic} {number}\n\nRule {number} of {topic} says that lamp {lamp} is lit at dusk by whoever keeps "
        "the watch, and that nobody puts it out before the last boat of the evening has passed the bar.\n\n"
    )


def _corpus() -> dict[str, bytes]:
    short = {
        f"{topic}.md": f"# Of {topic}\n\n" + "".join(_section(topic, number) for number in range(1, 6))
        for topic in (
            "anchors",
            "buoys",
            "cables",
            "derricks",
            "fenders",
            "hawsers",
            "jetties",
            "keels",
            "oars",
            "piers",
        )
    }
    page = "<html><head><title>Tides</title></head><body><h1>Tides</h1><p>The tide turns at six.</p></body></html>"
    long = "# Lights\n\n" + "".join(_section("lights", number) for number in range(_LONG_SECTIONS))
    whole = {"anchors.md": short.pop("anchors.md"), "lights.md": long, **short, "tides.html": page}
    return {key: text.encode() for key, text in whole.items()}


Answers = list[tuple[float, httpx.Response]]
CORPUS = _corpus()
KEYS = set(CORPUS)


@pytest.fixture(scope="module")
def only_platform() -> Iterator[PlatformProcess]:
    with platform_process() as platform:
        yield platform


@pytest.fixture
def platform(only_platform: PlatformProcess) -> PlatformProcess:
    """The same for every test here, started again where the one before left it dead."""
    if not only_platform.running:
        only_platform.start()
    return only_platform


@pytest.fixture(scope="module")
def undisturbed(only_platform: PlatformProcess) -> Rows:
    """The rows of a run in which nothing was killed."""
    with only_platform.api() as api:
        _upload(api, "undisturbed")
        api.wait_until_ready("undisturbed", KEYS)
    rows = rows_of(only_platform, "undisturbed")
    assert len(rows["chunks"]) >= _LONG_SECTIONS
    return rows


def test_ingest_killed_again_and_again_leaves_every_document_whole(
    platform: PlatformProcess, undisturbed: Rows
) -> None:
    with platform.api() as api:
        _upload(api, "ingest-killed")
        moments: dict[str, Callable[[], bool]] = {
            "the first is being processed": lambda: _processing(api, "ingest-killed"),
            "a part of one is embedded": lambda: (
                bool(platform.rows("select from pending_embeddings limit 1"))
                or api.ready_count("ingest-killed") == len(KEYS)
            ),
            "four are ready": lambda: api.ready_count("ingest-killed") >= 4,
            "eight are ready": lambda: api.ready_count("ingest-killed") >= 8,
        }
        kills = 0
        for name, moment in moments.items():
            seconds = wait_for(moment, lambda: api.documents("ingest-killed"))
            wait_for(lambda: bool(platform.sandboxes("ingest")))  # the one before was just killed
            sandboxes = platform.sandboxes("ingest")
            for pid in sandboxes:
                _kill(pid)
            kills += len(sandboxes)
            print(f"{seconds:.1f} s later, {name}: killed {len(sandboxes)} sandboxes")
        seconds = wait_for(
            lambda: api.ready_count("ingest-killed") == len(KEYS), lambda: api.documents("ingest-killed")
        )
    print(f"{kills} kills; all ready {seconds:.1f} s after the last one")
    assert kills >= 3
    _assert_as_undisturbed(platform, "ingest-killed", undisturbed)
    _assert_parsers_have_a_parent(platform)


def test_postgresql_killed_during_ingest_and_queries_comes_back_and_loses_nothing(
    platform: PlatformProcess, undisturbed: Rows
) -> None:
    with platform.api() as api, _asking(platform) as asked:
        _upload(api, "database-killed")
        wait_for(lambda: _processing(api, "database-killed"))
        _kill_database(platform, asked)
        wait_for(lambda: api.ready_count("database-killed") >= 4)
        _kill_database(platform, asked)
        api.wait_until_ready("database-killed", KEYS)
    failed = [one for _, one in asked if one.status_code != 200]
    print(f"{len(asked)} queries, {len(failed)} failed: {sorted({one.status_code for one in failed})}")
    for one in failed:
        assert_problem(one, 500, 502, 503, 504)
    _assert_as_undisturbed(platform, "database-killed", undisturbed)


def test_documents_uploaded_while_the_model_server_dies_twice_become_ready(
    platform: PlatformProcess, undisturbed: Rows
) -> None:
    with platform.api() as api:
        api.post("/v1/query", {"question": "Who answers?"})  # a connection to the database is a process, too
        before = platform.processes()
        killed = _kill_service(platform, "models")
        _upload(api, "model-killed")
        wait_for(lambda: platform.ready["pids"]["models"] != killed)
        wait_for(lambda: _processing(api, "model-killed"))
        killed = _kill_service(platform, "models")
        seconds = wait_for(lambda: platform.ready["pids"]["models"] != killed)
        print(f"model server back {seconds:.1f} s after it was killed")
        api.wait_until_ready("model-killed", KEYS)
        assert api.post("/v1/query", {"question": "When does the tide turn?"}).json()["degraded"] is None
    _assert_as_undisturbed(platform, "model-killed", undisturbed)
    # The second sandbox of ingest, and a connection to the database for each thread of both.
    assert len(platform.processes()) <= len(before) + 1 + 2 * Settings().ingest_threads


@pytest.mark.parametrize("ready_before", [0, 4])
def test_kill_9_of_the_whole_leaves_nothing_running_and_a_new_start_finishes_the_work(
    platform: PlatformProcess, undisturbed: Rows, ready_before: int
) -> None:
    before, collection = platform.ready, f"all-killed-{ready_before}"
    with platform.api() as api:
        doomed = api.upload("doomed.txt", b"The lighthouse keeper keeps bees.", collection)
        api.wait_until_ready(collection, {"doomed.txt"})
        _upload(api, collection)
        wait_for(lambda: api.ready_count(collection) >= 1 + ready_before)
        family = platform.descendants() | platform.processes()
        erasure = api.http.delete(f"/v1/documents/{doomed}").json()["id"]
        platform.end(signal.SIGKILL)
    seconds = wait_for(lambda: not platform.processes(), platform.processes, timeout_seconds=60)
    print(f"{len(family)} processes gone {seconds:.2f} s after kill -9")
    print(f"ready again after {platform.start():.1f} s")
    assert _same(platform.ready) == _same(before)
    with platform.api(before["api_key"]) as api:
        api.wait_until_ready(collection, KEYS)
        wait_for(lambda: api.get(f"/v1/erasures/{erasure}").json()["status"] == "done")
    _assert_as_undisturbed(platform, collection, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_of_ingest_ends_it_in_order(
    platform: PlatformProcess, undisturbed: Rows, number: signal.Signals
) -> None:
    collection = f"ended-by-{number.name.lower()}"
    with platform.api() as api:
        _upload(api, collection)
        wait_for(lambda: _processing(api, collection))
        assert api.get("/v1/documents").status_code == 200
    began = time.monotonic()
    assert platform.end(number) == 0, platform.output()
    print(f"{number.name}: ended in {time.monotonic() - began:.1f} s")
    wait_for(lambda: not platform.processes(), platform.processes, timeout_seconds=60)
    assert not platform.ready_file.exists()
    assert not (platform.directory / "ready.json").exists()
    assert "Traceback" not in platform.output()
    platform.start()
    with platform.api() as api:
        api.wait_until_ready(collection, KEYS)
    _assert_as_undisturbed(platform, collection, undisturbed)


def test_a_second_one_on_the_same_directory_is_refused_with_a_reason(platform: PlatformProcess) -> None:
    second = platform.launch()
    assert second.wait(60) == 1
    assert f"in use by the platform with process id {platform.pid}" in platform.output()
    assert "Traceback" not in platform.output()
    with platform.api() as api:
        assert api.get("/v1/documents").status_code == 200


def _upload(api: Api, collection: str) -> None:
    """Each of them was acknowledged when this returns."""
    for key, body in CORPUS.items():
        api.upload(key, body, collection)


def _processing(api: Api, collection: str) -> bool:
    """Whether one is being processed, or was before anybody looked."""
    return any(document["status"] in {"processing", "ready"} for document in api.documents(collection).values())


def _kill_database(platform: PlatformProcess, asked: Answers) -> None:
    killed_at = time.monotonic()
    _kill_service(platform, "postgres")
    seconds = wait_for(lambda: any(at > killed_at and answer.status_code == 200 for at, answer in list(asked)))
    print(f"PostgreSQL killed: the first answer {seconds:.1f} s later")


def _kill_service(platform: PlatformProcess, name: str) -> int:
    pid: int = platform.ready["pids"][name]
    _kill(pid)
    return pid


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def _same(ready: dict[str, object]) -> dict[str, object]:
    return {name: ready[name] for name in ("url", "api_key", "tenant_id", "s3_endpoint", "queue_url")}


@contextmanager
def _asking(platform: PlatformProcess) -> Iterator[Answers]:
    """Searches one after the other all the while: when each was asked, and what came."""
    answers: Answers = []
    stop = threading.Event()

    def ask() -> None:
        with platform.api() as api:
            while not stop.wait(0.05):
                began = time.monotonic()
                body = {"query": "Which lamp is lit at dusk?", "collection": "undisturbed"}
                answers.append((began, api.post("/v1/search", body)))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        stop.set()
        thread.join()


def _assert_as_undisturbed(platform: PlatformProcess, collection: str, undisturbed: Rows) -> None:
    """Nothing lost, nothing torn, nothing twice, and each document came to its end once."""
    rows = rows_of(platform, collection)
    for table in undisturbed:
        assert rows[table] == undisturbed[table], table
    runs = [(key, outcome) for key, outcome, _ in ingestions_of(platform, collection)]
    assert sorted(runs) == sorted((key, "ready") for key in KEYS)


def _assert_parsers_have_a_parent(platform: PlatformProcess) -> None:
    wait_for(lambda: platform.processes() <= platform.descendants() | {platform.pid}, platform.processes)
