"""The runtime loop and the gateway with handlers that stream well, badly, too slowly or not at all."""

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.code import of_repository
from local.runtime_api import RuntimeApi
from local.sandbox import InitError, Launch, Sandbox
from tests.integration.streaming import Streaming, streaming

pytestmark = pytest.mark.slow

_PROBE = """
import json, os, pathlib, time
from functions.query import runtime

MARKS = pathlib.Path(os.environ["MARKS"])

def mark(name):
    with (MARKS / "marks").open("a") as file:
        file.write(name + chr(10))

def handler(event, context, response):
    asked = json.loads(event["body"])
    if asked.get("silent_seconds"):
        time.sleep(asked["silent_seconds"])
    if asked.get("refuses"):
        raise ValueError("before anything")
    if "prelude" in asked:
        raw(response, asked["prelude"].encode())
    else:
        response.begin({"statusCode": asked.get("status", 200), "headers": {"x-probe": "1"},
                        "multiValueHeaders": {"set-cookie": ["a=1", "b=2"]}})
    for number in range(asked.get("chunks", 0)):
        response.write(b"x" * asked.get("size", 1))
        time.sleep(asked.get("seconds", 0))
        while asked.get("steps") and not (MARKS / f"seen {number}").exists():
            time.sleep(0.01)
    if asked.get("fails"):
        raise ValueError(asked["fails"])
    if asked.get("exits"):
        os._exit(3)
    if asked.get("sleeps"):
        time.sleep(600)
    response.end()

def raw(response, prelude):
    write, response.write = response.write, lambda data: None
    response.begin({})
    response.write = write
    response.write(prelude[:9])
    time.sleep(0.05)
    response.write(prelude[9:])

def load():
    import snapshot_restore_py as hooks
    broken = os.environ.get("BROKEN")
    hooks.register_before_snapshot(mark, "before 1")
    hooks.register_before_snapshot(mark, "before 2")
    if broken == "before":
        hooks.register_before_snapshot(os.stat, "/nowhere")
    hooks.register_after_restore(mark, "after 1")
    hooks.register_after_restore(mark, "after 2")
    if broken == "after":
        hooks.register_after_restore(os.stat, "/nowhere")
    return handler

if __name__ == "__main__":
    runtime.run(load)
"""


def variables(folder: Path) -> dict[str, str]:
    (folder / "probe.py").write_text(_PROBE)
    wrapper = folder / "wrapper.sh"
    wrapper.write_text('#!/bin/sh\nexec "$1" -u -m probe\n')
    wrapper.chmod(0o755)
    ours = of_repository()
    path = os.pathsep.join(map(str, [folder, ours.task_root, *ours.layers]))
    return {"PATH": os.defpath, "MARKS": str(folder), "PYTHONPATH": path, "AWS_LAMBDA_EXEC_WRAPPER": str(wrapper)}


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Streaming]:
    folder = tmp_path_factory.mktemp("probe")
    with streaming(folder, variables(folder), task_root=folder, tenant=uuid.uuid4()) as running:
        yield running


def is_problem(response: httpx.Response, status: int) -> None:
    assert (response.status_code, response.json()["status"]) == (status, status)
    assert response.headers["content-type"] == "application/problem+json"


def received(probe: Streaming, **body: Any) -> bytes:
    """What came before the body broke off; it must."""
    got: list[bytes] = []
    with probe.client() as client, client.stream("POST", "/v1/query", json=body) as response:
        assert response.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
            got.extend(response.iter_raw())  # what came before the break stays
    return b"".join(got)


def test_status_and_headers_are_those_of_the_prelude(probe: Streaming) -> None:
    response = probe.ask(status=418, chunks=3, size=2)
    assert (response.status_code, response.content) == (418, b"xxxxxx")
    assert (response.headers["x-probe"], response.headers.get_list("set-cookie")) == ("1", ["a=1", "b=2"])
    assert response.headers["x-request-id"] == response.headers["x-amzn-requestid"]


def test_each_chunk_is_passed_on_when_it_is_written(tmp_path: Path) -> None:
    with (
        streaming(tmp_path, variables(tmp_path), task_root=tmp_path, tenant=uuid.uuid4(), timeout_seconds=30) as probe,
        probe.client() as client,
        client.stream("POST", "/v1/query", json={"chunks": 4, "steps": True}) as response,
    ):
        seen = []
        for number, chunk in enumerate(response.iter_raw()):
            seen.append(chunk)
            (tmp_path / f"seen {number}").touch()  # before which the next one is not written
    assert seen == [b"x"] * 4


def test_a_stream_may_be_larger_than_any_payload(probe: Streaming) -> None:
    assert len(probe.ask(chunks=100, size=100_000).content) == 10_000_000


def test_whoever_invokes_it_without_a_gateway_gets_it_whole(probe: Streaming) -> None:
    invocation = probe.invoke({"body": json.dumps({"chunks": 2})})
    prelude, body = invocation.payload.split(bytes(8))
    assert (json.loads(prelude)["statusCode"], body, invocation.function_error) == (200, b"xx", None)
    failed = probe.invoke({"body": json.dumps({"chunks": 2, "fails": "halfway"})})
    assert (failed.function_error, failed.error_type) == ("Unhandled", "ValueError")
    assert json.loads(failed.payload)["errorMessage"] == "halfway"


