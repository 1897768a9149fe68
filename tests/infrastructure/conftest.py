"""The templates of every stage, synthesised once a session without account, network or Docker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cdk.templates import Templates, read
from tests.infrastructure import linters
from tests.infrastructure.auditing import synthesise
from tests.infrastructure.measuring import measured


@pytest.fixture(scope="session")
def assembly(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cloud assembly of all stages; layers are not built, their hashes are what they would be.

    Rule packs and the CDK's own validation look on where a test of this session reads `report`: one run serves both.
    """
    audited = any("report" in getattr(item, "fixturenames", ()) for item in request.session.items)
    folder = tmp_path_factory.mktemp("assembly")
    with measured("synthesis of three stages" + " with validation and three rule packs" * audited):
        synthesise(folder, audited=audited)
    return folder


@pytest.fixture(scope="session")
def report(assembly: Path) -> dict[str, Any]:
    """What the CDK's own validation and cdk-nag found: plugin name → its part of the report."""
    found = json.loads((assembly / "validation-report.json").read_text())
    return {part["pluginName"]: part for part in found["pluginReports"]}


@pytest.fixture(scope="session")
def templates(assembly: Path) -> Templates:
    """Stage → stack (data, service, monitoring, delivery) → template."""
    return read(assembly)


@pytest.fixture(scope="session")
def lint_environment() -> Path:
    """The virtual environment of cfn-lint and checkov, as the lock says."""
    return linters.environment()
