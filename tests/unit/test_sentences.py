from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.sentences import sentences


def _split(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four…  Five", ["One.", "Two!", "Three?", "Four…", "Five"]),
        ("It cost 3.5 million in v2.0.1 then.", ["It cost 3.5 million in v2.0.1 then."]),
        ("Dr. Smith met J. R. Hall. They spoke.", ["Dr. Smith met J. R. Hall.", "They spoke."]),
        ("See Fig. 3 and e.g. Table 2. Then go.", ["See Fig. 3 and e.g. Table 2.", "Then go."]),
        ("He asked “Why?” and left. “Because.” Then rain.", ["He asked “Why?” and left.", "“Because.”", "Then rain."]),
        ("In 1998. Twelve men came.", ["In 1998.", "Twelve men came."]),
        ("1. Open the box.\n2. Close it.", ["1. Open the box.", "2. Close it."]),
        ("A heading\nA line without an end\n\nAnother", ["A heading", "A line without an end", "Another"]),
        ("これは文です。「はい。」次！", ["これは文です。", "「はい。」", "次！"]),
        ("هل هذا سؤال؟ نعم.", ["هل هذا سؤال؟", "نعم."]),
        ("It was true.[1] Next one.", ["It was true.[1]", "Next one."]),
        ("", []),
        (" \n\t\n ", []),
    ],
)
def test_a_text_falls_into_its_sentences(text: str, expected: list[str]) -> None:
    assert _split(text) == expected


@given(st.text(alphabet=st.sampled_from("ab Z.!?…。\"')\n\t1é؟"), max_size=200))
def test_spans_are_in_order_and_hold_everything_but_white_space(text: str) -> None:
    spans = sentences(text)

    assert all(start < end for start, end in spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert all(text[start:end] == text[start:end].strip() for start, end in spans)
    assert "".join("".join(_split(text)).split()) == "".join(text.split())


@pytest.mark.parametrize("text", [".", ". ", "a.", ".)", "?!…", "。", '. "', "\n", "Dr. "])
def test_many_marks_do_not_take_quadratic_time(text: str) -> None:
    assert sentences(text * 20_000) is not None
