"""Mutated files through the parsers in confined children, a hundred in each (KIND FOLDER COUNT SEED).

A child for each, as in production, would take ten times as long. What a child did not survive, or did not foresee, is
only suspected here: whoever runs this reads those files again, one by one, as they are read in production.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rag import confinement, parsing
from rag.confinement import Bounds
from rag.errors import DocumentError
from tests.reliability import hostile

BATCH = 100
WALL_SECONDS = 60.0
MEMORY_MIB = 512


def mutation(good: list[tuple[str, bytes]], kind: str, number: int, seed: int) -> tuple[str, bytes]:
    """The same file for the same number and seed, whoever asks for it."""
    name, data = good[number % len(good)]
    return f"{number} of {name}.{kind}", hostile.mutated(data, random.Random(f"{seed} {kind} {number}"))


def main(kind: str, documents: str, count: str, seed: str) -> None:
    good = hostile.samples(Path(documents), kind)
    found: dict[str, Any] = {"outcomes": Counter(), "worst_seconds": 0.0, "worst_mib": 0, "suspects": []}
    for start in range(0, int(count), BATCH):
        numbers = range(start, min(int(count), start + BATCH))
        part, mebibytes = _in_a_child([(number, *mutation(good, kind, number, int(seed))) for number in numbers])
        found["worst_mib"] = max(found["worst_mib"], mebibytes)
        if part is None:
            found["suspects"] += list(numbers)
            continue
        found["outcomes"].update(part["outcomes"])
        found["suspects"] += part["suspects"]
        found["worst_seconds"] = max(found["worst_seconds"], part["worst_seconds"])
    print(json.dumps(found))


def _in_a_child(files: list[tuple[int, str, bytes]]) -> tuple[dict[str, Any] | None, int]:
    incoming, outgoing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            confinement.confine(Bounds(WALL_SECONDS, int(WALL_SECONDS), MEMORY_MIB, confinement.FILE_BYTES))
            os.write(outgoing, json.dumps(_read(files)).encode())
        finally:
            os._exit(0)
    os.close(outgoing)
    answer = b""
    if select.select([incoming], [], [], WALL_SECONDS)[0]:
        answer = os.read(incoming, 65536)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    _, _, usage = os.wait4(child, 0)
    os.close(incoming)
    return (json.loads(answer) if answer else None), usage.ru_maxrss // 1024


def _read(files: list[tuple[int, str, bytes]]) -> dict[str, Any]:
    outcomes: Counter[str] = Counter()
    suspects, worst = [], 0.0
    for number, name, data in files:
        started = time.monotonic()
        try:
            parsing.parse(data, name)
            outcomes["ready"] += 1
        except DocumentError as error:
            outcomes[error.code] += 1
        except BaseException:  # noqa: BLE001 (whatever it is, it is looked at again)
            suspects.append(number)
        worst = max(worst, time.monotonic() - started)
    return {"outcomes": outcomes, "suspects": suspects, "worst_seconds": worst}


if __name__ == "__main__":
    main(*sys.argv[1:])
