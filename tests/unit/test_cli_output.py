from __future__ import annotations

import json

import pytest

from local.cli import output


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;new title\x07text", "text"),
        ("\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPdevice control\x1b\\text", "text"),
        ("\x1bcreset", "reset"),
        ("\x9b2Jcleared", "2Jcleared"),
        ("over\rwritten\b\b", "overwritten"),
        ("un\x00der\x07", "under"),
        ("admin\u202egnp.exe", "admingnp.exe"),
        ("\ud800alone", "alone"),
        ("\x1b]unterminated to the end", ""),
    ],
)
def test_nothing_that_a_terminal_would_obey_is_shown(hostile: str, shown: str) -> None:
    assert output.safe(hostile) == shown


def test_lines_tabs_and_every_script_stay_as_they_are() -> None:
    text = "a\tb\nÄrger, 東京, עברית, 👩‍🚀"
    assert output.safe(text) == text


def test_json_escapes_what_a_terminal_would_obey_and_loses_nothing() -> None:
    value = {"text": "Grüße \x1b[31m \x9b2J \u202e \ud800 [bold]"}
    printed = output.as_json(value)
    assert json.loads(printed) == value
    assert "Grüße" in printed
    assert output.safe(printed) == printed


def test_a_pipe_gets_whole_aligned_columns(capsys: pytest.CaptureFixture[str]) -> None:
    long = "k" * 300
    output.table(("key", "status"), [(long, "ready"), ("b\nc", None)])
    assert capsys.readouterr().out.splitlines() == [f"{'key':<300}  status", f"{long}  ready", "b c"]


def test_a_terminal_table_prints_brackets_of_a_document_as_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    output.table(("key", "status"), [("[red]a[/red] [link=http://evil.example]b", "ready")])
    assert "[red]a[/red] [link=http://evil.example]b" in capsys.readouterr().out


def test_text_is_not_wrapped_in_a_pipe() -> None:
    assert output.wrapped("word " * 100, indent="  ").splitlines() == ["  " + ("word " * 100).strip()]


def test_text_is_wrapped_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "width", lambda: 20)
    wrapped = output.wrapped("one two three four five six seven", indent="  ", first="1. ")
    assert wrapped.splitlines() == ["1. one two three", "  four five six", "  seven"]


@pytest.mark.parametrize(
    ("count", "shown"),
    [(None, ""), (0, "0 B"), (999, "999 B"), (14_230, "14.2 kB"), (3_100_000, "3.1 MB"), (5e9, "5.0 GB")],
)
def test_sizes_read_as_a_person_says_them(count: float | None, shown: str) -> None:
    assert output.size(count) == shown


@pytest.mark.parametrize(("value", "shown"), [(7.6, "8 ms"), (999, "999 ms"), (1240, "1.24 s")])
def test_durations_read_as_a_person_says_them(value: float, shown: str) -> None:
    assert output.milliseconds(value) == shown
