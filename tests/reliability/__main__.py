"""`poe faults [fast|full|soak]`: inject faults and end with one table of them."""

from __future__ import annotations

from pathlib import Path

from tests import suites

PARTS = {
    "fast": "faults_fast",
    "full": "faults_fast or faults_full or fault",
    "soak": "faults_fast or faults_full or fault or faults_soak",
}

if __name__ == "__main__":
    suites.run(
        "poe faults",
        Path(__file__).resolve().parents[1],  # faults are injected by other tests as well
        PARTS,
        description="Inject faults and end with one table of them.",
        explained="fast: a minute; full: minutes, as in CI; soak: as long as it takes; each with those before",
    )
