"""The import contracts hold, and each of them would notice what it forbids."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("layers/rag/python/rag", "functions", "local", "cdk")
BREACHES = {
    "rag/ranking.py": "import boto3",
    "rag/types.py": "from rag.store import access",
    "functions/query/api.py": "import local.service",
    "functions/maintain/handler.py": "from functions.authorize import handler",
    "cdk/packaging/recipe.py": "import aws_cdk",
}
BROKEN = {
    "rag.ranking -> boto3": "Pure code and pipelines touch no SDK",
    "rag.types -> rag.store": "One direction",
    "functions.query.api -> local.service": "What is deployed never imports",
    "functions.maintain.handler -> functions.authorize.handler": "Functions do not know each other",
    "cdk.packaging.recipe -> aws_cdk": "Packaging needs neither",
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The packages and the configuration, to be broken."""
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / Path(package).name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_code_as_it_stands_keeps_every_contract(copy: Path) -> None:
    linted = lint(copy)
    assert linted.returncode == 0, linted.stdout
    assert f"{len(BROKEN)} kept, 0 broken" in linted.stdout


def test_each_contract_notices_what_it_forbids_even_inside_a_function(copy: Path) -> None:
    for name, statement in BREACHES.items():
        path = copy / name
        path.write_text(f"{path.read_text()}\n\ndef breach() -> None:\n    {statement}\n")
    linted = lint(copy)
    assert linted.returncode == 1
    assert f"0 kept, {len(BROKEN)} broken" in linted.stdout
    for edge, contract in BROKEN.items():
        assert edge in linted.stdout
        assert contract in linted.stdout
