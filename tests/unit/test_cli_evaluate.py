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
    api.reply("/v1/search", {"hits": [], "degraded": None})
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
    api.reply("/v1/search", {"hits": [{"key": "x.txt", "page": 2, "content": "Nothing."}, hit], "degraded": None})
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
    api.reply("/v1/search", {"hits": [], "degraded": None})
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
    api.reply("/v1/search", {"hits": [], "degraded": None})
    api.reply("/v1/query", REFUSED)
    assert cli.run(["eval", str(file), "--gate", str(gate)]) == code


@pytest.fixture
def folder(api: Api, tmp_path: Path) -> Path:
    """Two documents, which are there already, and two questions."""
    texts = {
        "corpus": [("tea", "It is steamed."), ("salt", "It is won from brine.")],
        "queries": [("1", "?"), ("2", "?")],
    }
    for name, records in texts.items():
        lines = [json.dumps({"_id": identity, "text": text}) for identity, text in records]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    (tmp_path / "qrels.tsv").write_text("1\ttea\t1\n2\tsalt\t1\n")
    for key in ("tea.md", "salt.md"):
        api.add(key)
    api.reply("/v1/collections", {"collections": [{"name": "default"}]})
    return tmp_path


@pytest.mark.parametrize("held", [[], ["--gate", "figures.json"], ["--record", "figures.json"]])
@pytest.mark.parametrize("missing", ["lexical_only", "not_reranked"])
def test_figures_of_degraded_searches_say_so_and_neither_pass_a_gate_nor_become_one(
    api: Api, folder: Path, capsys: pytest.CaptureFixture[str], missing: str, held: list[str]
) -> None:
    (folder / "figures.json").write_text('{"hybrid": {"ndcg@10": 0.0}}')
    held = [str(folder / each) if each.endswith(".json") else each for each in held]
    hits = [{"key": "tea.md"}, {"key": "salt.md"}]
    for degraded in [None] * 5 + [missing]:
        api.reply("/v1/search", {"hits": hits, "degraded": degraded})
    assert cli.run(["eval", str(folder), "--collection", "default", "--json", *held]) == (1 if held else 0)
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert [row.get("degraded") for row in found.values()] == [None, None, 1]
    assert found["hybrid"] == found["dense"] | {"degraded": 1}
    assert f"Of 2 hybrid questions 1 degraded: 1 {missing}" in err
    assert ("Neither recorded nor compared" in err) is bool(held)
    assert (folder / "figures.json").read_text() == '{"hybrid": {"ndcg@10": 0.0}}'


def test_the_table_has_a_column_of_degraded_searches_where_there_were_some(
    api: Api, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(6):
        api.reply("/v1/search", {"hits": [], "degraded": None})
    assert cli.run(["eval", str(folder), "--collection", "default"]) == 0
    assert "degraded" not in capsys.readouterr().out
    api.reply("/v1/collections", {"collections": [{"name": "default"}]})
    for degraded in [None] * 4 + ["lexical_only"] * 2:
        api.reply("/v1/search", {"hits": [], "degraded": degraded})
    assert cli.run(["eval", str(folder), "--collection", "default"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [(line[0], line[-1]) for line in lines] == [
        ("ndcg@10", "degraded"),
        ("lexical", "0"),
        ("dense", "0"),
        ("hybrid", "2"),
    ]


@pytest.mark.parametrize(
    ("search", "answer", "code"),
    [(None, None, 0), (None, "ungrounded", 1), ("lexical_only", None, 1), (None, "retrieval_only", 1)],
)
def test_a_question_file_passes_a_gate_only_where_no_part_was_missing(
    api: Api, file: Path, capsys: pytest.CaptureFixture[str], search: str | None, answer: str | None, code: int
) -> None:
    file.write_text(json.dumps(UNANSWERABLE))
    gate = file.with_name("gate.json")
    gate.write_text(json.dumps({"questions": {"abstention_rate": 1.0}}))
    api.reply("/v1/search", {"hits": [], "degraded": search})
    api.reply("/v1/query", REFUSED | {"degraded": answer})
    assert cli.run(["eval", str(file), "--gate", str(gate), "--json"]) == code
    out, err = capsys.readouterr()
    missing = bool(code) and answer != "ungrounded"
    assert json.loads(out)["questions"].get("degraded") == (1 if missing else None)
    assert ("Neither recorded nor compared" in err) is missing
    assert ("fell: questions abstention_rate" in err) is (answer == "ungrounded")
