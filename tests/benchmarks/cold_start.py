"""What the start of each packaged function costs: modules imported and CPU time until it asks for its first event.

    python -m tests.benchmarks.cold_start [--json] [--rounds 7]

User and system time of the whole sandbox process under AWS's runtime client and Python 3.13, as a ratio to a handler
that imports nothing: seconds are a machine's, ratios are less so, how many modules are imported is the code's alone.
Ends with 1 when a bound is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform as machine
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from functions.table import FUNCTIONS, QUERY, FunctionRow
from local import code, environment
from local.aws import Credentials
from local.code import Code
from local.environment import Addresses, Model
from local.runtime_api import Exchange, RuntimeApi
from tests.infrastructure import unpacking

BARE = "bare handler"
AHEAD = "query, started ahead"
INIT_SECONDS = 240
# Nothing is connected to before the first event.
_ADDRESSES = Addresses(
    "http://127.0.0.1:1",
    "http://127.0.0.1:1/q",
    "http://127.0.0.1:1/m",
    "http://127.0.0.1:1/e",
    1,
    1,
    Credentials("id", "secret"),
)
_MODEL = Model("http://127.0.0.1:1/v1", "embedder", 384, "chatter")


@dataclass(frozen=True, slots=True)
class Start:
    """How one kind of sandbox is started."""

    name: str
    handler: str
    code: Code
    variables: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Bound:
    """The most that a start may cost: times the bare handler's CPU time, and modules beside those it imports."""

    ratio: float
    modules: int


# Of what somebody waits for; who starts a sandbox ahead of its events waits for nothing.
BOUNDS = {
    "ingest": Bound(4.0, 150),
    "authorize": Bound(6.0, 155),
    "query": Bound(12.0, 630),
    "answer": Bound(12.0, 580),
}


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU milliseconds of the least disturbed start, how many times the bare handler's, and modules beside its."""

    name: str
    milliseconds: float
    ratio: float
    modules: int

    @property
    def bound(self) -> Bound | None:
        return BOUNDS.get(self.name)

    @property
    def imports_within(self) -> bool:
        return self.bound is None or self.modules <= self.bound.modules

    @property
    def within(self) -> bool:
        return self.imports_within and (self.bound is None or self.ratio <= self.bound.ratio)


def measure(rounds: int, functions: Sequence[FunctionRow] = FUNCTIONS) -> list[Cost]:
    """Start each function once per round, in turn, after a first round that counts modules and fills the page cache."""
    with tempfile.TemporaryDirectory(prefix="rag-cold-start-") as scratch:
        folder = Path(scratch) / "lambda"
        try:
            starts = _starts(code.of_packages(unpacking.unpack(folder)), Path(scratch), functions)
            return asyncio.run(_measured(starts, rounds, Path(scratch) / "log"))
        finally:
            unpacking.remove(folder)


def table(costs: Sequence[Cost]) -> str:
    """For people."""
    rows = [("", "modules", "at most", "CPU ms", "ratio", "at most")]
    rows += [
        (
            one.name,
            str(one.modules),
            "" if one.bound is None else str(one.bound.modules),
            f"{one.milliseconds:.0f}",
            f"{one.ratio:.1f}",
            "" if one.bound is None else f"{one.bound.ratio:.0f}",
        )
        for one in costs
    ]
    width = max(len(name) for name, *_ in rows)
    return "\n".join(
        f"{name:{width}}  {modules:>7}  {most:>7}  {cpu:>6}  {ratio:>5}  {bound:>7}".rstrip()
        for name, modules, most, cpu, ratio, bound in rows
    )


