"""Functions under the real runtime client: what a handler does, and what Lambda makes of it."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from local import service
from local.asgi import listen
from local.lambda_runtime import Function, Invocation, PayloadTooLargeError, ThrottledError
from local.runtime_api import MAX_PAYLOAD_BYTES, Event, Exchange, RuntimeApi
from local.sandbox import Launch

pytestmark = pytest.mark.slow

_PROBE = """
import os, pathlib, time

MARKS = pathlib.Path(os.environ["MARKS"])
if (MARKS / "broken").exists():
    raise RuntimeError("the module is broken")
if (MARKS / "dying").exists():
    os._exit(7)

def handler(event, context):
    if "sleep_seconds" in event:
        time.sleep(event["sleep_seconds"])
    if "exit" in event:
        os._exit(event["exit"])
    if "raise" in event:
        raise ValueError(event["raise"])
    if "large" in event:
        return "x" * event["large"]
    return {
        "echo": event,
        "pid": os.getpid(),
        "request_id": context.aws_request_id,
        "remaining_ms": context.get_remaining_time_in_millis(),
        "arn": context.invoked_function_arn,
        "environment": dict(os.environ),
        "directory": os.getcwd(),
    }
"""


class Probe:
    """One function in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "probe.log"
        (folder / "probe.py").write_text(_PROBE)

    @asynccontextmanager
    async def function(self, **limits: Any) -> AsyncIterator[Function]:
        concurrency = limits.pop("concurrency", 1)
        api = RuntimeApi(ports=concurrency)
        await api.open()
        variables = {"PATH": os.defpath, "MARKS": str(self.folder), "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13"}
        launch = Launch("probe", "probe.handler", variables, self.folder, self.folder / "tmp", self.log)
        defaults = {"timeout_seconds": 30, "memory_mib": 128, "function_arn": "arn:aws:lambda:x:1:function:probe"}
        function = Function(launch, api, concurrency=concurrency, **(defaults | limits))
        try:
            yield function
        finally:
            await function.close()
            await api.close()

    def run(self, story: Callable[[Function], Awaitable[None]], **limits: Any) -> None:
        async def told() -> None:
            async with self.function(**limits) as function:
                await story(function)

        asyncio.run(told())


@pytest.fixture
def probe(tmp_path: Path) -> Probe:
    return Probe(tmp_path)


async def _call(function: Function, **event: Any) -> Invocation:
    return await function.invoke(json.dumps(event).encode())


def _answer(invocation: Invocation) -> Any:
    assert invocation.function_error is None, invocation.payload
    return json.loads(invocation.payload)


def test_a_sandbox_starts_cold_once_and_then_serves_every_call(probe: Probe) -> None:
    async def story(function: Function) -> None:
        first, second = await _call(function, n=1), await _call(function, n=2)
        assert first.init_ms is not None
        assert second.init_ms is None
        assert _answer(first)["pid"] == _answer(second)["pid"]
        assert _answer(second)["echo"] == {"n": 2}

    probe.run(story)


def test_a_handler_sees_its_request_id_deadline_and_arn(probe: Probe) -> None:
    async def story(function: Function) -> None:
        invocation = await _call(function)
        seen = _answer(invocation)
        assert seen["request_id"] == invocation.request_id
        assert 0 < seen["remaining_ms"] <= 30_000
        assert seen["arn"] == function.function_arn
        assert seen["environment"]["_X_AMZN_TRACE_ID"].startswith("Root=1-")

    probe.run(story)


def test_a_sandbox_that_cannot_be_started_leaves_its_port_to_the_next(probe: Probe) -> None:
    async def story(function: Function) -> None:
        probe.log.mkdir()
        for _ in range(2):
            with pytest.raises(IsADirectoryError):
                await _call(function)
        probe.log.rmdir()
        assert _answer(await _call(function, n=1))["echo"] == {"n": 1}

    probe.run(story)


