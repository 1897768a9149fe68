"""The packaged functions unpacked as on Lambda, and Lambda's Python with what its runtime brings, all from one lock."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from cdk.packaging import Layer, Platform, function_asset, layers_of, recipe
from cdk.packaging.assets import BUILT, ROOT, exported
from cdk.packaging.programs import PYTHON_VERSION, PackagingError, lambda_python, run
from functions.table import FUNCTIONS

_RUNTIME = {"awslambdaric", "boto3"}
_HERE = {"x86_64": Platform.X86, "aarch64": Platform.ARM}


def here() -> Platform:
    """The platform whose wheels this machine can run."""
    if sys.platform != "linux":
        pytest.skip("the packages are for Linux")
    return _HERE[platform.machine()]


def unpack(folder: Path) -> Path:
    """Unpack every function with its layers; the JSON file that `local.platform --packages` reads."""
    functions = {}
    for row in FUNCTIONS:
        task = folder / "task" / row.name
        function_asset(row.folder).build(task, here())
        functions[row.name] = {"task_root": str(task), "layers": [str(_opt(folder, layers_of(row.folder)) / "python")]}
    for path in sorted(folder.rglob("*"), reverse=True):
        path.chmod(path.stat().st_mode & ~0o222)
    listing = folder.with_suffix(".json")
    listing.write_text(json.dumps({"python": str(lambda_runtime()), "version": PYTHON_VERSION, "functions": functions}))
    return listing


def remove(folder: Path) -> None:
    """Remove what was unpacked, which nobody may write to."""
    for parent, _, _ in os.walk(folder):
        Path(parent).chmod(0o755)
    shutil.rmtree(folder)


def lambda_runtime() -> Path:
    """A Python of Lambda's version that has the runtime client and the SDK and nothing else.

    An environment of its own and not `-S`: what a handler starts in turn, as the parser's process, is kept from this
    machine's packages too. Fails the test where that version is not installed, and says how to get it.
    """
    try:
        python = lambda_python()
    except PackagingError as error:
        pytest.fail(str(error))
    pins = "".join(exported("local", less=_all_but_the_runtime()).values())
    kept = BUILT.parent / f"runtime-{recipe.fingerprint([pins, str(python)], root=ROOT)[:16]}"
    if not kept.is_dir():
        with TemporaryDirectory(dir=_made(BUILT.parent)) as scratch:
            requirements = Path(scratch) / "requirements.txt"
            requirements.write_text(pins)
            run(["uv", "venv", "--quiet", "--python", python, kept], cwd=ROOT)
            wheels = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--compile-bytecode"]
            run(["uv", "pip", "install", "--quiet", "--python", kept, *wheels, "-r", requirements], cwd=ROOT)
    return kept / "bin" / "python"


def _opt(folder: Path, layers: Sequence[Layer]) -> Path:
    """One /opt for these layers: Lambda would let a later one overwrite an earlier one's file, here it is an error."""
    opt = folder / "opt" / "-".join(layer.name for layer in layers)
    if not opt.is_dir():
        for layer in layers:
            built = layer.built(here())
            for source in built.rglob("*"):
                target = opt / source.relative_to(built)
                if source.is_dir():
                    target.mkdir(parents=True, exist_ok=True)
                else:
                    assert not target.exists(), f"{target} is in two layers"
                    shutil.copy(source, target)
    return opt


def _all_but_the_runtime() -> tuple[str, ...]:
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["local"]
    return tuple(name for name in (re.split(r"[\[<>=]", line)[0] for line in named) if name not in _RUNTIME)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