def test_an_error_midway_comes_as_trailers_and_the_client_sees_the_body_broken_off(probe: Streaming) -> None:
    before = probe.sandboxes()
    assert received(probe, chunks=2, fails="halfway" * 10_000) == b"xx"
    assert probe.ask(chunks=1).content == b"x"
    assert "Status: error\tError Type: ValueError\n" in probe.log.read_text()
    assert probe.sandboxes() == before


def test_an_error_before_the_prelude_is_a_problem_of_the_gateway(probe: Streaming) -> None:
    is_problem(probe.ask(refuses=True), 502)
    assert "before anything" not in probe.ask(refuses=True).text


MALFORMED = {
    "nothing": "",
    "no json": "no json\0\0\0\0\0\0\0\0",
    "no object": "[]\0\0\0\0\0\0\0\0",
    "no status": "{}\0\0\0\0\0\0\0\0",
    "strange status": '{"statusCode": 99}\0\0\0\0\0\0\0\0',
    "strange header": '{"statusCode": 200, "headers": {"a b": 1}}\0\0\0\0\0\0\0\0',
    "no end": '{"statusCode": 200}\0\0\0\0\0\0\0',
    "too long": '{"statusCode": 200}' + " " * 20_000 + "\0\0\0\0\0\0\0\0",
}


@pytest.mark.parametrize("prelude", MALFORMED.values(), ids=MALFORMED)
def test_what_api_gateway_would_not_take_is_502(probe: Streaming, prelude: str) -> None:
    is_problem(probe.ask(prelude=prelude, chunks=1), 502)


def test_a_prelude_in_pieces_is_one(probe: Streaming) -> None:
    with probe.client() as client:
        response = client.post("/v1/query", json={"prelude": '{"statusCode": 201}' + 8 * "\0", "chunks": 1})
    assert (response.status_code, response.content) == (201, b"x")


def test_a_function_that_runs_out_of_time_is_504_or_cut_off(tmp_path: Path) -> None:
    limits = {"timeout_seconds": 4}
    with streaming(tmp_path, variables(tmp_path), task_root=tmp_path, tenant=uuid.uuid4(), **limits) as probe:
        before = probe.sandboxes()
        is_problem(probe.ask(silent_seconds=600), 504)
        assert received(probe, chunks=1, sleeps=True) == b"x"
        assert probe.ask(chunks=1).content == b"x"
        assert probe.sandboxes().isdisjoint(before)


def test_a_function_that_ends_midway_is_cut_off(probe: Streaming) -> None:
    # Long enough for the chunk to be on its way: of one that ends at once the answer may be 502.
    assert received(probe, chunks=1, seconds=0.5, exits=True) == b"x"
    assert probe.ask(chunks=1).content == b"x"


def test_requests_beyond_the_concurrency_wait_and_are_then_refused(tmp_path: Path) -> None:
    with (
        streaming(tmp_path, variables(tmp_path), task_root=tmp_path, tenant=uuid.uuid4(), queue_seconds=0.3) as busy,
        busy.client() as client,
        client.stream("POST", "/v1/query", json={"chunks": 1, "steps": True}) as response,
    ):
        chunks = response.iter_raw()
        assert next(chunks) == b"x"
        refused = busy.ask(chunks=1)
        is_problem(refused, 503)
        assert refused.headers["retry-after"] == "1"
        (tmp_path / "seen 0").touch()
        assert list(chunks) == []


def test_another_method_of_the_route_is_not_its_integration(probe: Streaming) -> None:
    # Here the one function serves both; as no stream, what it streams is no answer of a proxy integration.
    with probe.client() as client:
        is_problem(client.put("/v1/query", json={"chunks": 1}), 502)


def initialised(folder: Path, **environment: str) -> list[str]:
    """What the hooks did while a sandbox was started for a snapshot."""

    async def story() -> None:
        api = RuntimeApi(ports=1)
        await api.open()
        launch = Launch("probe", "unused", variables(folder) | environment, folder, folder / "tmp", folder / "log")
        sandbox = Sandbox(launch, api, initialization_type="snap-start")
        try:
            await sandbox.initialise()
        finally:
            sandbox.kill()
            await sandbox.gone.wait()
            await api.close()

    asyncio.run(story())
    return (folder / "marks").read_text().splitlines()


def test_snapshots_run_the_hooks_of_libraries_before_in_reverse_and_after_in_order(tmp_path: Path) -> None:
    assert initialised(tmp_path) == ["before 2", "before 1", "after 1", "after 2"]


@pytest.mark.parametrize("broken", ["before", "after"])
def test_a_hook_that_fails_is_reported(tmp_path: Path, broken: str) -> None:
    with pytest.raises(InitError, match="nowhere"):
        initialised(tmp_path, BROKEN=broken)


def test_a_client_who_leaves_before_the_first_byte_frees_the_sandbox_when_there_is_one(probe: Streaming) -> None:
    before = probe.sandboxes()
    with probe.client() as client, pytest.raises(httpx.ReadTimeout):
        client.post("/v1/query", json={"silent_seconds": 3, "chunks": 10_000, "seconds": 0.1}, timeout=0.5)
    assert probe.ask(chunks=1).content == b"x"
    assert probe.sandboxes() == before


def test_a_client_who_reads_slowly_and_leaves_frees_the_sandbox(probe: Streaming) -> None:
    before = probe.sandboxes()
    body = {"chunks": 1000, "size": 1_000_000}
    with probe.client() as client, client.stream("POST", "/v1/query", json=body) as response:
        next(response.iter_raw())
        time.sleep(0.3)
    assert probe.ask(chunks=1).content == b"x"
    assert probe.sandboxes() == before
