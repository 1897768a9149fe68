"""Groups J and C9 of the fault suite: hostile files end in a verdict, in bounded time and memory, without a socket."""

from __future__ import annotations

import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest

from rag import parser as parsing_edge
from rag.errors import DocumentError, FailureCode
from rag.parser import Parser
from tests.reliability import fuzzing, hostile

KINDS = (*hostile.SUFFIXES, "jsonl", "tsv", *hostile.MADE)
WALL_SECONDS = 60  # as in production: a busy machine takes its time over fifty megabytes
MEMORY_MIB = 512
FORBIDDEN = re.compile("root:x:0|[\0\ud800-\udfff]")
CODES = frozenset(get_args(FailureCode))
Record = Callable[..., None]


@dataclass
class Reading:
    """A parser under observation: what became of each file, and what the worst of them cost."""

    folder: Path
    outcomes: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    worst_mib: int = 0

    def __post_init__(self) -> None:
        self.parser = Parser(wall_seconds=WALL_SECONDS, memory_mebibytes=MEMORY_MIB)
        self._path = self.folder / f"hostile-{id(self)}"
        self._helper: Any = None

    def read(self, name: str, data: bytes) -> tuple[str, str]:
        """`ready` or the code it failed with, and its text or the reason."""
        self._path.write_bytes(data)
        started = time.monotonic()
        try:
            parsed = self.parser.parse(self._path, name)
            outcome, text = "ready", "\n".join(section.text for section in parsed.sections)
        except DocumentError as error:
            outcome, text = error.code, str(error)
        seconds = time.monotonic() - started
        self.outcomes[outcome] += 1
        self.seconds.append(seconds)
        if seconds > WALL_SECONDS + 3:
            self.violations.append(f"{name}: hung for {seconds:.1f} s")
        if outcome not in CODES | {"ready"} or outcome == "INTERNAL" or not text:
            self.violations.append(f"{name}: {outcome}: {text}")
        if self._helper not in {None, self.parser._helper}:
            self.violations.append(f"{name}: the worker ended")
        self._helper = self.parser._helper
        return outcome, text

    @property
    def count(self) -> int:
        return len(self.seconds)

    @property
    def worst_seconds(self) -> float:
        return max(self.seconds, default=0.0)

    @property
    def figure(self) -> str:
        kinds = ", ".join(f"{count} {code}" for code, count in self.outcomes.most_common())
        return f"worst {self.worst_seconds:.2f} s, {self.worst_mib} MiB; {kinds}"


@pytest.fixture
def reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reading]:
    observed = Reading(tmp_path)
    interpreted = parsing_edge._interpreted

    def watched(result: bytes, ending: dict[str, Any]) -> Any:
        observed.worst_mib = max(observed.worst_mib, ending["peak_mebibytes"])
        return interpreted(result, ending)

    monkeypatch.setattr(parsing_edge, "_interpreted", watched)
    yield observed
    observed.parser.close()


@pytest.fixture
def started_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Has the parsers' processes run this Python code before anything else."""

    def start_with(code: str) -> None:
        folder = tmp_path / "started-with"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(code)
        monkeypatch.syspath_prepend(folder)

    return start_with


@pytest.mark.data
@pytest.mark.faults_fast
@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files_end_as_documents_do(kind: str, shared_data: Path, seed: int, reading: Reading) -> None:
    good = hostile.samples(shared_data / "documents", kind)
    for number in range(8):
        reading.read(*fuzzing.mutation(good, kind, number, seed))

    assert reading.violations == []


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.faults_full
def test_two_thousand_mutated_files_per_parser_neither_crash_nor_hang_a_worker(
    shared_data: Path, seed: int, reading: Reading, record_fault: Record
) -> None:
    def fuzzed(kind: str) -> dict[str, Any]:
        program = [sys.executable, "-m", fuzzing.__name__, kind, str(shared_data / "documents"), "2000", str(seed)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        return dict(json.loads(subprocess.run(program, check=True, capture_output=True, env=environment).stdout))

    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(KINDS, pool.map(fuzzed, KINDS), strict=True))
    for kind in KINDS:
        good = hostile.samples(shared_data / "documents", kind)
        for number in found[kind]["suspects"]:
            reading.read(*fuzzing.mutation(good, kind, number, seed))
    for kind, one in found.items():
        outcomes = ", ".join(f"{count} {code}" for code, count in Counter(one["outcomes"]).most_common())
        print(
            f"{kind:>5}: 2,000 mutated, {len(one['suspects'])} read again alone; worst {one['worst_seconds']:.2f} s, "
            f"{one['worst_mib']} MiB; {outcomes}"
        )
    seconds = max(reading.worst_seconds, *(one["worst_seconds"] for one in found.values()))
    mebibytes = max(reading.worst_mib, *(one["worst_mib"] for one in found.values()))
    record_fault(
        "J10",
        injected=2000 * len(KINDS),
        violations=len(reading.violations),
        figure=f"{len(KINDS)} parsers: 0 crashes, 0 hangs; worst {seconds:.2f} s, {mebibytes} MiB",
    )
    assert reading.violations == []


