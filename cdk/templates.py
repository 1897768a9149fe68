"""The templates of every stage as data: for tests, and for `rag cost`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cdk.platform import app

Template = dict[str, Any]
Templates = dict[str, dict[str, Template]]

# Layers are not built for a look at the templates: their hashes are what they would be.
WITHOUT_BUNDLING: dict[str, Any] = {"aws:cdk:bundling-stacks": []}


def read(assembly: Path) -> Templates:
    """Stage → stack (data, service, monitoring, delivery) → template, of a synthesised assembly."""
    found: Templates = {}
    for manifest in sorted(assembly.glob("assembly-*/manifest.json")):
        for artifact in json.loads(manifest.read_text())["artifacts"].values():
            if artifact["type"] == "aws:cloudformation:stack":
                stage, _, stack = artifact["displayName"].partition("/")
                template = manifest.parent / artifact["properties"]["templateFile"]
                found.setdefault(stage, {})[stack] = json.loads(template.read_text())
    return found


def synthesised(folder: Path) -> Templates:
    """Synthesise every stage into a folder, with no rules looking on: seconds, no account, no network."""
    app(
        outdir=str(folder), tree_metadata=False, builtin_cloud_formation_validation=False, context=WITHOUT_BUNDLING
    ).synth()
    return read(folder)
