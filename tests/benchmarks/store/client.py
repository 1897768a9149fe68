"""A contestant in a process of its own, so that no interpreter's lock is shared, and how it is told what to do."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

from tests.benchmarks.store.contestant import Contestant, Entry, Kind, Place
from tests.benchmarks.store.corpus import Corpus

_SPAWN = multiprocessing.get_context("spawn")
WARM_UP = 3


class Client:
    """The parent's end; `send` and `receive` apart, so that several clients can be at work."""

    def __init__(self, entry: Entry, place: Place, directory: Path) -> None:
        self.entry = entry
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs, entry, place, directory), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def send(self, name: str, *arguments: Any) -> None:
        self._pipe.send((name, arguments))

    def receive(self) -> Any:
        try:
            failed, result = self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"{self.entry.name}: its process ended") from None
        if failed:
            raise RuntimeError(f"{self.entry.name}:\n{result}")
        return result

    def call(self, name: str, *arguments: Any) -> Any:
        self.send(name, *arguments)
        return self.receive()


class Work:
    """What a client can be told to do."""

    def __init__(self, contestant: Contestant, corpus: Corpus) -> None:
        self._contestant = contestant
        self._corpus = corpus

    def close(self) -> None:
        self._contestant.close()

    def kinds(self) -> tuple[Kind, ...]:
        return self._contestant.kinds

    def add(self, chunks: range) -> float:
        """Seconds that it took to store them."""
        started = time.perf_counter()
        self._contestant.add(self._corpus, chunks)
        return time.perf_counter() - started

    def index(self) -> float:
        """Seconds that it took to index what there is."""
        started = time.perf_counter()
        self._contestant.index()
        return time.perf_counter() - started

    def ask(self, kind: Kind, numbers: Sequence[int]) -> list[tuple[float, list[int]]]:
        """Milliseconds and chunks per question; the last few are asked before, uncounted."""
        for number in numbers[-WARM_UP:]:
            self._contestant.ask(kind, self._corpus.questions[number])
        return [self._asked(kind, number) for number in numbers]

    def run(self, kind: Kind, start: float, seconds: float, first: int) -> int:
        """How many questions are answered between `start` (of `time.time`) and `seconds` later."""
        questions, count = self._corpus.questions, 0
        self._contestant.ask(kind, questions[first % len(questions)])
        time.sleep(max(0.0, start - time.time()))
        while time.time() < start + seconds:
            self._contestant.ask(kind, questions[(first + count) % len(questions)])
            count += 1
        return count

    def _asked(self, kind: Kind, number: int) -> tuple[float, list[int]]:
        question = self._corpus.questions[number]
        started = time.perf_counter()
        answer = self._contestant.ask(kind, question)
        milliseconds = (time.perf_counter() - started) * 1000
        return milliseconds, list(self._contestant.numbers(answer))


@contextmanager
def clients(entry: Entry, place: Place, directory: Path, count: int) -> Iterator[list[Client]]:
    """`count` of them, ended afterwards."""
    with ExitStack() as stack:
        yield [stack.enter_context(Client(entry, place, directory)) for _ in range(count)]


def _serve(pipe: Connection, entry: Entry, place: Place, directory: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent cleans up
    os.environ.update({"OPENBLAS_NUM_THREADS": "1", "HAYSTACK_TELEMETRY_ENABLED": "False"})
    work: Work | None = None
    with suppress(EOFError, BrokenPipeError):
        while True:
            name, arguments = pipe.recv()
            try:
                work = work or Work(entry.made(place), Corpus.load(directory))
                reply = False, getattr(work, name)(*arguments)
            except Exception:  # noqa: BLE001 (told to the parent, which raises)
                reply = True, traceback.format_exc()
            pipe.send(reply)
    if work is not None:
        work.close()
