"""Which changes of a template would make CloudFormation replace or delete what holds state or is somebody's address."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cdk.templates import Templates

# Type → properties that CloudFormation replaces the resource for, from the providers' schemas (`poe create-only`).
CREATE_ONLY: dict[str, list[str]] = json.loads((Path(__file__).parent / "create_only.json").read_text())
_KEPT = "Retain", "RetainExceptOnCreate", "Snapshot"


def replaced(before: Templates, after: Templates) -> list[str]:
    """Say of each resource of the types in CREATE_ONLY what would become of it; empty when all stay."""
    return [
        f"{stage}/{stack}/{name} ({resource['Type']}): {reason}"
        for stage, stacks in before.items()
        for stack, template in stacks.items()
        for name, resource in template.get("Resources", {}).items()
        if resource["Type"] in CREATE_ONLY
        for reason in _reasons(resource, after.get(stage, {}).get(stack, {}).get("Resources", {}).get(name))
    ]


def _reasons(before: dict[str, Any], after: dict[str, Any] | None) -> Iterator[str]:
    if after is None or after["Type"] != before["Type"]:
        yield "deleted: its logical id is gone"
        return
    for name in CREATE_ONLY[before["Type"]]:
        old, new = (each.get("Properties", {}).get(name) for each in (before, after))
        if old != new:
            yield f"replaced: {name} changes from {json.dumps(old)} to {json.dumps(new)}"
    for policy in ("DeletionPolicy", "UpdateReplacePolicy"):
        old, new = before.get(policy), after.get(policy)
        if old in _KEPT and new not in _KEPT:
            yield f"no longer kept: {policy} changes from {old} to {new}"