def attack(reading: Reading, attacks: list[hostile.Attack]) -> None:
    for name, data, expected in attacks:
        outcome, text = reading.read(name, data)
        if outcome not in expected:
            reading.violations.append(f"{name}: {outcome} where {sorted(expected)} was expected: {text[:100]}")
        if FORBIDDEN.search(text):
            reading.violations.append(f"{name}: holds what no text may")


@pytest.mark.faults_full
@pytest.mark.parametrize(
    ("fault", "attacks"),
    [
        ("J1", hostile.bombs),
        ("J2", hostile.broken_pdfs),
        ("J3", hostile.entities),
        ("J6", hostile.confusions),
        ("C9", hostile.bad_texts),
    ],
)
def test_hostile_files_end_in_a_verdict_in_bounded_time_and_memory(
    fault: str, attacks: Callable[[], list[hostile.Attack]], reading: Reading, record_fault: Record
) -> None:
    attack(reading, attacks())

    record_fault(fault, injected=reading.count, violations=len(reading.violations), figure=reading.figure)
    assert reading.violations == []


# A part of a file that takes the square of its size takes four times as long for each byte of four times the file.
MOST_TIMES_AS_LONG, TRIES = 3, 4


@pytest.mark.faults_full
def test_giants_take_time_in_proportion_to_their_size(reading: Reading, record_fault: Record) -> None:
    """Read whole and a quarter of them, and again where the machine may have had other work meanwhile."""
    attack(reading, [("first.txt", b"Whoever is first waits for the parser to start.", {"ready"})])
    tries = [_seconds_per_megabyte(reading)]
    while (longer := _out_of_proportion(tries)) and len(tries) < TRIES:
        tries.append(_seconds_per_megabyte(reading))
    figures = "; ".join(f"{name} {whole:.3f} ({quarter:.3f})" for name, (whole, quarter) in _least(tries).items())
    record_fault(
        "J7",
        injected=len(hostile.giants(1)),
        violations=len(reading.violations) + len(longer),
        figure=f"s per MB, and of a quarter of the file: {figures}; {reading.figure}",
    )
    assert (reading.violations, longer) == ([], [])


Costs = dict[str, tuple[float, float]]


def _seconds_per_megabyte(reading: Reading) -> Costs:
    """Of each giant: the whole file, and a quarter of it."""
    costs: list[dict[str, float]] = []
    for quarters in (4, 1):
        giants = hostile.giants(quarters)
        attack(reading, giants)
        spent = reading.seconds[-len(giants) :]
        costs.append({name: took / (len(data) / 1e6) for (name, data, _), took in zip(giants, spent, strict=True)})
    return {name: (costs[0][name], costs[1][name]) for name in costs[0]}


def _least(tries: list[Costs]) -> Costs:
    return {name: (min(one[name][0] for one in tries), min(one[name][1] for one in tries)) for name in tries[0]}


def _out_of_proportion(tries: list[Costs]) -> list[str]:
    return [name for name, (whole, quarter) in _least(tries).items() if whole > MOST_TIMES_AS_LONG * quarter]


@pytest.mark.faults_full
def test_no_part_of_a_file_is_written_outside(reading: Reading, tmp_path: Path, record_fault: Record) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    attack(reading, hostile.travellers(outside))

    written = list(outside.rglob("*"))
    figure = f"{len(written)} files outside; {reading.figure}"
    record_fault("J5", injected=reading.count, violations=len(reading.violations) + len(written), figure=figure)
    assert (reading.violations, written) == ([], [])


# A call that the filter refuses ends the process instead, which its parent sees: none goes unnoticed.
KILLING = "import rag.confinement\nrag.confinement._REFUSE = rag.confinement._KILL\n"
PLANTED = """
import rag.parsing
def fetch(data, _):
    import socket
    socket.socket()
rag.parsing._READERS["text/markdown"] = fetch
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the system call filter is Linux's")
@pytest.mark.faults_full
def test_the_audit_notices_a_parser_that_opens_a_socket(reading: Reading, started_with: Callable[[str], None]) -> None:
    started_with(KILLING + PLANTED)

    outcome, reason = reading.read("links.md", b"# Hi\n\n![picture](http://169.254.169.254/)")

    assert (outcome, f"signal {signal.SIGSYS.value}" in reason) == ("CORRUPT", True)


@pytest.mark.skipif(sys.platform != "linux", reason="the system call filter is Linux's")
@pytest.mark.data
@pytest.mark.slow
@pytest.mark.faults_full
def test_parsing_opens_no_socket_and_starts_no_program(
    reading: Reading, started_with: Callable[[str], None], shared_data: Path, record_fault: Record
) -> None:
    started_with(KILLING)
    asked: list[str] = []

    class Watch(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Watch) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        attack(reading, hostile.fetchers(f"http://127.0.0.1:{server.server_port}/fetched"))
        server.shutdown()
        thread.join()
    for path in sorted((shared_data / "documents").glob("*/*")):
        if path.is_file():
            outcome, reason = reading.read(path.name, path.read_bytes())
            if f"signal {signal.SIGSYS.value}" in reason and outcome == "CORRUPT":
                reading.violations.append(f"{path.name}: a refused call was tried")
    figure = f"{reading.count} files: sockets 0, programs 0, requests {len(asked)}; {reading.figure}"
    record_fault("J4", injected=reading.count, violations=len(reading.violations) + len(asked), figure=figure)
    assert (reading.violations, asked) == ([], [])
