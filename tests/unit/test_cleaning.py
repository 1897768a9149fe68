"""Clean text is the same by the short way, for printable ASCII, as by the long one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.parsing import cleaning

BITS = st.sampled_from(["a", "b.", " ", "  ", "\n", " \n", "\n ", "\n\n\n"])
ODD_BITS = st.sampled_from(["\t", "\r", "\r\n", "\x00", "\u00a0", "\u2028", "\ufb01", "e\u0301", "\u00ad", "\u3000"])


@given(st.lists(BITS).map("".join))
def test_printable_ascii_is_cleaned_as_other_text_is(text: str) -> None:
    assert cleaning.clean(f"e{text}")[1:] == cleaning.clean(f"\u00e9{text}")[1:]


@given(st.lists(BITS | ODD_BITS).map("".join))
def test_clean_text_stays_as_it_is_and_holds_nothing_unwanted(text: str) -> None:
    clean = cleaning.clean(text)
    assert cleaning.clean(clean) == clean
    assert not {"\r", "\x00", "\u00ad", "\u2028", "\ufb01"} & set(clean)
    assert not [run for run in ("\n\n\n", " \n") if run in clean]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("a  b", "a b"),
        ("a\t b", "a b"),
        ("a \n  b", "a\n  b"),
        ("a\n \n \nb", "a\n\nb"),
        ("a\u00a0b", "a b"),
        ("\ufb01n", "fin"),
        ("a\r\nb\rc", "a\nb\nc"),
    ],
)
def test_spaces_and_line_breaks_of_every_kind(text: str, clean: str) -> None:
    assert cleaning.clean(text) == clean
