"""How files become an asset: install, strip, compile, so that the same lock gives the same bytes on every machine.

This module is part of every fingerprint: another recipe makes other assets.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import zipfile
from collections.abc import Iterable, Iterator
from email.parser import HeaderParser
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory

from cdk.packaging.programs import PYTHON_VERSION, PackagingError, lambda_python, run

_RECIPE = Path(__file__)

# What only installers, type checkers and scanners read, and the page of an API that Powertools would
# serve. What is left of a dist-info (METADATA, entry points, licences) is read at run time or has to be passed on.
_LEFT_OUT = (
    "*.pyi",
    "*.h",
    "bin",
    "tests",
    "test",
    "__pycache__",
    "sboms",
    "swagger-ui-bundle.min.js",
    "swagger-ui.min.css",
    # FastAPI looks for it so that it can refuse its models: 50 ms of CPU at every start.
    "pydantic/v1",
    ".lock",
    "RECORD",
    "INSTALLER",
    "REQUESTED",
    "WHEEL",
    "direct_url.json",
    "uv_cache.json",
    "uv_build.json",
    "py.typed",
)
_FORBIDDEN_LICENCE = re.compile(r"\bAGPL|Affero", re.IGNORECASE)


class Platform(StrEnum):
    """What wheels are for: deployed is ARM, its twin from the same lock is what tests run on a laptop."""

    ARM = "aarch64-manylinux_2_28"
    X86 = "x86_64-manylinux_2_28"


def install(requirements: str, platform: Platform, target: Path) -> None:
    """Put these wheels, whose hashes are named, into the folder; PackagingError when one of them is missing."""
    target.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        listed = Path(folder) / "requirements.txt"
        listed.write_text(requirements)
        command: list[str | Path] = [
            "uv",
            "pip",
            "install",
            "--quiet",
            "--python",
            sys.executable,
            "--target",
            target,
            "--no-deps",
        ]
        wheels = ["--python-platform", platform.value, "--python-version", PYTHON_VERSION, "--only-binary", ":all:"]
        run([*command, *wheels, "--require-hashes", "--link-mode", "copy", "-r", listed], cwd=target)
    check_licences(target)


def check_licences(python: Path) -> None:
    """PackagingError names what is under a licence that would reach the whole service (AGPL)."""
    for metadata in sorted(python.glob("*.dist-info/METADATA")):
        said = HeaderParser().parsestr(metadata.read_text(errors="replace"))
        licences = [said.get("License-Expression", ""), said.get("License", ""), *said.get_all("Classifier", [])]
        if found := [licence for licence in licences if _FORBIDDEN_LICENCE.search(licence)]:
            raise PackagingError(f"{said['Name']} is under {found[0]!r}: it cannot be part of a service")


def strip(folder: Path) -> None:
    """Remove what nothing reads at run time, and make modes the same everywhere."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if any(map(path.match, _LEFT_OUT)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in folder.rglob("*"):
        # What Lambda starts a function by is a program.
        path.chmod(0o755 if path.is_dir() or path.suffix == ".sh" else 0o644)


def compile_modules(folder: Path, mounted: str) -> None:
    """Compile every module as it will lie below `mounted`, never to be compared with its source again (PEP 552).

    Lambda's folders are read-only and a zip file has no true times: a module whose age is compared with its source's
    would be compiled at every cold start.
    """
    command: list[str | Path] = [
        lambda_python(),
        "-S",
        "-s",
        "-m",
        "compileall",
        "-q",
        "--invalidation-mode",
        "unchecked-hash",
    ]
    # One process, one seed: which constants a module's code shares depends on what was compiled before it.
    run([*command, "-s", folder, "-p", mounted, folder], cwd=folder, environment={"PYTHONHASHSEED": "0"})


def fingerprint(parts: object, files: Iterable[Path] = (), *, root: Path) -> str:
    """SHA-256 of this recipe, of the parts (JSON) and of the files with their names relative to `root`."""
    digest = hashlib.sha256(_RECIPE.read_bytes())
    digest.update(json.dumps([PYTHON_VERSION, parts]).encode())
    for path in sorted(files):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def sources(folder: Path) -> Iterator[Path]:
    """The files below a folder that are written by us: no caches."""
    return (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def unzipped_bytes(folder: Path) -> int:
    """What Lambda's limit counts: the sizes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def zipped_bytes(folder: Path) -> int:
    """What is uploaded and kept for every version."""
    with TemporaryDirectory() as scratch:
        archive = Path(scratch) / "asset.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
            for path in sorted(folder.rglob("*")):
                zipped.write(path, path.relative_to(folder))
        return archive.stat().st_size
