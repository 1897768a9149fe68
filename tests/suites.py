"""The command of a suite that ends with a table: which part of it runs, from which seed, and where the table goes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.tables import DEFAULT_SEED


def run(program: str, folder: Path, parts: Mapping[str, str], *, description: str, explained: str) -> None:
    """Become pytest over the folder; `parts` are the expressions of markers by name, `full` among them.

    Tests that repeat something read the part from `--suite-part`.
    """
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("part", nargs="?", choices=parts, default="full", help=explained)
    parser.add_argument(
        "--seed", type=int, default=DEFAULT_SEED, help="of everything that is random (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there as well")
    parser.add_argument("-k", metavar="EXPRESSION", help="only the tests whose names match, as for pytest")
    given = parser.parse_args()
    arguments = [str(folder), "-m", parts[given.part], f"--suite-part={given.part}", f"--suite-seed={given.seed}"]
    arguments += [f"--suite-json={given.json.resolve()}"] if given.json else []
    arguments += ["-k", given.k] if given.k else []
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *arguments])  # noqa: S606 (ourselves, without a shell)
