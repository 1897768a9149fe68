"""What every program of this package does around its run."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

from rich.console import Console, RenderableType

from tests.benchmarks.store.__main__ import say
from tests.benchmarks.store.report import WIDTH


@contextmanager
def workspace() -> Iterator[Path]:
    """A temporary directory, removed at the end; an interrupt ends the program with 130 when all is stopped."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the first is ignored in the background
        signal.signal(number, signal.default_int_handler)
    directory = Path(tempfile.mkdtemp(prefix="rag-benchmark-"))
    directory.chmod(0o711)
    try:
        yield directory
    except KeyboardInterrupt:
        say("interrupted: everything was stopped and removed")
        sys.exit(130)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def printed(*parts: RenderableType) -> str:
    """Tables as text."""
    out = StringIO()
    Console(file=out, width=WIDTH).print(*parts)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())
