"""What only the model was told is recognised in what it says, and nothing else is."""

from __future__ import annotations

import base64
import codecs
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag import prompting
from rag.withholding import Guarded, WithheldError, withheld

RULES = prompting.prompt("x", (), budget_tokens=1, count_tokens=lambda _: []).rules
ANSWER = "Refunds are paid within nine working days. [1] "
DISGUISES: dict[str, Callable[[str], str]] = {
    "as they are": str,
    "in capitals": str.upper,
    "as a list": lambda text: "\n".join(f"> * {line}" for line in text.splitlines()),
    "a letter a line": "\n".join,
    "letters apart": " ".join,
    "with dashes": "-".join,
    "a word a line": lambda text: "\n".join(text.split()),
    "without spaces": lambda text: "".join(text.split()),
    "backwards": lambda text: text[::-1],
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 of mail": lambda text: base64.encodebytes(text.encode()).decode(),
    "base64 of URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "hexadecimal": lambda text: text.encode().hex(),
    "full width": lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    "bold mathematics": lambda text: "".join(chr(ord(c) + 0x1D400 - 65) if "A" <= c <= "Z" else c for c in text),
    "JSON": lambda text: text.replace("\n", "\\n").replace('"', '\\"'),
}


@pytest.mark.parametrize("disguise", DISGUISES.values(), ids=DISGUISES)
def test_the_rules_are_recognised_in_simple_disguises(disguise: Callable[[str], str]) -> None:
    assert withheld(ANSWER + disguise(RULES) + ANSWER, RULES)


@pytest.mark.parametrize("start", range(0, len(RULES) - 100, 100))
def test_a_hundred_characters_of_them_are_enough(start: int) -> None:
    assert withheld(ANSWER + RULES[start : start + 100], RULES)


def test_what_also_stands_in_a_passage_is_no_secret() -> None:
    assert not withheld(ANSWER + RULES[:200], RULES, [f"The manual of the model says: {RULES}"])


def test_answers_and_documents_are_not_taken_for_the_rules() -> None:
    documents = [path.read_text() for path in Path(__file__).resolve().parents[2].glob("docs/**/*.md")]
    assert len(documents) > 20
    normal = [
        ANSWER,
        prompting.NO_ANSWER,
        f"I looked. {prompting.NO_ANSWER} Ask me something else.",
        "a1" * 300,
        *documents,
    ]
    assert [text for text in normal if withheld(text, RULES)] == []


@given(text=st.text(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=5))
def test_what_is_no_secret_passes_whole_however_it_is_cut(text: str, cuts: list[int]) -> None:
    guarded = Guarded(RULES)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    assert "".join(guarded.feed(text[start:end]) for start, end in pairwise(edges)) + guarded.end() == text


@pytest.mark.parametrize("disguise", DISGUISES.values(), ids=DISGUISES)
@pytest.mark.parametrize("size", [1, 7, 40])
def test_who_listens_hears_no_more_of_the_rules_than_a_few_words(disguise: Callable[[str], str], size: int) -> None:
    guarded, heard, said = Guarded(RULES), [ANSWER], ANSWER + disguise(RULES)

    def listen() -> None:
        heard.extend(guarded.feed(said[start : start + size]) for start in range(0, len(said), size))

    with pytest.raises(WithheldError):
        listen()
    told = "".join(heard).removeprefix(ANSWER).removeprefix(ANSWER)
    assert len("".join(filter(str.isalnum, told))) <= 40


def test_most_of_an_answer_is_passed_on_at_once() -> None:
    guarded = Guarded(RULES)
    late = [word for word in ANSWER.split(" ") if guarded.feed(f"{word} ") != f"{word} "]
    assert late == []
