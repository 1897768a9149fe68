"""What PostgreSQL makes of a question's lexemes: weights as rag.lexical has them, and those that are looked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pgvector import SparseVector

from rag import lexical

# (lexeme → frequency, count of chunks, budget, budget of those alone, least) → weights; the rarest; those of them alone
Weighed: TypeAlias = Callable[..., tuple[dict[int, float], list[int], list[int]]]
FREQUENCIES = st.dictionaries(st.integers(1, 10**9 - 1), st.integers(0, 10_000), max_size=12)
SETTINGS = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def weighed(database: Any) -> Iterator[Weighed]:
    with psycopg.connect(database.dsn("rag_query"), autocommit=True) as connection:

        def ask(
            frequencies: Mapping[int, int], *, chunks: int = 10_000, budget: int = 0, alone: int = 0, least: int = 0
        ) -> tuple[dict[int, float], list[int], list[int]]:
            [(question, *chosen)] = connection.execute(
                "select question::text, rare, alone from weighed(%s::int[], %s::int[], %s::int[], %s, %s, %s, %s)",
                [list(frequencies), [2] * len(frequencies), list(frequencies.values()), chunks, budget, alone, least],
            ).fetchall()
            sparse = SparseVector.from_text(question)
            weights = {index + 1: weight for index, weight in zip(sparse.indices(), sparse.values(), strict=True)}
            return weights, *chosen

        yield ask


@SETTINGS
@given(frequencies=FREQUENCIES, chunks=st.integers(0, 10_000))
def test_weights_are_those_of_lexical(weighed: Weighed, frequencies: dict[int, int], chunks: int) -> None:
    twice = dict.fromkeys(frequencies, 2)
    assert weighed(frequencies, chunks=chunks)[0] == pytest.approx(lexical.question(twice, frequencies, chunks))


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
    weighed: Weighed, frequencies: dict[int, int], chosen: list[int]
) -> None:
    assert weighed(frequencies, budget=2000, alone=2000, least=100)[1:] == (chosen, chosen)


@SETTINGS
@given(frequencies=FREQUENCIES, budget=st.integers(0, 5000), alone=st.integers(0, 5000), least=st.integers(0, 300))
def test_what_is_left_out_is_not_needed_and_does_not_fit(
    weighed: Weighed, frequencies: dict[int, int], budget: int, alone: int, least: int
) -> None:
    _, *both = weighed(frequencies, budget=budget, alone=alone, least=least)
    for chosen, most in zip(both, (budget, alone), strict=True):
        left = frequencies.keys() - set(chosen)
        reached = sum(frequencies[lexeme] for lexeme in chosen)
        assert all(reached >= least and reached + frequencies[lexeme] > most for lexeme in left)
    rare, alone_of_them = both if budget >= alone else reversed(both)
    assert rare[: len(alone_of_them)] == alone_of_them