def test_a_response_that_is_cut_off_settles_nothing() -> None:
    async def story() -> None:
        api = RuntimeApi(ports=1)
        await api.open()
        exchange = Exchange()
        port = api.attach(exchange)
        outcome = exchange.offer(Event("id", b"{}", 0, "arn", "trace"))
        head = b"POST /2018-06-01/runtime/invocation/id/response HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n"
        for body in (b'{"cut": 1', b'{"whole": 1}'):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head + body)
            writer.write_eof()
            await reader.read()
            writer.close()
        assert (await outcome).payload == b'{"whole": 1}'
        await api.close()

    asyncio.run(story())


def test_a_port_that_somebody_listens_on_is_taken() -> None:
    with closing(listen()) as door:
        port = door.getsockname()[1]
        assert not service.is_free(port)
        with pytest.raises(OSError, match="in use"):
            listen(port)


def test_a_sandbox_sees_nothing_of_the_shell_that_started_it(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_SHELL", "leaked")

    async def story(function: Function) -> None:
        seen = _answer(await _call(function))
        assert "OF_THE_SHELL" not in seen["environment"]
        assert seen["environment"]["AWS_LAMBDA_RUNTIME_API"].startswith("127.0.0.1:")
        assert Path(seen["environment"]["TMPDIR"]).parent == probe.folder / "tmp"
        assert seen["directory"] == str(probe.folder)

    probe.run(story)


def test_a_timeout_kills_the_sandbox_and_says_so_as_lambda_does(probe: Probe) -> None:
    async def story(function: Function) -> None:
        pid = _answer(await _call(function))["pid"]
        invocation = await _call(function, sleep_seconds=600)
        assert invocation.function_error == "Unhandled"
        assert "Task timed out after 3.00 seconds" in json.loads(invocation.payload)["errorMessage"]
        assert invocation.sandbox_lost
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert _answer(await _call(function))["pid"] != pid

    probe.run(story, timeout_seconds=3)


@pytest.mark.parametrize(
    ("code", "reason"), [(3, "with error: exit status 3"), (0, "without providing a reason")], ids=["failing", "quiet"]
)
def test_a_sandbox_that_exits_is_an_exit_error_and_the_next_call_gets_a_new_one(
    probe: Probe, code: int, reason: str
) -> None:
    async def story(function: Function) -> None:
        invocation = await _call(function, exit=code)
        assert invocation.error_type == "Runtime.ExitError"
        assert json.loads(invocation.payload)["errorMessage"].endswith(f"Runtime exited {reason}")
        assert _answer(await _call(function))["echo"] == {}

    probe.run(story)


def test_an_idle_sandbox_that_is_killed_takes_no_event_with_it(probe: Probe) -> None:
    async def story(function: Function) -> None:
        pid = _answer(await _call(function))["pid"]
        os.kill(pid, signal.SIGKILL)
        [sandbox] = function._sandboxes
        await sandbox.gone.wait()  # the news of it has come
        assert _answer(await _call(function))["pid"] != pid

    probe.run(story)


def test_an_exception_of_the_handler_is_its_error_and_the_sandbox_stays(probe: Probe) -> None:
    async def story(function: Function) -> None:
        pid = _answer(await _call(function))["pid"]
        invocation = await _call(function, **{"raise": "no such thing"})
        error = json.loads(invocation.payload)
        assert (error["errorType"], error["errorMessage"]) == ("ValueError", "no such thing")
        assert not invocation.sandbox_lost
        assert _answer(await _call(function))["pid"] == pid

    probe.run(story)


def test_an_init_error_is_reported_and_the_next_call_tries_again(probe: Probe) -> None:
    async def story(function: Function) -> None:
        mark = probe.folder / "broken"
        mark.touch()
        for _ in range(2):
            invocation = await _call(function)
            assert json.loads(invocation.payload)["errorMessage"] == "the module is broken"
        mark.unlink()
        assert _answer(await _call(function))["echo"] == {}

    probe.run(story)


def test_a_sandbox_that_exits_while_it_starts_is_an_exit_error(probe: Probe) -> None:
    async def story(function: Function) -> None:
        (probe.folder / "dying").touch()
        invocation = await _call(function)
        assert "exit status 7" in json.loads(invocation.payload)["errorMessage"]

    probe.run(story)


def test_concurrent_calls_get_sandboxes_of_their_own_up_to_the_limit(probe: Probe) -> None:
    async def story(function: Function) -> None:
        calls = [_call(function, sleep_seconds=0.2, n=n) for n in range(5)]
        seen = [_answer(invocation) for invocation in await asyncio.gather(*calls)]
        assert [one["echo"]["n"] for one in seen] == [0, 1, 2, 3, 4]
        assert len({one["pid"] for one in seen}) == 2

    probe.run(story, concurrency=2)


def test_a_call_beyond_the_limit_waits_and_is_then_throttled(probe: Probe) -> None:
    async def story(function: Function) -> None:
        busy = asyncio.create_task(_call(function, sleep_seconds=4.0))
        await asyncio.sleep(0)
        with pytest.raises(ThrottledError):
            await _call(function)
        assert _answer(await busy)["echo"] == {"sleep_seconds": 4.0}

    probe.run(story, queue_seconds=0.1)


def test_a_caller_who_goes_away_does_not_stop_the_handler(probe: Probe) -> None:
    async def story(function: Function) -> None:
        caller = asyncio.create_task(_call(function, sleep_seconds=0.3))
        await asyncio.to_thread(_wait_until, probe.log.exists)
        caller.cancel()
        await asyncio.wait({caller})
        await function.drain(timeout_seconds=30)
        assert probe.log.read_text().count("REPORT") == 1

    probe.run(story)


def test_payloads_beyond_six_megabytes_are_refused_both_ways(probe: Probe) -> None:
    async def story(function: Function) -> None:
        with pytest.raises(PayloadTooLargeError):
            await function.invoke(b'"' + b"x" * MAX_PAYLOAD_BYTES + b'"')
        assert (await _call(function, large=MAX_PAYLOAD_BYTES)).error_type == "Function.ResponseSizeTooLarge"
        assert len(_answer(await _call(function, large=5_000_000))) == 5_000_000

    probe.run(story)


def test_each_invocation_leaves_a_report_in_the_log(probe: Probe) -> None:
    async def story(function: Function) -> None:
        cold, failed = await _call(function), await _call(function, **{"raise": "x"})
        lines = [line for line in probe.log.read_text().splitlines() if line.startswith("REPORT")]
        assert f"RequestId: {cold.request_id}\t" in lines[0]
        assert "Init Duration:" in lines[0]
        assert f"RequestId: {failed.request_id}\t" in lines[1]
        assert "Error Type: ValueError" in lines[1]

    probe.run(story)


def test_closing_leaves_no_process_and_no_scratch_folder(probe: Probe) -> None:
    pids = []

    async def story(function: Function) -> None:
        pids.append(_answer(await _call(function))["pid"])

    probe.run(story)
    assert not _alive(pids[0])
    assert list((probe.folder / "tmp").iterdir()) == []


def test_the_open_next_of_a_dead_sandbox_takes_no_event_of_its_successor() -> None:
    async def story() -> None:
        api = RuntimeApi(ports=1)
        await api.open()
        dead = Exchange()
        port = api.attach(dead)
        stale = asyncio.create_task(asyncio.to_thread(_next, port))
        await dead.initialised
        api.detach(port)
        successor = Exchange()
        assert api.attach(successor) == port
        successor.offer(Event("1", b"{}", 0, "arn", "trace"))
        assert await stale == 410
        assert await asyncio.to_thread(_next, port) == 200
        await api.close()

    asyncio.run(story())


def _wait_until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.01)


def _next(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/2018-06-01/runtime/invocation/next")
    status = connection.getresponse().status
    connection.close()
    return status


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
