"""`poe faults [fast|full|soak]`: inject faults and end with one table of them."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.reliability.table import DEFAULT_SEED

FOLDER = Path(__file__).resolve().parent
SELECTIONS = {
    "fast": "faults_fast",
    "full": "faults_fast or faults_full",
    "soak": "faults_fast or faults_full or faults_soak",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="poe faults", description=__doc__)
    parser.add_argument(
        "part",
        nargs="?",
        choices=SELECTIONS,
        default="full",
        help="fast: a minute; full: minutes, as in CI; soak: as long as it takes; each with those before",
    )
    parser.add_argument(
        "--seed", type=int, default=DEFAULT_SEED, help="of everything that is random (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there as well")
    parser.add_argument("-k", metavar="EXPRESSION", help="only the tests whose names match, as for pytest")
    given = parser.parse_args()
    arguments = [str(FOLDER), "-m", SELECTIONS[given.part], f"--faults-seed={given.seed}"]
    arguments += [f"--faults-json={given.json.resolve()}"] if given.json else []
    arguments += ["-k", given.k] if given.k else []
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *arguments])  # noqa: S606 (ourselves, without a shell)


if __name__ == "__main__":
    main()
