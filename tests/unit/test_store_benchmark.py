"""The store benchmark measures what it says: its truth is the exact answer, its figures what their names promise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rag import lexical, ranking
from tests.benchmarks.store import __main__ as benchmark
from tests.benchmarks.store import corpus, report, truth
from tests.benchmarks.store.contestant import Entry
from tests.benchmarks.store.fusing import reciprocal

CHUNKS, DIMENSIONS = 400, 48


@pytest.fixture(scope="module")
def made() -> corpus.Corpus:
    return corpus.generate(CHUNKS, DIMENSIONS, 12, extra=50)


def test_the_same_numbers_give_the_same_corpus(made: corpus.Corpus) -> None:
    again = corpus.generate(CHUNKS, DIMENSIONS, 12, extra=50)
    assert again.texts == made.texts
    assert np.array_equal(again.vectors, made.vectors)
    assert [question.text for question in again.questions] == [question.text for question in made.questions]


def test_vectors_are_unit_and_neighbours_are_near(made: corpus.Corpus) -> None:
    assert made.vectors.shape == (CHUNKS + 50, DIMENSIONS)
    assert np.allclose(np.linalg.norm(made.vectors, axis=1), 1, atol=1e-5)
    cosines = made.vectors @ made.vectors.T
    np.fill_diagonal(cosines, 0)
    assert np.median(cosines.max(axis=1)) > 0.5 > abs(np.median(cosines))


def test_chunks_have_the_promised_length_and_questions_words_of_their_chunk(made: corpus.Corpus) -> None:
    assert 560 < np.mean([len(text) for text in made.texts]) < 760
    for question in made.questions:
        own = lexical.analyse(made.texts[question.known], corpus.LANGUAGE)
        asked = lexical.ask(question.text, corpus.LANGUAGE)
        assert len(asked) == corpus.RARE_WORDS + corpus.OTHER_WORDS
        assert len(own.keys() & asked.keys()) >= corpus.RARE_WORDS


def test_the_filter_lets_one_percent_through() -> None:
    assert sum(map(corpus.tagged, range(10_000))) == 100


def test_what_is_saved_is_what_is_loaded(made: corpus.Corpus, tmp_path: Path) -> None:
    made.save(tmp_path)
    loaded = corpus.Corpus.load(tmp_path)
    assert loaded.texts == made.texts
    assert np.array_equal(loaded.vectors, made.vectors)
    assert [(one.text, one.known) for one in loaded.questions] == [(one.text, one.known) for one in made.questions]


def test_the_truth_is_what_brute_force_finds(made: corpus.Corpus) -> None:
    chunks = [lexical.analyse(text, corpus.LANGUAGE) for text in made.texts[:CHUNKS]]
    frequencies = {term: sum(term in chunk for chunk in chunks) for chunk in chunks for term in chunk}
    for question, exact in zip(made.questions, truth.truths(made, CHUNKS), strict=True):
        cosine = [float(np.dot(question.vector, made.vectors[number])) for number in range(CHUNKS)]
        asked = lexical.question(lexical.ask(question.text, corpus.LANGUAGE), frequencies, CHUNKS)
        bm25 = [sum(asked.get(term, 0) * weight for term, weight in lexical.weigh(chunk).items()) for chunk in chunks]
        assert exact.dense == sorted(range(CHUNKS), key=lambda number: -cosine[number])[:10]
        best = {
            *sorted(range(CHUNKS), key=lambda n: -cosine[n])[:50],
            *sorted(range(CHUNKS), key=lambda n: -bm25[n])[:50],
        }
        second, first = sorted(bm25)[-2:]
        dense = 0.62 * (1 - 0.3 * (1 - second / first))
        score = {n: dense * max(cosine[n], 0) + (1 - dense) * bm25[n] / first for n in best}
        mates = {n: sorted(score[m] for m in best if corpus.document_of(m) == corpus.document_of(n)) for n in best}
        seconded = {n: score[n] + 0.05 * (mates[n][-2] if len(mates[n]) > 1 else 0) for n in best}
        assert set(exact.fused) == set(sorted(best, key=lambda n: -seconded[n])[:10])
        assert all(corpus.tagged(number) for number in (*exact.dense_filtered, *exact.fused_filtered))


def test_the_product_of_exact_legs_is_the_truth_of_the_fusion() -> None:
    assert truth.DEPTH == ranking.CANDIDATES_PER_LEG


def test_overlap_and_reciprocal_rank() -> None:
    assert truth.overlap([1, 2, 3, 4], [2, 4, 6, 8]) == 0.5
    assert truth.overlap(list(range(20)), list(range(10, 20))) == 0.0
    assert truth.reciprocal_rank([5, 7, 9], 9) == pytest.approx(1 / 3)
    assert truth.reciprocal_rank([5, 7, 9], 1) == 0.0
    assert truth.reciprocal_rank(list(range(20)), 15) == 0.0


def test_short_lists_are_counted(made: corpus.Corpus) -> None:
    exact = truth.truths(made, CHUNKS)
    found = {0: exact[0].dense, 1: exact[1].dense[:3]}
    figures = truth.quality("dense", found, exact, made.questions)
    assert (figures["short"], figures["results"]) == (1, 6.5)
    assert figures["recall"] == pytest.approx((1 + 0.3) / 2)


def test_fused_ranks() -> None:
    assert reciprocal(["a", "b", "c"], ["c", "d"]) == ["c", "a", "b", "d"]


def test_ratios_are_of_the_contestants_that_took_part() -> None:
    def questions(p50: float, rate: float) -> dict[str, float]:
        return {"p50": p50, "qps_8": rate}

    def ingest(load: float, index: float, added: float) -> dict[str, float]:
        return {"load_seconds": load, "index_seconds": index, "added_per_second": added}

    size = {
        "queries": {
            "limit": {"dense": questions(4, 400)},
            "product": {"dense": questions(5, 300), "hybrid": questions(8, 200)},
            "haystack": {"dense": questions(9, 100), "hybrid": questions(20, 100)},
            "llama-index": {"dense": questions(9, 100), "hybrid": questions(70, 25)},
        },
        "ingest": {
            "limit": ingest(40, 40, 1000),
            "product": ingest(60, 40, 900),
            "haystack": ingest(150, 50, 500),
            "llama-index": ingest(190, 50, 400),
        },
    }
    assert [round(ratio, 2) for _, ratio in report.ratios(size)] == [1.25, 2.0, 2.0, 8.0, 0.9, 0.8, 2.0]
    assert [title for title, _ in report.ratios(size)] == list(report.TARGETS)
    without = {part: {name: size[part][name] for name in ("limit", "product")} for part in size}
    assert len(list(report.ratios(without))) == 4
    assert len(list(report.ratios({**size, "product_indexed": False}))) == 4


def test_options() -> None:
    chosen = benchmark.options(["--chunks", "10000,100000", "--dimensions", "384,1536", "--no-peers"])
    assert (chosen.chunks, chosen.dimensions, chosen.peers) == ([10_000, 100_000], [384, 1536], False)
    assert [entry.name for entry in benchmark.contestants(peers=False)] == ["limit", "product"]


def test_without_the_peers_it_says_how_to_install_them_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "PEERS", (Entry("absent store", "absent", "no_such_module"),))
    assert [entry.name for entry in benchmark.contestants(peers=True)] == ["limit", "product"]
    said = capsys.readouterr().err
    assert "absent store" in said
    assert "uv sync --group peers" in said
