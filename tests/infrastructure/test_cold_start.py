"""What the start of each packaged function imports: of its cost what no machine changes."""

from __future__ import annotations

import pytest

from functions.table import FUNCTIONS
from tests.benchmarks import cold_start
from tests.benchmarks.cold_start import BOUNDS, Cost


@pytest.mark.slow
def test_no_function_imports_more_than_its_bound() -> None:
    costs = cold_start.measure(1, [function for function in FUNCTIONS if function.name in BOUNDS])
    print(cold_start.table(costs))
    modules = {one.name: one.modules for one in costs}
    assert modules.keys() >= {cold_start.BARE, cold_start.AHEAD, *BOUNDS}
    for name, bound in BOUNDS.items():
        assert bound.modules * 0.8 < modules[name] <= bound.modules, name  # a bound that is far off bounds nothing


@pytest.mark.parametrize("name", BOUNDS)
def test_a_bound_that_is_missed_is_noticed(name: str) -> None:
    bound = BOUNDS[name]
    assert Cost(name, 100.0, bound.ratio, bound.modules).within
    assert not Cost(name, 100.0, bound.ratio + 0.1, bound.modules).within
    assert not Cost(name, 100.0, bound.ratio, bound.modules + 1).imports_within
    assert Cost(cold_start.AHEAD, 900.0, 30.0, 5000).within
