"""One order from two scores, and whether the best hit is good enough to answer from."""

from __future__ import annotations

import random
import uuid
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.ranking import (
    CANDIDATES_PER_LEG,
    LEAST_RELEVANCE,
    UNCALIBRATED_RELEVANCE,
    fuse,
    least_relevance,
    leg_ranks,
    reciprocal,
    relevance,
    relevant,
)
from rag.types import Candidate, Hit, Mode

MODES: tuple[Mode, ...] = ("hybrid", "dense", "lexical")


def candidate(cosine: float, bm25: float, document: uuid.UUID | None = None) -> Candidate:
    return Candidate(uuid.uuid4(), document or uuid.uuid4(), b"", cosine, bm25)


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

    assert scores[both] == pytest.approx((0.62 * 0.5 + 0.38 * 0.5) / 1.05)
    assert scores[dense] == pytest.approx(0.62 * 0.9 / 1.05)
    assert scores[lexical] == pytest.approx((0.62 * 0.1 + 0.38) / 1.05)


def test_words_that_one_chunk_alone_has_count_for_more() -> None:
    both, dense, lexical = candidate(0.5, 10), candidate(0.9, 0), candidate(0.1, 20)

    scores = dict(fuse([both, dense, lexical], mode="hybrid"))

    assert scores[both] == pytest.approx((0.527 * 0.5 + 0.473 * 0.5) / 1.05)
    assert scores[dense] == pytest.approx(0.527 * 0.9 / 1.05)
    assert scores[lexical] == pytest.approx((0.527 * 0.1 + 0.473) / 1.05)


def test_a_document_that_fits_in_two_places_is_more_likely_meant() -> None:
    document, other = uuid.uuid4(), uuid.uuid4()
    first, second, third = (candidate(cosine, 0, document) for cosine in (0.5, 0.4, 0.3))
    alone = candidate(0.51, 0, other)

    fused = fuse([alone, first, second, third], mode="hybrid")

    assert [found for found, _ in fused] == [first, alone, second, third]
    assert dict(fused)[first] == pytest.approx(0.62 * (0.5 + 0.05 * 0.4) / 1.05)
    assert dict(fused)[alone] == pytest.approx(0.62 * 0.51 / 1.05)
    assert [found for found, _ in fuse([alone, first, second], mode="dense")] == [alone, first, second]


@pytest.mark.parametrize("seed", range(5))
def test_a_longer_list_begins_like_a_shorter_one(seed: int) -> None:
    chance = random.Random(seed)
    documents = [uuid.uuid4() for _ in range(40)]
    many = [candidate(chance.random(), chance.randrange(20), chance.choice(documents)) for _ in range(300)]
    legs = leg_ranks(many, mode="hybrid", depth=CANDIDATES_PER_LEG)
    near = {chunk for leg in legs.values() if leg for chunk in leg}
    short = fuse([one for one in many if one.chunk_id in near], mode="hybrid")
    long = fuse(many, mode="hybrid", depth=300)
    assert long[: len(short)] == short
    assert Counter(one for one, _ in long) == Counter(many)
    assert [score for _, score in long] == sorted((score for _, score in long), reverse=True)


def test_negative_cosines_count_as_zero_and_are_in_order_all_the_same() -> None:
    found = [candidate(cosine, 0) for cosine in (-0.1, -0.5, 0.2, -0.2)]
    fused = fuse(found, mode="dense")
    assert [one.cosine for one, _ in fused] == [0.2, -0.1, -0.2, -0.5]
    assert [score for _, score in fused] == [0.2, 0, 0, 0]


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
    assert not relevant([], 10, least=0.0)


def test_an_answer_needs_the_relevance_that_is_asked_for() -> None:
    hits = [hit(0.3, 3)]

    assert relevant(hits, 10, least=0.3)
    assert not relevant(hits, 10, least=0.31)
    assert relevant([hit(0.01, 0.1)], 10, least=0.0)


def test_a_model_that_was_not_calibrated_turns_away_less_than_one_that_was() -> None:
    assert least_relevance("all-MiniLM-L6-v2") == 0.30
    assert least_relevance("text-embedding-9") == UNCALIBRATED_RELEVANCE < min(LEAST_RELEVANCE.values())


def test_reciprocal_ranks_count_every_leg_that_a_candidate_is_in() -> None:
    both, dense, lexical = candidate(0.5, 10), candidate(0.9, 0), candidate(0.1, 20)

    scores = dict(reciprocal([both, dense, lexical], mode="hybrid"))

    most = 2 / 61
    assert scores[both] == pytest.approx((1 / 62 + 1 / 62) / most)
    assert scores[dense] == pytest.approx(1 / 61 / most)
    assert scores[lexical] == pytest.approx((1 / 63 + 1 / 61) / most)


def test_one_leg_alone_has_the_same_order_by_either_fusion() -> None:
    found = [candidate(0.1, 20), candidate(0.9, 1), candidate(0.5, 3)]

    for mode in ("dense", "lexical"):
        assert [one for one, _ in reciprocal(found, mode=mode)] == [one for one, _ in fuse(found, mode=mode)]


@given(candidates=CANDIDATES, mode=st.sampled_from(MODES), seed=st.integers())
def test_reciprocal_ranks_fall_within_0_and_1_whatever_the_order_of_candidates(
    candidates: list[Candidate], mode: Mode, seed: int
) -> None:
    ranked = reciprocal(candidates, mode=mode)
    scores = [score for _, score in ranked]

    assert all(0 <= score <= 1 for score in scores)
    assert scores == sorted(scores, reverse=True)
    assert reciprocal(random.Random(seed).sample(candidates, len(candidates)), mode=mode) == ranked


@given(candidates=CANDIDATES, mode=st.sampled_from(MODES), depth=st.integers(1, 5))
def test_a_chunk_has_a_rank_only_in_a_leg_that_put_it_forward(
    candidates: list[Candidate], mode: Mode, depth: int
) -> None:
    ranks = leg_ranks(candidates, mode=mode, depth=depth)

    assert (ranks["dense"] is None, ranks["lexical"] is None) == (mode == "lexical", mode == "dense")
    matching = [one for one in candidates if one.bm25 > 0]
    for leg, those in (("dense", candidates), ("lexical", matching)):
        order = ranks[leg]
        if order is not None:
            assert sorted(order.values()) == list(range(1, min(depth, len(those)) + 1))


@given(hits=st.lists(st.builds(hit, st.floats(-1, 1), st.floats(0, 1000))), possible=st.floats(0, 1000))
def test_relevance_falls_within_0_and_1(hits: list[Hit], possible: float) -> None:
    assert 0 <= relevance(hits, possible) <= 1
