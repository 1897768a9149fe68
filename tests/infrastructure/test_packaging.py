"""What would be deployed: the same bytes everywhere, nothing too much, for Lambda's machine, within its sizes."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import struct
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

from cdk.packaging import (
    LAYERS,
    Asset,
    Layer,
    PackagingError,
    Platform,
    function_asset,
    layers_of,
    programs,
    recipe,
    sizes,
)
from cdk.packaging.assets import ROOT, exported
from functions.table import FUNCTIONS
from tests.infrastructure import elf

FOLDERS = tuple(dict.fromkeys(row.folder for row in FUNCTIONS))
ASSETS = (*LAYERS, *map(function_asset, FOLDERS))
# Amazon Linux 2023, which Python 3.13 runs on at Lambda.
GLIBC = (2, 34)
# Of the runtime, and what makes packages.
UNWANTED = {"boto3", "botocore", "s3transfer", "urllib3", "six", "python-dateutil", "pip", "setuptools", "wheel"}

every_asset = pytest.mark.parametrize("asset", ASSETS, ids=lambda asset: f"{type(asset).__name__}-{asset.name}")
every_platform = pytest.mark.parametrize("platform", Platform, ids=lambda platform: platform.name)


def files(folder: Path) -> dict[str, str]:
    """SHA-256 by path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def installed(folder: Path) -> dict[str, str]:
    return {
        found.name.lower().replace("_", "-"): found.version for found in distributions(path=[str(folder / "python")])
    }


@pytest.mark.slow
@every_asset
def test_two_builds_are_the_same_bytes(asset: Asset, tmp_path: Path) -> None:
    first = files(asset.built(Platform.ARM))
    asset.make(tmp_path / "elsewhere" / "again", Platform.ARM)
    assert files(tmp_path / "elsewhere" / "again") == first
    assert first


def test_a_fingerprint_is_the_same_in_another_process_and_place() -> None:
    program = (
        "from cdk.packaging import LAYERS, Platform, function_asset\n"
        f"assets = [*LAYERS, *map(function_asset, {FOLDERS})]\n"
        "print(*(asset.fingerprint(Platform.ARM) for asset in assets))"
    )
    variables = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    said = subprocess.run(command, cwd="/", env=variables, capture_output=True, text=True, check=True).stdout
    assert said.split() == [asset.fingerprint(Platform.ARM) for asset in ASSETS]
    assert len(set(said.split())) == len(ASSETS)


def test_a_fingerprint_follows_whatever_the_asset_is_made_of(tmp_path: Path) -> None:
    source = tmp_path / "package"
    source.mkdir()
    (source / "module.py").write_text("a = 1")
    prints = [recipe.fingerprint("x", recipe.sources(source), root=tmp_path)]
    (source / "module.py").write_text("a = 2")
    prints.append(recipe.fingerprint("x", recipe.sources(source), root=tmp_path))
    (source / "module.py").rename(source / "other.py")
    prints.append(recipe.fingerprint("x", recipe.sources(source), root=tmp_path))
    prints.append(recipe.fingerprint("y", recipe.sources(source), root=tmp_path))
    assert len(set(prints)) == 4
    (source / "__pycache__").mkdir()
    (source / "__pycache__" / "other.cpython-313.pyc").write_bytes(b"cache")
    assert recipe.fingerprint("y", recipe.sources(source), root=tmp_path) == prints[-1]
    dependencies = [layer for layer in LAYERS if layer.name != "rag"]
    assert all(layer.fingerprint(Platform.ARM) != layer.fingerprint(Platform.X86) for layer in dependencies)


@pytest.mark.slow
@every_platform
def test_layers_hold_neither_what_the_runtime_brings_nor_tools(platform: Platform) -> None:
    for layer in LAYERS:
        built = layer.built(platform)
        unwanted = {
            "boto3",
            "botocore",
            "s3transfer",
            "urllib3",
            "six",
            "python-dateutil",
            "pip",
            "setuptools",
            "wheel",
        }
        assert installed(built).keys() & unwanted == set()
        suffixes = {path.suffix for path in built.rglob("*") if path.is_file()}
        assert suffixes & {".c", ".h", ".a", ".o", ".rs", ".pyx", ".pyi", ".exe"} == set()
        assert {path.name for path in built.iterdir()} == {"python"}
        assert not {"bin", "tests", "boto3", "botocore"} & {path.name for path in built.rglob("*") if path.is_dir()}


