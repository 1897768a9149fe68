"""Every test of this folder is part of the security suite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.security.amounts import AMOUNTS

FOLDER = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(FOLDER):
            item.add_marker("security")


@pytest.fixture(scope="session")
def amount(pytestconfig: pytest.Config) -> Callable[[str], int]:
    """How often something is to be tried in this part of the suite; `poe test` tries it as often as the fast part."""
    part: str = pytestconfig.getoption("--suite-part")
    return lambda name: int(getattr(AMOUNTS[name], part))
