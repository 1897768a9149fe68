"""What a gate costs: CPU seconds of this process, of programs that it waited for, of those that run on (the CDK's)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def measured(what: str) -> Iterator[None]:
    """Print what the body cost; other work on the machine changes that little, unlike the time on the clock."""
    before = _cpu_seconds()
    yield
    print(f"{what}: {_cpu_seconds() - before:.1f} CPU s")


def _cpu_seconds() -> float:
    own = os.times()
    return own.user + own.system + own.children_user + own.children_system + _of_running_children()


def _of_running_children() -> float:
    """0 where the kernel does not list a process's children (proc(5), CONFIG_PROC_CHILDREN)."""
    listed = [path.read_text().split() for path in Path("/proc/self/task").glob("*/children")]
    return sum(_of(int(pid)) for pids in listed for pid in pids)


def _of(pid: int) -> float:
    # The name, in brackets, may hold spaces; utime and stime are fields 14 and 15 (proc(5)).
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
