"""Where a function's code lies and which Python runs it: the repository, or what was packaged for AWS."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from functions.table import FUNCTIONS
from local import service

_FUNCTIONS = "functions"


@dataclass(frozen=True, slots=True)
class Code:
    """`task_root` is Lambda's /var/task, `layers` its /opt/python; `version` is that of `python`, as in 3.13."""

    task_root: Path
    layers: tuple[Path, ...]
    python: Path
    version: str
    packaged: bool = False

    @property
    def environment(self) -> dict[str, str]:
        """The variables that tell the sandbox; what was packaged is only read, as on Lambda."""
        told = {
            "AWS_EXECUTION_ENV": f"AWS_Lambda_python{self.version}",
            "LAMBDA_TASK_ROOT": str(self.task_root),
            "PYTHONPATH": os.pathsep.join(map(str, dict.fromkeys([self.task_root, *self.layers]))),
            "PATH": os.pathsep.join([str(self.python.parent), os.defpath]),
        }
        return told | ({"PYTHONDONTWRITEBYTECODE": "1"} if self.packaged else {})


def of_repository() -> Code:
    """The repository, or the site-packages of an installed wheel, under this Python."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return Code(_folder_above(_FUNCTIONS), (_folder_above("rag"),), Path(sys.executable), version)


def of_packages(listing: Path) -> dict[str, Code]:
    """By function, what a JSON file says: `{"python", "version", "functions": {name: {"task_root", "layers"}}}`.

    Raises ServiceError when it cannot be read or lacks a function.
    """
    try:
        said = json.loads(listing.read_text())
        python, version = Path(said["python"]), str(said["version"])
        return {row.name: _packaged(said["functions"][row.name], python, version) for row in FUNCTIONS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise service.ServiceError(f"{listing} does not say where the packaged functions are: {error!r}") from error


def _packaged(said: Mapping[str, object], python: Path, version: str) -> Code:
    layers = said["layers"]
    if not isinstance(layers, list):
        raise TypeError(f"{layers!r} is no list")
    return Code(Path(str(said["task_root"])), tuple(map(Path, layers)), python, version, packaged=True)


def _folder_above(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise service.ServiceError(f"the package {package} is not installed here; run `uv sync`")
    return Path(spec.origin).resolve().parents[1]
