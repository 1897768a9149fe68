"""Callers of the API at once, each with a sandbox of its own: a fork of one process that has imported all of it.

Run as a program it reads one line of JSON, what each caller asks one after another, and writes what each was answered.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
Event = dict[str, Any]


class Context:
    """What Lambda passes beside the event, until the end at this time of `time.monotonic()`."""

    function_name = "query"
    memory_limit_in_mb = 512
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:query"
    aws_request_id = "1"

    def __init__(self, end: float) -> None:
        self._end = end

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int(1000 * (self._end - time.monotonic())))


@dataclass(frozen=True, slots=True)
class Answer:
    """`problem`: the body is a typed error; `waits`: it says when to come again; `connections` to the database now."""

    status: int
    seconds: float
    degraded: str | None
    problem: bool
    waits: bool
    connections: int


@dataclass(frozen=True, slots=True)
class Caller:
    """What it was answered at once with all others, and alone afterwards; `ended` is its exit status."""

    answers: list[Answer]
    afterwards: list[Answer]
    ended: int


def ask_at_once(
    environment: Mapping[str, str], asked: Sequence[tuple[float, list[Event]]], *, again: int = 0
) -> list[Caller]:
    """Have callers send their events to the query function's handler, all at once; Lambda gives each so many seconds.

    Then each in turn sends the first `again` of its own again, with no connection of the others left.
    """
    path = os.pathsep.join([str(ROOT), str(ROOT / "layers/rag/python")])
    told = {"PATH": os.defpath, "PYTHONPATH": path, "AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start", **environment}
    done = subprocess.run(
        [sys.executable, "-m", "tests.reliability.askers"],
        cwd=ROOT,
        env=told,
        input=json.dumps({"asked": asked, "again": again}),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    return [
        Caller([Answer(**one) for one in first], [Answer(**one) for one in then], ended)
        for first, then, ended in json.loads(done.stdout)
    ]


def main() -> None:
    told = json.loads(sys.stdin.readline())
    # What the function logs is not what its callers say.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    import functions.query.handler  # noqa: F401 (imported once, for all forks)

    begun = [_begin((events, events[: told["again"]]), seconds) for seconds, events in told["asked"]]
    for _, go, _ in begun:
        go.write(b"!")
    first = [_heard(answers) for _, _, answers in begun]
    then = []
    for _, go, answers in begun:
        with suppress(BrokenPipeError):  # it did not live to be asked again
            go.write(b"!")
        then.append(_heard(answers))
    ended = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid, _, _ in begun]
    with out:
        json.dump(list(zip(first, then, ended, strict=True)), out)


def _begin(events: Sequence[list[Event]], seconds: float) -> tuple[int, IO[bytes], IO[bytes]]:
    """A child that waits to be told to go, twice; its answers are a line each time."""
    (told, go), (answers, said) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        _live(events, seconds, lambda: os.read(told, 1), lambda line: os.write(said, line))
    os.close(told)
    os.close(said)
    return pid, os.fdopen(go, "wb", buffering=0), os.fdopen(answers, "rb")


def _heard(answers: IO[bytes]) -> list[Any]:
    heard: list[Any] = json.loads(answers.readline() or b"[]")
    return heard


def _live(
    events: Sequence[list[Event]], seconds: float, wait: Callable[[], bytes], say: Callable[[bytes], int]
) -> None:
    """Never returns: the process ends with its last answer."""
    import asyncio

    from functions.query import handler
    from rag import wiring

    handler.loop = asyncio.new_event_loop()  # the one that was forked is every child's
    status = 1
    try:
        for asked in events:
            wait()
            said = [asdict(_ask(handler.handler, event, seconds)) for event in asked]
            wiring.database().close()
            say(json.dumps(said).encode() + b"\n")
        status = 0
    except BaseException:  # noqa: BLE001 (the process ends here, whatever it was)
        traceback.print_exc()
    os._exit(status)


def _ask(handler: Callable[[Event, Any], Any], event: Event, seconds: float) -> Answer:
    from rag import wiring

    began = time.monotonic()
    reply = handler(event, Context(began + seconds))
    took = time.monotonic() - began
    body, headers = json.loads(reply["body"]), {name.lower() for name in reply["headers"]}
    return Answer(
        reply["statusCode"],
        took,
        body.get("degraded"),
        {"type", "status", "request_id"} <= body.keys(),
        "retry-after" in headers,
        len(wiring.database()._idle),
    )


if __name__ == "__main__":
    main()
