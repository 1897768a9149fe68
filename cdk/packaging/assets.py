"""The layers and the functions' folders: which there are, what they are made of, where built ones are kept."""

from __future__ import annotations

import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from cdk.packaging import recipe
from cdk.packaging.programs import run
from cdk.packaging.recipe import Platform

ROOT = Path(__file__).resolve().parents[2]
BUILT = ROOT / "build" / "packages"

# Lambda's runtime brings these, and what only they need.
_LEFT_TO_THE_RUNTIME = ("boto3", "botocore")
# The functions that read documents, and the group that they read them with.
_PARSING_FUNCTIONS = frozenset({"ingest"})
# Those that verify what somebody else has signed.
_VERIFYING_FUNCTIONS = frozenset({"authorize"})


@dataclass(frozen=True, slots=True)
class Asset(ABC):
    """Files that Lambda unpacks below `mounted`, made from what is in the repository."""

    name: str

    @property
    @abstractmethod
    def mounted(self) -> str:
        """The folder on Lambda."""

    @abstractmethod
    def fingerprint(self, platform: Platform) -> str:
        """SHA-256 of all that it is made of; needs `uv` and no build, and is the same on every machine."""

    @abstractmethod
    def _gather(self, output: Path, platform: Platform) -> None:
        """Bring the files together; what is done to all assets comes afterwards."""

    def make(self, output: Path, platform: Platform) -> None:
        """Write the asset into the folder, anew; PackagingError says why it cannot be."""
        output.mkdir(parents=True, exist_ok=True)
        self._gather(output, platform)
        recipe.strip(output)
        recipe.compile_modules(output, self.mounted)

    def built(self, platform: Platform) -> Path:
        """The folder that holds the asset, made now unless it was before; it belongs to all and is only read."""
        kept = BUILT / f"{self.name}-{self.fingerprint(platform)[:16]}"
        if not kept.is_dir():
            BUILT.mkdir(parents=True, exist_ok=True)
            making = Path(mkdtemp(dir=BUILT, prefix=".making-"))
            try:
                self.make(making, platform)
                making.chmod(0o755)
                if not kept.is_dir():
                    making.rename(kept)
            finally:
                shutil.rmtree(making, ignore_errors=True)
        return kept

    def build(self, output: Path, platform: Platform) -> None:
        """Write the asset into the folder, out of what was built before where that is the same."""
        shutil.copytree(self.built(platform), output, dirs_exist_ok=True)


class Layer(Asset):
    """What functions share, below `/opt/python`."""

    @property
    def mounted(self) -> str:
        return "/opt"


@dataclass(frozen=True, slots=True)
class SourceLayer(Layer):
    """A package of ours as it lies; the same on every platform."""

    source: Path

    def fingerprint(self, platform: Platform) -> str:  # noqa: ARG002 (an asset's signature)
        return recipe.fingerprint(self.mounted, recipe.sources(self.source), root=self.source)

    def _gather(self, output: Path, platform: Platform) -> None:  # noqa: ARG002
        shutil.copytree(self.source, output / "python", ignore=shutil.ignore_patterns("__pycache__"))


@dataclass(frozen=True, slots=True)
class DependencyLayer(Layer):
    """The wheels of a dependency group, less those of the groups in layers that it is mounted beside."""

    group: str
    beside: tuple[str, ...] = ()

    def fingerprint(self, platform: Platform) -> str:
        return recipe.fingerprint([self.mounted, platform.value, self._requirements()], root=ROOT)

    def _gather(self, output: Path, platform: Platform) -> None:
        recipe.install(self._requirements(), platform, output / "python")

    def _requirements(self) -> str:
        there = {name for group in self.beside for name in exported(group)}
        return "".join(pin for name, pin in exported(self.group).items() if name not in there)


@dataclass(frozen=True, slots=True)
class FunctionAsset(Asset):
    """One function's own folder at the path that it is imported by in the repository, and no other's."""

    @property
    def mounted(self) -> str:
        return "/var/task"

    def fingerprint(self, platform: Platform) -> str:  # noqa: ARG002
        return recipe.fingerprint(self.mounted, [self._package, *recipe.sources(self._folder)], root=ROOT)

    def _gather(self, output: Path, platform: Platform) -> None:  # noqa: ARG002
        package = output / "functions"
        package.mkdir()
        shutil.copy(self._package, package)
        shutil.copytree(self._folder, package / self.name, ignore=shutil.ignore_patterns("__pycache__"))

    @property
    def _folder(self) -> Path:
        return ROOT / "functions" / self.name

    @property
    def _package(self) -> Path:
        return ROOT / "functions" / "__init__.py"


_RAG = SourceLayer("rag", ROOT / "layers" / "rag" / "python")
_FUNCTIONS = DependencyLayer("functions", "functions")
_TOKENS = DependencyLayer("tokens", "tokens", beside=("functions",))
_PARSERS = DependencyLayer("parsers", "parsers", beside=("functions",))
LAYERS: tuple[Layer, ...] = (_RAG, _FUNCTIONS, _TOKENS, _PARSERS)


def layers_of(folder: str) -> tuple[Layer, ...]:
    """The layers that a function whose code is this folder mounts."""
    own = {_TOKENS: _VERIFYING_FUNCTIONS, _PARSERS: _PARSING_FUNCTIONS}
    return tuple(layer for layer in LAYERS if layer not in own or folder in own[layer])


def function_asset(name: str) -> FunctionAsset:
    """The asset of `functions/<name>`, a row's `folder`: two functions may be of the same code."""
    return FunctionAsset(name)


@cache
def exported(group: str, *, less: tuple[str, ...] = _LEFT_TO_THE_RUNTIME) -> Mapping[str, str]:
    """The lock's requirements of one dependency group with their hashes, by name, `less` and what only that needs."""
    options = ["--quiet", "--frozen", "--no-emit-project", "--no-annotate", "--no-header", "--only-group", group]
    printed = run(["uv", "export", *options, *(f"--prune={name}" for name in less)], cwd=ROOT)
    pins = re.findall(r"^(\S.*?(?:\\\n\s+.*?)*\n)", printed, re.MULTILINE)
    return {re.split(r"[=\[ ]", pin, maxsplit=1)[0]: pin for pin in pins}
