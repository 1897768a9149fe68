"""The tables of faults and attacks that a run ends with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

pytest_plugins = ["pytester"]

TESTS = """
import pytest

@pytest.mark.fault("A7")
@pytest.mark.parametrize("number", [1, 2, 3])
def test_numbers_are_small(number):
    assert number < 3

@pytest.mark.fault("A12")
def test_nothing():
    pytest.skip("no time")

def test_told(record_fault):
    record_fault("B1", injected=5, violations=0, figure="five of five")
"""


def test_a_marked_test_is_one_row_with_all_its_parameters(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)
    pytester.makeini("[pytest]\nmarkers =\n  fault(name): a fault")
    result = pytester.runpytest("-p", "tests.tables", "-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(
        [
            "A7 * 3 * 1 * numbers are small * 2/3 as promised",
            "B1 * 5 * 0 * told * five of five",
            "2 rows, 2 faults, 8 injected, 1 violations; seed 5",
        ]
    )
    result.stdout.no_fnmatch_line("*A12*")
