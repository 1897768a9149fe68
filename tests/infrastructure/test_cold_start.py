"""What a cold start of each packaged function may cost, beside a handler that imports nothing."""

from __future__ import annotations

import pytest

from functions.table import FUNCTIONS
from tests.benchmarks import cold_start


@pytest.mark.slow
def test_every_function_starts_within_its_bound() -> None:
    bounded = [function for function in FUNCTIONS if function.name in cold_start.BOUNDS]
    for rounds in (3, 10, 20):  # on a busy machine a few starts may all have been disturbed
        costs = cold_start.measure(rounds, bounded)
        if all(one.within for one in costs):
            break
    print(cold_start.table(costs))
    assert {one.name for one in costs} >= {cold_start.BARE, cold_start.AHEAD, *cold_start.BOUNDS}
    assert [one for one in costs if not one.within] == []


def test_a_bound_that_is_missed_is_noticed() -> None:
    assert not cold_start.Cost("ingest", 100.0, 4.1).within
    assert cold_start.Cost("ingest", 100.0, 4.0).within
    assert cold_start.Cost(cold_start.AHEAD, 900.0, 30.0).within
