"""`poe snapshots`: write the templates of every stage anew; refuses to where a stateful resource would be replaced."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from cdk.templates import Templates, synthesised
from tests.infrastructure.replacement import replaced

FOLDER = Path(__file__).parent / "snapshots"
ACCEPT = "--accept-replacement"

# Hashes of assets, and of what stands in a version or a deployment, change with every line of code.
_HASHES = (
    (re.compile(r"\b[0-9a-f]{64}\b"), "<hash>"),
    (re.compile(r"(?<=[A-Za-z0-9])[0-9a-f]{32}\b"), "<hash>"),
)


def normalised(templates: Templates) -> Templates:
    """The templates without what changes when only code does."""
    text = json.dumps(templates)
    for pattern, written in _HASHES:
        text = pattern.sub(written, text)
    found: Templates = json.loads(text)
    for stacks in found.values():
        for template in stacks.values():
            for resource in template.get("Resources", {}).values():
                resource.pop("Metadata", None)
    return found


def committed() -> Templates:
    """The snapshots in the tree, by stage."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def as_text(stacks: object) -> str:
    """One stage as it lies in the tree."""
    return json.dumps(stacks, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Write the snapshots; 1, and nothing written, when something stateful would be replaced."""
    with TemporaryDirectory() as folder:
        now = normalised(synthesised(Path(folder)))
    lost = replaced(committed(), now)
    if lost and ACCEPT not in arguments:
        print("\n".join([*lost, f"Nothing is written; `poe snapshots {ACCEPT}` says that this is meant."]))
        return 1
    for stage, stacks in now.items():
        (FOLDER / f"{stage}.json").write_text(as_text(stacks))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
