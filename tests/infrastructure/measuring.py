"""What a gate costs: CPU seconds of this process, of programs that it waited for, of those that run on (the CDK's)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    return own.user + own.system + own.children_user + own.children_system + _of_those_below(os.getpid())


def _of_those_below(top: int) -> float:
    """What running descendants have used; 0 where there is no /proc."""
    parents, used = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name, in brackets, may hold spaces; ppid, utime and stime are fields 4, 14 and 15 (proc(5)).
            fields = path.read_text().rpartition(")")[2].split()
            parents[int(path.parent.name)] = int(fields[1])
            used[int(path.parent.name)] = (int(fields[11]) + int(fields[12])) / _TICKS
    below = {top}
    while found := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= found
    return sum(used.get(pid, 0) for pid in below - {top})
