"""The fault suite's one table: what was injected, how often a promise was broken by it (never), and the figure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

DEFAULT_SEED = 5
_FAULT = re.compile(r"[A-Z][0-9]{1,2}")
_ROWS = pytest.StashKey["list[Row]"]()


@dataclass(frozen=True)
class Row:
    """One fault as one test injected it; `test` is the test's name as a sentence."""

    fault: str
    test: str
    injected: int
    violations: int
    figure: str


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults", "the fault suite")
    group.addoption("--faults-seed", type=int, default=DEFAULT_SEED, metavar="N", help="of everything that is random")
    group.addoption("--faults-json", type=Path, metavar="FILE", help="write the table of faults there as well")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ROWS] = []


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    """What everything random in the suite begins with: as given, else always the same."""
    return int(pytestconfig.getoption("--faults-seed"))


@pytest.fixture
def record_fault(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Put a row into the table that ends the run; a fault without injections proves nothing and is refused."""

    def record(fault: str, *, injected: int, violations: int, figure: str) -> None:
        assert _FAULT.fullmatch(fault), fault
        assert injected > 0, fault
        test = request.node.name.removeprefix("test_").replace("_", " ")
        request.config.stash[_ROWS].append(Row(fault, test, injected, violations, figure))

    return record


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    rows = sorted(config.stash[_ROWS], key=lambda row: (row.fault[0], int(row.fault[1:]), row.test))
    if file := config.getoption("--faults-json"):
        document = {"seed": config.getoption("--faults-seed"), "faults": [asdict(row) for row in rows]}
        file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    if not rows:
        return
    terminalreporter.section("faults")
    for line in lines(rows):
        terminalreporter.write_line(line)
    violations = sum(row.violations for row in rows)
    injected = sum(row.injected for row in rows)
    terminalreporter.write_line(
        f"{len(rows)} rows, {len({row.fault for row in rows})} faults, {injected:,} injected, {violations} violations; "
        f"seed {config.getoption('--faults-seed')}"
    )


def lines(rows: list[Row]) -> list[str]:
    """The table, a line each; the widest figure is last so that nothing needs to be cut."""
    cells = [("fault", "injected", "violations", "test", "figure")]
    cells += [(row.fault, f"{row.injected:,}", str(row.violations), row.test, row.figure) for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(4)]
    return [
        f"{fault:<{widths[0]}}  {injected:>{widths[1]}}  {violations:>{widths[2]}}  {test:<{widths[3]}}  {figure}"
        for fault, injected, violations, test, figure in cells
    ]
