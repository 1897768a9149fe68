"""How large each asset is, and each function with its layers, beside what it may be."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cdk.packaging import recipe
from cdk.packaging.assets import LAYERS, Asset, function_asset, layers_of
from cdk.packaging.recipe import Platform
from functions.table import FUNCTIONS, FunctionRow

# Unzipped megabytes of a function with its layers; Lambda's own limit is 250. What it parses with is 120.
LIMIT_MB = 80
PARSING_LIMIT_MB = 180


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes as Lambda counts them, and as they are uploaded."""

    unzipped: int
    zipped: int

    def __add__(self, other: Size) -> Size:
        return Size(self.unzipped + other.unzipped, self.zipped + other.zipped)


@dataclass(frozen=True, slots=True)
class Deployed:
    """A function with its layers."""

    function: str
    layers: tuple[str, ...]
    size: Size
    limit_mb: int

    @property
    def fits(self) -> bool:
        return self.size.unzipped <= self.limit_mb * 1_000_000

    @property
    def verdict(self) -> str:
        return f"{self.limit_mb}{'' if self.fits else '  MISSED'}"


@dataclass(frozen=True, slots=True)
class Sizes:
    """Everything of one platform."""

    platform: Platform
    layers: dict[str, Size]
    functions: dict[str, Size]
    deployed: tuple[Deployed, ...]

    def too_large(self) -> list[Deployed]:
        return [one for one in self.deployed if not one.fits]


def measured(platform: Platform) -> Sizes:
    """Build what is not built yet, and weigh it all."""
    layers = {layer.name: _size(layer, platform) for layer in LAYERS}
    functions = {row.name: _size(function_asset(row.folder), platform) for row in FUNCTIONS}

    def deployed(row: FunctionRow) -> Deployed:
        mounted = tuple(layer.name for layer in layers_of(row.folder))
        size = sum((layers[layer] for layer in mounted), start=functions[row.name])
        return Deployed(row.name, mounted, size, PARSING_LIMIT_MB if "parsers" in mounted else LIMIT_MB)

    return Sizes(platform, layers, functions, tuple(map(deployed, FUNCTIONS)))


def table(sizes: Sizes) -> str:
    """For people: megabytes of a million bytes."""
    rows = [("", "unzipped", "zipped", "limit")]
    rows += [_row(f"layer {name}", size) for name, size in sizes.layers.items()]
    rows += [_row(f"function {name}", size) for name, size in sizes.functions.items()]
    rows += [
        _row(
            f"{one.function} with {', '.join(one.layers)}", one.size, f"{one.limit_mb}{'' if one.fits else '  MISSED'}"
        )
        for one in sizes.deployed
    ]
    width = max(len(row[0]) for row in rows)
    lines = [
        f"{name:{width}}  {unzipped:>8}  {zipped:>6}  {limit:>5}".rstrip() for name, unzipped, zipped, limit in rows
    ]
    return "\n".join([f"{sizes.platform.value}, MB", *lines])


def as_json(sizes: Sizes) -> dict[str, object]:
    """For programs: bytes."""
    return {
        "platform": sizes.platform.value,
        "layers": {name: asdict(size) for name, size in sizes.layers.items()},
        "functions": {name: asdict(size) for name, size in sizes.functions.items()},
        "deployed": [{**asdict(one), "fits": one.fits} for one in sizes.deployed],
    }


def _row(name: str, size: Size, limit: str = "") -> tuple[str, str, str, str]:
    return name, f"{size.unzipped / 1e6:.2f}", f"{size.zipped / 1e6:.2f}", limit


def _size(asset: Asset, platform: Platform) -> Size:
    """Weighed once: the file beside the folder is true for as long as that has its name."""
    built = asset.built(platform)
    kept = Path(f"{built}.json")
    if not kept.is_file():
        kept.write_text(json.dumps([recipe.unzipped_bytes(built), recipe.zipped_bytes(built)]))
    return Size(*json.loads(kept.read_text()))
