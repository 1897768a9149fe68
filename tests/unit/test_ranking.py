"""One order from two scores, and whether the best hit is good enough to answer from."""

from __future__ import annotations

import random
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.ranking import LEAST_RELEVANCE, fuse, relevance, relevant
from rag.types import Candidate, Hit, Mode

MODES: tuple[Mode, ...] = ("hybrid", "dense", "lexical")


def candidate(cosine: float, bm25: float) -> Candidate:
    return Candidate(chunk_id=uuid.uuid4(), document_id=uuid.uuid4(), cosine=cosine, bm25=bm25)


def hit(cosine: float, bm25: float) -> Hit:
    return Hit(
        chunk_id=uuid.uuid4(),
        document_id=uuid.uuid4(),
        collection="default",
        key="a.txt",
        title=None,
        page=None,
        heading=None,
        position=0,
        content="",
        content_hash=b"",
        score=1.0,
        cosine=cosine,
        bm25=bm25,
    )


CANDIDATES = st.lists(
    st.builds(
        candidate,
        st.floats(-1.0000001, 1.0000001),
        st.floats(0, 1000),
    )
)


def test_hybrid_weighs_the_cosine_against_the_share_of_the_best_bm25() -> None:
    both, dense, lexical, level = candidate(0.5, 10), candidate(0.9, 0), candidate(0.1, 20), candidate(0.0, 20)

    scores = dict(fuse([both, dense, lexical, level], mode="hybrid"))

    assert scores[both] == pytest.approx(0.64 * 0.5 + 0.36 * 0.5)
    assert scores[dense] == pytest.approx(0.64 * 0.9)
    assert scores[lexical] == pytest.approx(0.64 * 0.1 + 0.36)


def test_words_that_one_chunk_alone_has_count_for_more() -> None:
    both, dense, lexical = candidate(0.5, 10), candidate(0.9, 0), candidate(0.1, 20)

    scores = dict(fuse([both, dense, lexical], mode="hybrid"))

    assert scores[both] == pytest.approx(0.48 * 0.5 + 0.52 * 0.5)
    assert scores[dense] == pytest.approx(0.48 * 0.9)
    assert scores[lexical] == pytest.approx(0.48 * 0.1 + 0.52)


def test_one_leg_alone_orders_by_its_own_score() -> None:
    dense, lexical = candidate(0.9, 1), candidate(0.1, 20)

    assert fuse([lexical, dense], mode="dense") == [(dense, 0.9), (lexical, 0.1)]
    assert fuse([dense, lexical], mode="lexical") == [(lexical, 1.0), (dense, 0.05)]


def test_without_any_shared_word_the_cosine_decides() -> None:
    near, far = candidate(0.8, 0), candidate(0.2, 0)

    assert [found for found, _ in fuse([far, near], mode="hybrid")] == [near, far]


def test_nothing_found_is_nothing_ranked() -> None:
    assert fuse([], mode="hybrid") == []


@given(candidates=CANDIDATES, mode=st.sampled_from(MODES), seed=st.integers())
def test_scores_fall_within_0_and_1_whatever_the_order_of_candidates(
    candidates: list[Candidate], mode: Mode, seed: int
) -> None:
    ranked = fuse(candidates, mode=mode)
    scores = [score for _, score in ranked]
    shuffled = random.Random(seed).sample(candidates, len(candidates))

    assert all(0 <= score <= 1 for score in scores)
    assert scores == sorted(scores, reverse=True)
    assert fuse(shuffled, mode=mode) == ranked


def test_relevance_is_the_mean_of_the_best_cosine_and_the_best_share_of_the_question() -> None:
    assert relevance([hit(0.5, 2), hit(0.2, 6)], possible_bm25=10) == pytest.approx((0.5 + 0.6) / 2)


def test_a_leg_that_found_nothing_does_not_speak() -> None:
    assert relevance([hit(0.5, 0)], possible_bm25=10) == pytest.approx(0.5)
    assert relevance([hit(0, 5)], possible_bm25=10) == pytest.approx(0.5)
    assert relevance([hit(0.5, 0)], possible_bm25=0) == pytest.approx(0.5)


def test_a_chunk_that_repeats_the_question_does_not_count_for_more_than_all_of_it() -> None:
    assert relevance([hit(1.0, 25)], possible_bm25=10) == 1.0


def test_nothing_found_is_nothing_to_answer_from() -> None:
    assert not relevant([], 10)
    assert not relevant([], 10, min_score=0.0)


def test_the_setting_overrides_the_calibrated_threshold() -> None:
    hits = [hit(LEAST_RELEVANCE, 10 * LEAST_RELEVANCE)]

    assert relevant(hits, 10)
    assert not relevant(hits, 10, min_score=LEAST_RELEVANCE + 0.01)
    assert relevant([hit(0.01, 0.1)], 10, min_score=0.0)


@given(hits=st.lists(st.builds(hit, st.floats(-1, 1), st.floats(0, 1000))), possible=st.floats(0, 1000))
def test_relevance_falls_within_0_and_1(hits: list[Hit], possible: float) -> None:
    assert 0 <= relevance(hits, possible) <= 1
