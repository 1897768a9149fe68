"""The programs that packaging runs: `uv`, and the Python that Lambda has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

PYTHON_VERSION = "3.13"


class PackagingError(Exception):
    """Something cannot be packaged; the message says why and what to do."""


def run(command: Sequence[str | Path], *, cwd: Path, environment: Mapping[str, str] | None = None) -> str:
    """Return what the program wrote; PackagingError with the end of its complaints when it fails."""
    try:
        done = subprocess.run(
            [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise PackagingError(f"the program {command[0]} is not installed; `pip install uv` brings uv") from None
    if done.returncode:
        said = "\n".join((done.stderr or done.stdout).splitlines()[-15:])
        raise PackagingError(f"{' '.join(map(str, command[:3]))} … failed:\n{said}")
    return done.stdout


@cache
def lambda_python() -> Path:
    """The interpreter of Lambda's version, on PATH, of uv, or of pyenv; PackagingError when there is none."""
    for candidate in _candidates():
        if _version(candidate) == PYTHON_VERSION:
            return candidate
    raise PackagingError(
        f"Python {PYTHON_VERSION}, which the functions run on, is not installed: "
        f"`uv python install {PYTHON_VERSION}` or `pyenv install {PYTHON_VERSION}`"
    )


def _candidates() -> Iterator[Path]:
    yield Path(sys.executable)
    if on_path := shutil.which(f"python{PYTHON_VERSION}"):
        yield Path(on_path)
    options = ["--python-preference", "only-managed", "--no-python-downloads", "--no-project"]
    managed = _output(["uv", "python", "find", *options, PYTHON_VERSION])
    if managed:
        yield Path(managed)
    if root := os.environ.get("PYENV_ROOT") or _output(["pyenv", "root"]):
        yield from sorted(Path(root).glob(f"versions/{PYTHON_VERSION}.*/bin/python{PYTHON_VERSION}"), reverse=True)


def _version(python: Path) -> str:
    # A shim of pyenv stands on PATH for versions that are not chosen, and fails.
    return _output([str(python), "-I", "-S", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"])


def _output(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return "" if done.returncode else done.stdout.strip()
