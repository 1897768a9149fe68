"""The large corpora of the store benchmark are what they say, and their exact answers are exact."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from rag import lexical
from tests.benchmarks.store import __main__ as benchmark
from tests.benchmarks.store import growth, synthetic, tenants
from tests.benchmarks.store.bulk import identity, number
from tests.benchmarks.store.corpus import LANGUAGE, document_of
from tests.benchmarks.store.exact import Answer, Exact

CHUNKS, DIMENSIONS = 600, 32


@pytest.fixture(scope="module")
def made() -> synthetic.Synthetic:
    return synthetic.generate(CHUNKS, DIMENSIONS)


def test_a_smaller_corpus_is_the_beginning_of_a_larger_one(made: synthetic.Synthetic) -> None:
    less = synthetic.generate(CHUNKS // 2, DIMENSIONS)
    assert np.array_equal(less.ranks, made.ranks[: CHUNKS // 2])
    assert np.array_equal(less.vectors, made.vectors[: CHUNKS // 2])
    [one], [other] = less.questions([3], seed=1), made.questions([3], seed=1)
    assert (one.text, one.known) == (other.text, other.known)
    assert np.array_equal(one.vector, other.vector)


def test_vectors_are_unit_and_of_the_promised_shape(made: synthetic.Synthetic) -> None:
    assert made.vectors.shape == (CHUNKS, DIMENSIONS)
    assert np.allclose(np.linalg.norm(made.vectors.astype(np.float32), axis=1), 1, atol=1e-3)
    [question] = made.questions([7], seed=1)
    assert question.vector @ made.vectors[7] > 0.4


def test_chunks_have_the_promised_words_and_no_maintenance_would_weigh_them_anew(made: synthetic.Synthetic) -> None:
    counts = [lexical.analyse(made.text(chunk), LANGUAGE) for chunk in range(CHUNKS)]
    lengths = {one.total() for one in counts}
    assert (min(lengths), max(lengths)) == (synthetic.LEAST_WORDS, synthetic.MOST_WORDS)
    assert 44 < np.mean([len(one) for one in counts]) < 52
    total = sum(one.total() for one in counts)
    assert lexical.average_length(100.0, lexeme_count=total, chunk_count=CHUNKS) == lexical.AVERAGE_LENGTH


def test_ids_are_spread_and_tell_their_number() -> None:
    ids = [identity(n) for n in range(2_000)]
    assert [number(one) for one in ids] == list(range(2_000))
    assert sum(one < other for one, other in itertools.pairwise(ids)) < 1_900


def test_tenants_are_as_skewed_as_promised() -> None:
    sizes = tenants.sizes(100_000, 200)
    assert abs(sum(sizes) - 100_000) <= 200
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1], int(np.median(sizes))) == (17_000, 60, 60)
    assert sum(size > 10_000 for size in sizes) >= 3
    assert len([size for size in sizes if 100 < size <= 10_000]) >= 40


def test_every_chunk_is_of_one_tenant_and_one_document() -> None:
    portioned = tenants.portioned(20_000, 60)
    chunks = [chunk for tenant in portioned for one in tenant.documents for chunk in range(one.start, one.stop)]
    assert chunks == list(range(portioned[-1].place.stop))
    assert len({one.number for tenant in portioned for one in tenant.documents}) == sum(
        len(tenant.documents) for tenant in portioned
    )
    assert all(tenant.tagged for tenant in portioned)
    assert len(portioned[0].tagged) == pytest.approx(0.01 * len(portioned[0].place), abs=5)


def test_the_sample_has_tenants_of_every_class() -> None:
    portioned = tenants.portioned(100_000, 200)
    titles = [title for title, _ in tenants.sample(portioned, 10_000, 4)]
    assert list(dict.fromkeys(titles)) == ["≤ 100", "≤ 1,000", "≤ 10,000", "> 10,000"]


def test_exact_answers_are_what_brute_force_finds(made: synthetic.Synthetic) -> None:
    questions = made.questions(range(100, 108), seed=2)
    exact = Exact(made, questions)
    weights = [lexical.weigh(lexical.analyse(made.text(chunk), LANGUAGE)) for chunk in range(CHUNKS)]
    for chunk in reversed(range(CHUNKS)):
        exact.observe(chunk, weights[chunk])
    place = range(50, 500)
    within = np.arange(60, 500, 7)
    documents = {chunk: document_of(chunk) for chunk in place}
    all_of_them = exact.answers(questions, place, documents)
    some = exact.answers(questions, place, documents, within)
    frequencies = Counter(term for n in place for term in weights[n])
    for question, every, few in zip(questions, all_of_them, some, strict=True):
        asked = lexical.question(lexical.ask(question.text, LANGUAGE), frequencies, len(place))
        bm25 = {n: sum(asked.get(term, 0) * weight for term, weight in weights[n].items()) for n in place}
        halves = question.vector.astype(np.float16).astype(np.float32)
        cosine = {n: float(halves @ made.vectors[n].astype(np.float32)) for n in place}
        assert list(every.dense)[:5] == sorted(place, key=lambda n: -cosine[n])[:5]
        assert list(every.lexical)[:2] == sorted(place, key=lambda n: -bm25[n])[:2]
        assert list(few.dense)[:5] == sorted(within.tolist(), key=lambda n: -cosine[n])[:5]
        assert all(few.lexical[n] == pytest.approx(bm25[n], rel=1e-5) for n in few.lexical)
        assert set(few.lexical) <= set(within.tolist())


def test_figures_of_an_answer() -> None:
    answer = Answer({n: 1 - n / 100 for n in range(20)}, {3: 2.0, 4: 1.0}, {}, known=4)
    assert answer.found("dense", [0, 1, 2, 3, 50]) == {
        "overlap": 0.4,
        "ndcg": 0.0,
        "ndcg_exact": pytest.approx(1 / np.log2(6)),
        "short": 1.0,
    }
    assert answer.found("lexical", [4, 3])["overlap"] == 1.0
    assert answer.found("lexical", [4, 3])["ndcg"] == 1.0
    assert answer.found("hybrid", [])["short"] == 0.0


@pytest.mark.parametrize("options", [benchmark.options, growth.options], ids=["store", "growth"])
def test_a_picture_that_cannot_be_drawn_is_refused_before_the_run(
    options: Callable[[list[str]], argparse.Namespace],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit):
        options(["--plot", "cost.png"])
    assert "uv sync --group peers" in capsys.readouterr().err


def test_options() -> None:
    assert growth.options([]).sizes == growth.SIZES
    assert growth.options(["--sizes", "10,20"]).sizes == [10, 20]
    assert tenants.options(["--chunks", "5000"]).chunks == 5_000