@pytest.mark.slow
def test_the_parsers_are_mounted_beside_the_dependencies_of_all_and_repeat_none() -> None:
    by_name = {layer.name: layer for layer in LAYERS}
    functions, tokens, parsers = (
        installed(by_name[name].built(Platform.ARM)) for name in ("functions", "tokens", "parsers")
    )
    assert parsers.keys() >= {"kreuzberg", "tokenizers", "chardet"}
    assert tokens.keys() >= {"pyjwt", "cryptography"}
    assert functions.keys() & (parsers.keys() | tokens.keys()) == set()
    mounted = {row.name: [layer.name for layer in layers_of(row.folder)] for row in FUNCTIONS}
    others = {row.name: ["rag", "functions"] for row in FUNCTIONS}
    own = {"ingest": ["rag", "functions", "parsers"], "authorize": ["rag", "functions", "tokens"]}
    assert mounted == others | own


@pytest.mark.slow
def test_no_file_is_in_two_layers() -> None:
    every = [name for layer in LAYERS for name in files(layer.built(Platform.ARM))]
    assert len(every) == len(set(every))


@pytest.mark.slow
def test_the_package_is_shipped_as_it_lies() -> None:
    source = ROOT / "layers" / "rag" / "python"
    [layer] = [layer for layer in LAYERS if layer.name == "rag"]
    built = files(layer.built(Platform.ARM) / "python")
    theirs = {name: content for name, content in built.items() if not name.endswith(".pyc")}
    ours = {path.relative_to(source).as_posix(): files(path.parent)[path.name] for path in recipe.sources(source)}
    assert theirs == ours
    certificates = source / "rag" / "certificates"
    assert {f"rag/certificates/{path.name}" for path in certificates.glob("*.pem")} & theirs.keys() >= {
        "rag/certificates/proxy.pem",
        "rag/certificates/eu-central-1.pem",
    }


@pytest.mark.slow
def test_what_lambda_starts_a_function_by_is_a_program_there_and_nothing_else_is() -> None:
    programs_there = {
        path.relative_to(built).as_posix()
        for asset in ASSETS
        for built in [asset.built(Platform.ARM)]
        for path in built.rglob("*")
        if path.is_file() and path.stat().st_mode & 0o111
    }
    assert programs_there == {row.wrapper for row in FUNCTIONS if row.wrapper} != set()


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_a_function_holds_its_own_folder_and_nothing_else(name: str) -> None:
    built = files(function_asset(name).built(Platform.ARM))
    source = ROOT / "functions" / name
    expected = {"functions/__init__.py"}
    expected |= {f"functions/{name}/{path.relative_to(source).as_posix()}" for path in recipe.sources(source)}
    assert {path for path in built if not path.endswith(".pyc")} == expected
    compiled = {importlib.util.source_from_cache(path) for path in built if path.endswith(".pyc")}
    assert compiled == {path for path in expected if path.endswith(".py")}


@pytest.mark.slow
@every_asset
def test_every_module_is_compiled_for_lambdas_python_and_never_looked_at_again(asset: Asset) -> None:
    built = asset.built(Platform.ARM)
    program = "import importlib.util; print(importlib.util.MAGIC_NUMBER.hex())"
    magic = bytes.fromhex(programs.run([programs.lambda_python(), "-c", program], cwd=ROOT))
    modules = list(built.rglob("*.py"))
    assert modules
    for module in modules:
        compiled = module.parent / "__pycache__" / f"{module.stem}.cpython-313.pyc"
        head = compiled.read_bytes()[:8]
        # PEP 552: bit 0 says that a hash stands for the source, bit 1 that it is to be compared.
        assert (head[:4], struct.unpack_from("<I", head, 4)) == (magic, (0b01,)), module
    sample = modules[0].parent / "__pycache__" / f"{modules[0].stem}.cpython-313.pyc"
    assert f"{asset.mounted}/{modules[0].relative_to(built).as_posix()}".encode() in sample.read_bytes()
    assert str(ROOT).encode() not in sample.read_bytes()


