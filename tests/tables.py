"""The tables that a run ends with: faults that were injected, attacks that were tried, and how many had an effect."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import pytest

DEFAULT_SEED = 5
_NAME = re.compile(r"[A-Z][0-9]{1,2}")
_ROWS = pytest.StashKey["list[Fault | Attack]"]()
_MARKED = pytest.StashKey["dict[tuple[str, str], list[bool]]"]()


@dataclass(frozen=True)
class Fault:
    """One fault as one test injected it; `test` is the test's name as a sentence."""

    fault: str
    injected: int
    violations: int
    test: str
    figure: str

    title: ClassVar = "faults"


@dataclass(frozen=True)
class Attack:
    """One attack as one test tried it."""

    attack: str
    tried: int
    succeeded: int
    test: str
    figure: str

    title: ClassVar = "attacks"


TABLES: tuple[type[Fault | Attack], ...] = (Fault, Attack)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tables", "the fault suite and the security suite")
    group.addoption("--suite-seed", type=int, default=DEFAULT_SEED, metavar="N", help="of everything that is random")
    group.addoption(
        "--suite-part", choices=["fast", "full", "soak"], default="fast", help="how often what is repeated is repeated"
    )
    group.addoption("--suite-json", type=Path, metavar="FILE", help="write the tables of faults and attacks there")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ROWS] = []
    config.stash[_MARKED] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """A test that is marked as a `fault` is a row by itself, with all its parameters: each injects it once."""
    report = yield
    for mark in item.iter_markers("fault"):
        if call.when == "call" and not report.skipped:
            name = getattr(item, "originalname", item.name)
            item.config.stash[_MARKED].setdefault((mark.args[0], name), []).append(report.passed)
    return report


def _marked(config: pytest.Config) -> list[Fault | Attack]:
    return [
        Fault(fault, len(passed), passed.count(False), _spoken(name), f"{passed.count(True)}/{len(passed)} as promised")
        for (fault, name), passed in config.stash[_MARKED].items()
    ]


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    """What everything random in the suites begins with: as given, else always the same."""
    return int(pytestconfig.getoption("--suite-seed"))


@pytest.fixture
def record_fault(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Put a row into the table that ends the run; a fault without injections proves nothing and is refused."""

    def record(fault: str, *, injected: int, violations: int, figure: str) -> None:
        _add(request, Fault(fault, injected, violations, _sentence(request), figure))

    return record


@pytest.fixture
def record_attack(request: pytest.FixtureRequest) -> Callable[..., None]:
    """The same for the table of attacks: which, how often tried, how often it had an effect."""

    def record(attack: str, *, tried: int, succeeded: int, figure: str) -> None:
        _add(request, Attack(attack, tried, succeeded, _sentence(request), figure))

    return record


def _add(request: pytest.FixtureRequest, row: Fault | Attack) -> None:
    name, tried, *_ = cells(row)
    assert _NAME.fullmatch(name), name
    assert tried > 0, name
    request.config.stash[_ROWS].append(row)


def _sentence(request: pytest.FixtureRequest) -> str:
    return _spoken(request.node.name)


def _spoken(name: str) -> str:
    return name.removeprefix("test_").replace("_", " ")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    seed, file = config.getoption("--suite-seed"), config.getoption("--suite-json")
    document: dict[str, Any] = {"seed": seed}
    recorded = [*config.stash[_ROWS], *_marked(config)]
    for kind in TABLES:
        rows = sorted((row for row in recorded if isinstance(row, kind)), key=_order)
        document[kind.title] = [asdict(row) for row in rows]
        if rows:
            terminalreporter.section(kind.title)
            for line in [*lines(rows), f"{total(rows)}; seed {seed}"]:
                terminalreporter.write_line(line)
    if file:
        file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def lines(rows: list[Fault | Attack]) -> list[str]:
    """The table, a line each; the widest figure is last so that nothing needs to be cut."""
    table = [headings(rows[0])]
    table += [tuple(f"{cell:,}" if isinstance(cell, int) else cell for cell in cells(row)) for row in rows]
    widths = [max(len(line[column]) for line in table) for column in range(4)]
    return [
        f"{name:<{widths[0]}}  {tried:>{widths[1]}}  {bad:>{widths[2]}}  {test:<{widths[3]}}  {figure}"
        for name, tried, bad, test, figure in table
    ]


def total(rows: list[Fault | Attack]) -> str:
    name, tried, bad, *_ = headings(rows[0])
    sums = [sum(cells(row)[column] for row in rows) for column in (1, 2)]
    return f"{len(rows)} rows, {len({cells(row)[0] for row in rows})} {name}s, {sums[0]:,} {tried}, {sums[1]:,} {bad}"


def headings(row: Fault | Attack) -> tuple[str, ...]:
    return tuple(field.name for field in fields(row))


def cells(row: Fault | Attack) -> tuple[Any, ...]:
    return tuple(asdict(row).values())


def _order(row: Fault | Attack) -> tuple[str, int, str]:
    name, _, _, test, _ = cells(row)
    return name[0], int(name[1:]), test