def _starts(packaged: Mapping[str, Code], scratch: Path, functions: Sequence[FunctionRow]) -> list[Start]:
    bare = scratch / "bare"
    bare.mkdir()
    (bare / "bare.py").write_text("def handler(event, context):\n    return event\n")
    query = packaged[QUERY.name]
    empty = Code(bare, query.layers, query.python, query.version, packaged=True)

    def start(name: str, handler: str, ran: Code, variables: Mapping[str, str], initialisation: str) -> Start:
        return Start(name, handler, ran, {**variables, "AWS_LAMBDA_INITIALIZATION_TYPE": initialisation})

    def of(row: Any, name: str, initialisation: str) -> Start:
        ran = packaged[row.name]
        variables = environment.environment_of(row, _ADDRESSES, _MODEL, code=ran)
        return start(name, row.handler, ran, variables, initialisation)

    return [
        start(BARE, "bare.handler", empty, {**empty.environment, "LANG": "C.UTF-8", "TZ": ":UTC"}, "on-demand"),
        *(of(row, row.name, "on-demand") for row in functions),
        of(QUERY, AHEAD, "provisioned-concurrency"),
    ]


async def _measured(starts: Sequence[Start], rounds: int, log: Path) -> list[Cost]:
    api = RuntimeApi(ports=1)
    await api.open()
    try:
        modules = {start.name: await _modules(start, api, log) for start in starts}
        series: dict[str, list[float]] = {start.name: [] for start in starts}
        for _ in range(rounds):
            for start in starts:
                series[start.name].append(await _cpu_milliseconds(start, api, log))
    finally:
        await api.close()
    bare = min(series[BARE])
    return [
        Cost(start.name, min(series[start.name]), min(series[start.name]) / bare, modules[start.name] - modules[BARE])
        for start in starts
    ]


async def _modules(start: Start, api: RuntimeApi, log: Path) -> int:
    """How many modules one process has imported until its first `next`, as Python itself reports them."""
    reporting = replace(start, variables={**start.variables, "PYTHONPROFILEIMPORTTIME": "1"})
    await _cpu_milliseconds(reporting, api, log)
    return await asyncio.to_thread(_imports, log)


def _imports(log: Path) -> int:
    return sum(line.startswith("import time:") for line in log.read_text().splitlines())


async def _cpu_milliseconds(start: Start, api: RuntimeApi, log: Path) -> float:
    """Of one process from its start to its first `next`; killed there, it has used no more."""
    exchange = Exchange()
    port = api.attach(exchange)
    process = _spawned(start, port, log)
    try:
        async with asyncio.timeout(INIT_SECONDS):
            error = await exchange.initialised
    finally:
        used = _killed(process)
        api.detach(port)
    if error is not None:
        raise RuntimeError(f"{start.name} cannot be started: {error.payload.decode()}")
    return used


def _spawned(start: Start, port: int, log: Path) -> subprocess.Popen[bytes]:
    wrapper = start.variables.get("AWS_LAMBDA_EXEC_WRAPPER")
    with log.open("w") as output:
        return subprocess.Popen(
            [*([wrapper] if wrapper else []), start.code.python, "-m", "awslambdaric", start.handler],
            env={**start.variables, "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}"},
            cwd=start.code.task_root,
            stdout=output,
            stderr=output,
        )


def _killed(process: subprocess.Popen[bytes]) -> float:
    """Milliseconds of CPU that the process used in all its life, threads that have ended included."""
    process.kill()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return (usage.ru_utime + usage.ru_stime) * 1000


def _figures(cost: Cost) -> dict[str, float]:
    return {"modules": cost.modules, "cpu_milliseconds": cost.milliseconds, "ratio": cost.ratio}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.cold_start", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--rounds", type=int, default=7, help="starts of each function (default 7)")
    options = parser.parse_args()
    before = os.getloadavg()[0]
    costs = measure(options.rounds)
    if options.json:
        print(json.dumps({one.name: _figures(one) for one in costs}))
    else:
        system = f"{machine.system()} {machine.machine()}, {os.cpu_count()} cores, load {before:.1f}"
        print(f"{system}, {options.rounds} rounds", table(costs), sep="\n")
    if missed := [one.name for one in costs if not one.within]:
        sys.exit(f"beyond their bounds: {', '.join(missed)}")


if __name__ == "__main__":
    main()
