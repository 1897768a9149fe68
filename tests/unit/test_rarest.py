"""Which of a question's lexemes the lexical leg of a large collection looks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.store.search import rarest

FREQUENCIES = st.dictionaries(st.integers(1, 10**9), st.integers(0, 10_000), max_size=12)


@pytest.mark.parametrize(
    ("frequencies", "chosen"),
    [
        ({}, []),
        ({1: 5000}, [1]),
        ({1: 5000, 2: 10, 3: 100}, [2, 3]),
        ({1: 5000, 2: 10, 3: 30}, [2, 3, 1]),  # in forty chunks only: not enough for a list of a hundred
        ({1: 1900, 2: 100, 3: 1}, [3, 2]),
        ({1: 1900, 2: 100, 3: 0}, [3, 2, 1]),
    ],
)
def test_the_rarest_are_chosen_within_the_budget_but_enough_for_a_list(
    frequencies: dict[int, int], chosen: list[int]
) -> None:
    assert rarest(frequencies, 2000, least=100) == chosen


@given(frequencies=FREQUENCIES, budget=st.integers(0, 5000), least=st.integers(0, 300))
def test_what_is_left_out_is_not_needed_and_does_not_fit(frequencies: dict[int, int], budget: int, least: int) -> None:
    chosen = rarest(frequencies, budget, least=least)
    left = frequencies.keys() - set(chosen)
    reached = sum(frequencies[lexeme] for lexeme in chosen)
    assert all(reached >= least and reached + frequencies[lexeme] > budget for lexeme in left)
