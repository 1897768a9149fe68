"""What `rag eval` makes of the replies to a question file, against a scripted API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local import cli
from tests.unit.scripted_api import KEY, Api, serving

REFUSED = {"answer": "The documents do not answer this question.", "citations": [], "hits": [], "degraded": None}
UNANSWERABLE = {"question": "Who won?", "answerable": False}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    with serving() as api:
        monkeypatch.setenv("RAG_URL", api.url)
        monkeypatch.setenv("RAG_API_KEY", KEY)
        yield api


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "questions.jsonl"


def figures(file: Path, asked: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    """What is measured of one question, and what is said beside it."""
    file.write_text(json.dumps(asked))
    assert cli.run(["eval", str(file), "--json"]) == 0
    out, err = capsys.readouterr()
    found: dict[str, Any] = json.loads(out)["questions"]
    return found, err


@pytest.mark.parametrize(
    ("reply", "rate"),
    [
        ({}, 1.0),
        ({"degraded": "lexical_only"}, 1.0),
        ({"degraded": "not_reranked"}, 1.0),
        ({"answer": "The model is not available just now.", "degraded": "retrieval_only"}, 0.0),
        ({"answer": "It was Ann.", "degraded": "ungrounded"}, 0.0),
        ({"answer": "It was Ann. [1]", "citations": [{"n": 1}]}, 0.0),
    ],
    ids=lambda value: str(value.get("degraded", len(value))) if isinstance(value, dict) else "",
)
def test_only_a_refusal_to_answer_is_an_abstention(
    api: Api, file: Path, capsys: pytest.CaptureFixture[str], reply: dict[str, Any], rate: float
) -> None:
    api.reply("/v1/search", {"hits": []})
    api.reply("/v1/query", REFUSED | reply)
    found, said = figures(file, UNANSWERABLE, capsys)
    assert found["abstention_rate"] == rate
    degraded = reply.get("degraded")
    assert (f"Of 1 answer 1 degraded: 1 {degraded}" in said) is (degraded is not None)
    assert degraded or "degraded" not in said


@pytest.mark.parametrize(
    ("named", "found_in", "page", "figures_of"),
    [
        ("report.pdf", "report.pdf", 2, (1.0, 1.0)),
        ("report.pdf", "deep/er/report.pdf", 2, (1.0, 1.0)),
        ("deep/report.pdf", "deep/report.pdf", 2, (1.0, 1.0)),
        ("./deep/report.pdf", "deep/report.pdf", 2, (1.0, 1.0)),
        ("report.pdf", "report.pdf", 3, (1.0, 0.0)),
        ("report.pdf", "another-report.pdf", 2, (0.0, 0.0)),
        ("report.pdf", "report.pdf/notes.txt", 2, (0.0, 0.0)),
        ("deep/report.pdf", "report.pdf", 2, (0.0, 0.0)),
        (None, "another.pdf", 2, (1.0, 1.0)),
    ],
)
def test_an_answer_counts_in_the_document_that_the_question_names(
    api: Api,
    file: Path,
    capsys: pytest.CaptureFixture[str],
    named: str | None,
    found_in: str,
    page: int,
    figures_of: tuple[float, float],
) -> None:
    hit = {"key": found_in, "page": page, "content": "It was a\nlimpet."}
    api.reply("/v1/search", {"hits": [{"key": "x.txt", "page": 2, "content": "Nothing."}, hit]})
    asked = {"file": named, "question": "What was it?", "answer_substring": "a limpet", "page": 2}
    found, _ = figures(file, asked, capsys)
    assert (found["answer_hit_rate@5"], found["page_accuracy@5"]) == figures_of


@pytest.mark.parametrize(
    ("recorded", "said"),
    [
        ("{}", "holds no figures of questions to compare with"),
        ('{"questions": {}}', "holds no figures of questions to compare with"),
        ('{"questions": {"page_accuracy@5": null}}', "holds no figures of questions to compare with"),
        ('{"hybrid": {"ndcg@10": 0.5}}', "holds no figures of questions to compare with"),
        ('{"questions": {"abstention_rate": NaN}}', "with NaN nothing compares"),
        ("[]", "holds no figures:"),
        ("", "holds no figures:"),
    ],
)
def test_a_gate_of_nothing_that_is_measured_is_refused_before_anything_is_asked(
    api: Api, file: Path, capsys: pytest.CaptureFixture[str], recorded: str, said: str
) -> None:
    file.write_text(json.dumps(UNANSWERABLE))
    gate = file.with_name("gate.json")
    gate.write_text(recorded)
    api.reply("/v1/search", {"hits": []})
    api.reply("/v1/query", REFUSED)
    assert cli.run(["eval", str(file), "--gate", str(gate)]) == 2
    told = capsys.readouterr().err
    assert said in " ".join(told.split())
    assert "--record FILE" in told
    assert [path for _, path, _, _ in api.requests if path != "/health"] == []


@pytest.mark.parametrize(("recorded", "code"), [(0.0, 0), (1.0, 0), (1.1, 1)])
def test_a_gate_holds_each_figure_to_the_recorded_one(api: Api, file: Path, recorded: float, code: int) -> None:
    file.write_text(json.dumps(UNANSWERABLE))
    gate = file.with_name("gate.json")
    gate.write_text(json.dumps({"questions": {"abstention_rate": recorded, "page_accuracy@5": None}}))
    api.reply("/v1/search", {"hits": []})
    api.reply("/v1/query", REFUSED)
    assert cli.run(["eval", str(file), "--gate", str(gate)]) == code
