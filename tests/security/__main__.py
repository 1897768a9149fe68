"""`poe security [fast|full|soak]`: try attacks and end with one table of them."""

from __future__ import annotations

from pathlib import Path

from tests import suites

PARTS = {
    "fast": "security and not slow",
    "full": "security",
    "soak": "security",
}

if __name__ == "__main__":
    suites.run(
        "poe security",
        Path(__file__).resolve().parent,
        PARTS,
        description="Try attacks and end with one table of them.",
        explained="fast: few seconds; full: as often as is promised; soak: a thousand requests for each route",
    )
