"""Which files a list of paths means, and the key each of them gets."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from local.cli.failure import UsageFailure


@dataclass(frozen=True, slots=True)
class Source:
    """A file to upload; `size` is in bytes."""

    path: Path
    key: str
    size: int


def find(paths: Iterable[Path], prefix: str = "") -> list[Source]:
    """Every file that the paths mean, folders with all below them in order of their keys; raises UsageFailure.

    A file's key is its name, a file in a folder has its path relative to that folder, in NFC and with slashes on every
    system; `prefix` stands before it as a folder. Hidden files and folders are skipped unless named themselves.
    """
    found: dict[str, Source] = {}
    for path, relative in _files(paths):
        source = Source(path, _key(prefix, relative), path.stat().st_size)
        if (other := found.setdefault(source.key, source)).path != path:
            message = f"{other.path} and {path} would both have the key {source.key}."
            raise UsageFailure(message, hint="Put them one after the other, with different --prefix.")
    if not found:
        raise UsageFailure("There is no file to put.", hint="Hidden files are skipped unless named themselves.")
    return list(found.values())


def _files(paths: Iterable[Path]) -> Iterator[tuple[Path, Sequence[str]]]:
    for path in paths:
        if path.is_dir():
            yield from _below(path)
        elif path.is_file():
            yield path, [path.name]
        else:
            raise UsageFailure(f"There is no file or folder {path}.")


def _below(folder: Path) -> Iterator[tuple[Path, Sequence[str]]]:
    for directory, subdirectories, names in os.walk(folder):
        subdirectories[:] = sorted(name for name in subdirectories if not name.startswith("."))
        for name in sorted(names):
            path = Path(directory, name)
            # A dangling link, a socket or a pipe is no document.
            if not name.startswith(".") and path.is_file():
                yield path, path.relative_to(folder).parts


def _key(prefix: str, relative: Sequence[str]) -> str:
    return unicodedata.normalize("NFC", str(PurePosixPath(prefix.strip("/"), *relative)))
