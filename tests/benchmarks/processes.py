"""The CPU time of the platform's processes, by what they are."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

# The first word that a command line holds says what the process is.
_KINDS = {
    "functions.query": "query function",
    "tests.benchmarks.unauthenticated": "query function",
    "functions.ingest": "ingest function",
    "functions.": "other functions",
    "rag.parser_child": "parser",
    "local.minilm_worker": "model",
    "local.model_server": "model server",
    "local.aws": "local AWS",
    "postgres": "PostgreSQL",
    "valkey": "Valkey",
    "tests.benchmarks.two_doors": "gateway and Runtime API",
}


def supported() -> bool:
    """Linux tells it by /proc; elsewhere the figures are left out."""
    return Path("/proc/self/stat").exists()


def below(supervisor: int) -> dict[int, str]:
    """Process id to kind, of the supervisor and all that descends from it."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = (directory / "stat").read_text().rpartition(")")[2].split()[1]
            children[int(parent)].append(int(directory.name))
    found = [supervisor]
    for process in found:
        found += children[process]
    return {process: _kind(process) for process in found}


def cpu_milliseconds(processes: Mapping[int, str]) -> Counter[str]:
    """User and system time since each process began, its ended threads included, summed by kind.

    Of a parser also that of its children, one of which reads each document: they are gone before anybody finds them.
    """
    total: Counter[str] = Counter()
    for process, kind in processes.items():
        with suppress(OSError):
            ticks = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:15]
            own_and_childrens = ticks if kind == "parser" else ticks[:2]
            total[kind] += 1000 * sum(map(int, own_and_childrens)) / os.sysconf("SC_CLK_TCK")  # type: ignore[assignment]
    return total


def _kind(process: int) -> str:
    with suppress(OSError):
        command = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace")
        return next((kind for word, kind in _KINDS.items() if word in command), "other")
    return "other"
