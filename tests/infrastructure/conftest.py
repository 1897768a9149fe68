"""The templates of every stage, synthesised once a session without account, network or Docker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cdk.platform import app

Templates = dict[str, dict[str, dict[str, Any]]]


@pytest.fixture(scope="session")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cloud assembly of all stages; layers are not built, their hashes are what they would be."""
    folder = tmp_path_factory.mktemp("assembly")
    app(
        outdir=str(folder),
        tree_metadata=False,
        builtin_cloud_formation_validation=False,
        context={"aws:cdk:bundling-stacks": []},
    ).synth()
    return folder


@pytest.fixture(scope="session")
def templates(assembly: Path) -> Templates:
    """Stage → stack (data, service, monitoring, delivery) → template."""
    found: Templates = {}
    for manifest in sorted(assembly.glob("assembly-*/manifest.json")):
        for artifact in json.loads(manifest.read_text())["artifacts"].values():
            if artifact["type"] == "aws:cloudformation:stack":
                stage, _, stack = artifact["displayName"].partition("/")
                template = manifest.parent / artifact["properties"]["templateFile"]
                found.setdefault(stage, {})[stack] = json.loads(template.read_text())
    return found
