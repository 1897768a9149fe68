"""The figures of retrieval against values computed by hand, and test collections with every mistake named."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.evaluation import metrics
from local.evaluation.collection import CollectionError, read, read_questions

IDENTITIES = st.lists(st.sampled_from("abcdefgh"), unique=True)
GRADES = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(-1, 3), min_size=1)


def test_ndcg_discounts_by_rank_and_compares_with_the_best_order() -> None:
    reached = 2 / math.log2(2) + 1 / math.log2(4)
    best = 2 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)
    assert metrics.ndcg(["a", "x", "b"], {"a": 2, "b": 1, "c": 1}, 10) == pytest.approx(reached / best)
    assert metrics.ndcg(["x"] * 10 + ["a"], {"a": 1}, 10) == 0


def test_recall_and_reciprocal_rank_count_what_is_within_the_depth() -> None:
    relevant = {"a": 1, "b": 2, "c": 0}
    assert metrics.recall(["c", "a", "x"], relevant, 10) == 0.5
    assert metrics.recall(["c", "a", "b"], relevant, 2) == 0.5
    assert metrics.reciprocal_rank(["c", "x", "b", "a"], relevant, 10) == pytest.approx(1 / 3)
    assert metrics.reciprocal_rank(["c", "x", "b"], relevant, 2) == 0


def test_a_question_that_was_not_ranked_counts_as_zero() -> None:
    assert metrics.summary({"1": ["a"]}, {"1": {"a": 1}, "2": {"b": 1}}) == dict.fromkeys(
        ("ndcg@10", "recall@10", "recall@100", "mrr@10"), 0.5
    )


def test_a_rate_of_nothing_is_none() -> None:
    assert (metrics.share(0, 0), metrics.share(1, 3)) == (None, 0.3333)


@given(IDENTITIES, GRADES)
def test_every_figure_is_a_share_and_the_best_order_is_whole(ranked: list[str], grades: dict[str, int]) -> None:
    figures = metrics.summary({"q": ranked}, {"q": grades})
    assert all(0 <= figure <= 1 for figure in figures.values())
    best = sorted(grades, key=lambda identity: -grades[identity])
    whole = 1.0 if max(grades.values()) > 0 else 0.0
    assert metrics.summary({"q": best}, {"q": grades}) == dict.fromkeys(figures, whole)


def collection(folder: Path, **changed: str) -> Path:
    files = {
        "corpus.jsonl": '{"_id": "a/1", "title": "Cats", "text": "They purr."}\n'
        '{"_id": 2, "title": "", "text": "Dogs."}\n{"_id": "empty", "title": "", "text": ""}\n',
        "queries.jsonl": '{"_id": "q", "text": "who purrs"}\n{"_id": "none", "text": "nobody"}\n',
        "qrels.tsv": "query-id\tcorpus-id\tscore\nq\ta/1\t2\nq\t2\t0\nnone\t2\t0\n",
    }
    for name, text in (files | {name.replace("_", "."): text for name, text in changed.items()}).items():
        (folder / name).write_text(text)
    return folder


def test_a_collection_becomes_documents_queries_and_judgements(tmp_path: Path) -> None:
    found = read(collection(tmp_path))
    assert found.documents == {"a%2F1.md": b"# Cats\n\nThey purr.\n", "2.md": b"Dogs.\n"}
    assert found.identities == {"a%2F1.md": "a/1", "2.md": "2", "empty.md": "empty"}
    assert (found.queries, found.judgements) == ({"q": "who purrs"}, {"q": {"a/1": 2, "2": 0}})
    assert found.empty == ["empty"]
    other = read(collection(tmp_path, corpus_jsonl='{"_id": "a/1", "text": "x"}\n{"_id": 2, "text": "y"}\n'))
    assert other.digest != found.digest


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("corpus_jsonl", "{", r"corpus.jsonl:1: no JSON"),
        ("corpus_jsonl", "[]", r"corpus.jsonl:1: expected a JSON object"),
        ("corpus_jsonl", '{"_id": "a"}', r"corpus.jsonl:1: text is missing"),
        ("corpus_jsonl", '{"_id": "a", "text": "x"}\n\n{"_id": "a", "text": "y"}', r"corpus.jsonl:3: .*twice"),
        ("queries_jsonl", '{"text": "x"}', r"queries.jsonl:1: _id is missing"),
        ("qrels_tsv", "query-id\tcorpus-id\tscore\nq\tabsent\t1", r"qrels.tsv:2: .*'absent'"),
        ("qrels_tsv", "q\ta/1\t1\nq a/1 1", r"qrels.tsv:2: expected"),
        ("qrels_tsv", "query-id\tcorpus-id\tscore\n", r"no query that has a relevant one"),
    ],
)
def test_a_mistake_is_named_with_file_and_line(tmp_path: Path, file: str, text: str, message: str) -> None:
    with pytest.raises(CollectionError, match=message):
        read(collection(tmp_path, **{file: text}))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match=r"corpus.jsonl cannot be read"):
        read(tmp_path)


def test_questions_say_where_the_answer_stands_or_that_there_is_none(tmp_path: Path) -> None:
    lines = [
        {"file": "a.pdf", "question": "1?", "answer_substring": "x", "page": 3},
        {"file": "a.pdf", "question": "2?", "answer_substring": "x", "page": 3, "pages_with_answer": [3, 4]},
        {"file": None, "question": "3?", "answer_substring": "x", "answerable": False},
    ]
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    assert [(asked.answer, asked.pages) for asked in read_questions(path)] == [("x", (3,)), ("x", (3, 4)), (None, ())]
    path.write_text('{"file": ["a.pdf"], "question": "4?"}')
    with pytest.raises(CollectionError, match=r"questions.jsonl:1: file is missing or no text"):
        read_questions(path)
    path.write_text('{"file": null}')
    with pytest.raises(CollectionError, match=r"questions.jsonl:1: question is missing"):
        read_questions(path)