@pytest.mark.slow
@every_platform
def test_every_library_is_for_its_platform_and_finds_its_glibc_on_lambda(platform: Platform) -> None:
    seen = 0
    for layer in LAYERS:
        for path in layer.built(platform).rglob("*"):
            if path.is_file() and elf.is_elf(path):
                library = elf.read(path)
                assert library.machine == platform.value.partition("-")[0], path
                assert library.glibc <= GLIBC, path
                seen += library.glibc > (0, 0)
            else:
                assert ".so" not in path.suffixes, path
    assert seen > 15


def test_the_reader_of_libraries_sees_what_this_interpreter_needs() -> None:
    import _ctypes

    library = elf.read(Path(_ctypes.__file__))
    assert library.machine == os.uname().machine
    assert (2, 0) < library.glibc < (3, 0)


@pytest.mark.slow
def test_both_platforms_hold_the_same_distributions() -> None:
    for layer in LAYERS:
        arm, x86 = (installed(layer.built(platform)) for platform in Platform)
        assert arm == x86
        assert bool(arm) == (layer.name != "rag")


@pytest.mark.slow
@pytest.mark.parametrize("layer", LAYERS[1:], ids=lambda layer: layer.name)
def test_versions_are_those_of_the_lock(layer: Layer) -> None:
    pinned = {name: pin.split()[0].partition("==")[2] for name, pin in exported(layer.name).items()}
    found = installed(layer.built(Platform.ARM))
    assert found
    assert {name: pinned[name] for name in found} == found


@pytest.mark.slow
@every_platform
def test_every_function_fits(platform: Platform) -> None:
    found = sizes.measured(platform)
    print(sizes.table(found))
    assert found.too_large() == []
    assert {one.function for one in found.deployed} == {row.name for row in FUNCTIONS}
    # A layer that lost what it is for would fit as well.
    assert min(one.size.unzipped for one in found.deployed) > 40_000_000


def test_what_is_too_large_is_said() -> None:
    size = sizes.Size(80_000_001, 1)
    large = sizes.Deployed("query", ("rag", "functions"), size, sizes.LIMIT_MB)
    found = sizes.Sizes(Platform.ARM, {"rag": size}, {"query": size}, (large,))
    assert found.too_large() == [large]
    assert "80  MISSED" in sizes.table(found)


@pytest.mark.parametrize(
    "line",
    [
        "License-Expression: AGPL-3.0-only",
        "Classifier: License :: OSI Approved :: GNU Affero General Public License v3",
    ],
)
def test_a_licence_that_reaches_the_service_stops_the_build(line: str, tmp_path: Path) -> None:
    metadata = tmp_path / "shady-1.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.4\nName: shady\n{line}\n")
    with pytest.raises(PackagingError, match="shady is under"):
        recipe.check_licences(tmp_path)
    metadata.write_text("Metadata-Version: 2.4\nName: fine\nLicense-Expression: LGPL-3.0-only\n")
    recipe.check_licences(tmp_path)


@pytest.mark.slow
def test_a_wheel_whose_hash_is_another_is_refused(tmp_path: Path) -> None:
    pins = f"idna=={exported('functions')['idna'].split()[0].partition('==')[2]} --hash=sha256:{'0' * 64}\n"
    with pytest.raises(PackagingError, match=r"(?i)hash"):
        recipe.install(pins, Platform.ARM, tmp_path)


def test_a_missing_python_is_said_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "PYTHON_VERSION", "3.999")
    with pytest.raises(PackagingError, match=r"Python 3\.999.*uv python install 3\.999"):
        programs.lambda_python.__wrapped__()


def test_a_missing_program_is_said(tmp_path: Path) -> None:
    with pytest.raises(PackagingError, match="the program no-such-uv is not installed"):
        programs.run(["no-such-uv"], cwd=tmp_path)
