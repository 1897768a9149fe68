"""How far an upload is: bars on a terminal, a line per file elsewhere, nothing where JSON is wanted; all on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from local.cli.output import is_terminal, note, one_line, size

if TYPE_CHECKING:
    from rich.progress import Progress

    from local.cli.uploading import Upload


class Meter(Protocol):
    """Is told what happens, in this order for each file."""

    def sent(self, count: int) -> None: ...
    def arrived(self, upload: Upload) -> None: ...
    def settled(self, upload: Upload) -> None: ...


class _Silent:
    def sent(self, count: int) -> None: ...
    def arrived(self, upload: Upload) -> None: ...
    def settled(self, upload: Upload) -> None: ...


class _Lines(_Silent):
    def arrived(self, upload: Upload) -> None:
        note(f"{upload.status:<9} {one_line(upload.key)} ({size(upload.source.size)})")

    def settled(self, upload: Upload) -> None:
        chunks = f" ({upload.chunk_count} chunks)" if upload.chunk_count else ""
        note(f"{upload.status:<9} {one_line(upload.key)}{chunks} {one_line(upload.reason)}".rstrip())


class _Bars(_Silent):
    def __init__(self, progress: Progress, total_bytes: int, files: int) -> None:
        self._progress = progress
        self._upload = progress.add_task("uploading", total=max(total_bytes, 1), note="")
        self._index = progress.add_task("indexing", total=files, note="")

    def sent(self, count: int) -> None:
        self._progress.advance(self._upload, count)

    def arrived(self, upload: Upload) -> None:
        if upload.status == "failed":
            self._progress.advance(self._index)

    def settled(self, upload: Upload) -> None:
        self._progress.update(self._index, advance=1, note=one_line(upload.key)[-40:])


@contextmanager
def meter(*, quiet: bool, total_bytes: int, files: int) -> Iterator[Meter]:
    """The right one for where stderr goes; bars are taken off again at the end."""
    if quiet or not is_terminal(sys.stderr):
        yield _Silent() if quiet else _Lines()
        return
    from rich.console import Console  # noqa: PLC0415 (rich costs 0.2 s, which a pipe need not wait for)
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn  # noqa: PLC0415

    # The name of a file is data: with markup on, rich would obey [brackets] in it.
    key = TextColumn("{task.fields[note]}", markup=False)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), key)
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Bars(progress, total_bytes, files)
