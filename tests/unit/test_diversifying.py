"""No passage twice, a bound per document, and maximal marginal relevance."""

from __future__ import annotations

import random
import uuid
from array import array
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.diversifying import MMR_MAX_CANDIDATES, cap, diversify, repeats_last, rivals
from rag.types import Candidate, Vector

Ranked = list[tuple[Candidate, float]]


def ranked(scores: list[float], documents: list[int] | None = None) -> Ranked:
    places = documents or [0] * len(scores)
    return [
        (Candidate(uuid.UUID(int=n), uuid.UUID(int=document), b"%d" % n, 0.0, 0.0), score)
        for n, (score, document) in enumerate(zip(scores, places, strict=True))
    ]


def vectors(*rows: list[float]) -> dict[uuid.UUID, Vector]:
    return {uuid.UUID(int=n): array("f", row) for n, row in enumerate(rows)}


def anywhere(seed: int, count: int) -> dict[uuid.UUID, Vector]:
    chance = random.Random(seed)
    return vectors(*([chance.choice([-1, 0, 0.5, 1]) for _ in range(3)] for _ in range(count)))


def places(chosen: Ranked) -> list[int]:
    return [candidate.chunk_id.int for candidate, _ in chosen]


RANKED = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5)), max_size=80).map(
    lambda rows: ranked([score for score, _ in rows], [document for _, document in rows])
)


@given(found=RANKED, texts=st.lists(st.binary(max_size=1), min_size=80, max_size=80))
def test_what_was_said_before_stands_behind_all_else_and_nothing_is_lost(found: Ranked, texts: list[bytes]) -> None:
    said = [(one._replace(content_hash=text), score) for (one, score), text in zip(found, texts, strict=False)]
    ordered = repeats_last(said, {})
    hashes = [one.content_hash for one, _ in ordered]
    distinct = len(set(hashes))
    assert len(set(hashes[:distinct])) == distinct
    assert Counter(ordered) == Counter(said)
    assert places(ordered[:distinct]) == sorted(places(ordered[:distinct]))
    assert places(ordered[distinct:]) == sorted(places(ordered[distinct:]))


def test_of_equal_texts_at_equal_scores_the_first_by_key_stands_first() -> None:
    found = ranked([0.9, 0.9, 0.8, 0.7], [1, 2, 3, 4])
    said = [(one._replace(content_hash=b"same" if score > 0.8 else b"other"), score) for one, score in found]
    documents = [one.document_id for one, _ in said]
    assert rivals(said) == documents[:2]
    ordered = repeats_last(said, {documents[0]: "b.txt", documents[1]: "a.txt"})
    assert places(ordered) == [said[1][0].chunk_id.int, said[2][0].chunk_id.int, *places([said[0], said[3]])]


@given(found=RANKED, most=st.integers(1, 10))
def test_no_document_has_more_than_its_cap_and_none_has_fewer_than_it_could(found: Ranked, most: int) -> None:
    kept = cap(found, most)
    counts = Counter(candidate.document_id for candidate, _ in kept)
    had = Counter(candidate.document_id for candidate, _ in found)
    assert counts == {document: min(count, most) for document, count in had.items()}
    assert places(kept) == sorted(places(kept))


@given(found=RANKED, wanted=st.integers(0, 90), seed=st.integers())
def test_with_all_weight_on_relevance_the_order_stays(found: Ranked, wanted: int, seed: int) -> None:
    assert diversify(found, anywhere(seed, 80), weight=1, wanted=wanted).chosen == found[:wanted]


@given(
    found=RANKED,
    wanted=st.integers(0, 90),
    weight=st.floats(0, 1),
    seed=st.integers(),
    known=st.integers(0, 80),
)
def test_what_is_chosen_was_there_once_and_is_as_many_as_wanted(
    found: Ranked, wanted: int, weight: float, seed: int, known: int
) -> None:
    chosen = diversify(found, anywhere(seed, known), weight=weight, wanted=wanted).chosen
    assert len(chosen) == min(wanted, len(found))
    assert len(set(places(chosen))) == len(chosen)
    assert set(places(chosen)) <= set(places(found))
    assert chosen[MMR_MAX_CANDIDATES:] == found[MMR_MAX_CANDIDATES:wanted]


def test_the_second_of_two_alike_gives_way_to_something_new() -> None:
    found = ranked([0.9, 0.89, 0.7])
    alike = vectors([1, 0], [1, 0.01], [0, 1])
    assert places(diversify(found, alike, weight=0.5, wanted=2).chosen) == [0, 2]
    assert places(diversify(found, alike, weight=0.5, wanted=3).chosen) == [0, 2, 1]
    assert places(diversify(found, alike, weight=0.9, wanted=2).chosen) == [0, 1]


def test_each_is_told_with_its_marginal_relevance_when_it_was_chosen() -> None:
    found = ranked([0.9, 0.88, 0.7])
    chosen, marginal = diversify(found, vectors([1, 0], [0.8, 0.6], [0, 1]), weight=0.75, wanted=3)
    assert places(chosen) == [0, 2, 1]
    assert [score for _, score in chosen] == [0.9, 0.7, 0.88]
    assert [marginal[uuid.UUID(int=n)] for n in (0, 2, 1)] == pytest.approx([0.675, 0.525, 0.66 - 0.2])


def test_what_is_behind_those_that_take_part_has_no_marginal_relevance() -> None:
    found = ranked([0.5] * (MMR_MAX_CANDIDATES + 2))
    chosen, marginal = diversify(found, {}, weight=0.5, wanted=MMR_MAX_CANDIDATES + 2)
    assert places(chosen) == places(found)
    assert list(marginal) == [candidate.chunk_id for candidate, _ in found[:MMR_MAX_CANDIDATES]]


def test_length_does_not_count_and_a_chunk_without_a_vector_resembles_none() -> None:
    found = ranked([0.9, 0.89, 0.7])
    assert places(diversify(found, vectors([9, 0], [0.1, 0.001]), weight=0.5, wanted=2).chosen) == [0, 2]


@pytest.mark.parametrize("wanted", [0, 1])
def test_nothing_is_chosen_from_nothing(wanted: int) -> None:
    assert diversify([], {}, weight=0.5, wanted=wanted).chosen == []
    assert cap([], 1) == []
