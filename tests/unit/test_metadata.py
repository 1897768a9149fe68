"""What user metadata may be, and what is refused with which words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag import metadata
from rag.errors import MetadataError

NAMES = st.from_regex(metadata.NAME, fullmatch=True)
STRINGS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
CONTENTS = STRINGS | NUMBERS | st.booleans() | st.lists(STRINGS, max_size=5)


@given(st.dictionaries(NAMES, CONTENTS, max_size=8))
def test_metadata_comes_back_from_a_sidecar_and_from_an_upload_as_it_was(given: Any) -> None:
    assert metadata.said(json.dumps(given, ensure_ascii=False).encode()) == metadata.Said(given)
    carried = metadata.as_field(given)
    assert (carried.isascii(), metadata.said(carried)) == (True, metadata.Said(given))


@given(st.binary(max_size=50) | st.text(max_size=50))
def test_whatever_stands_in_a_sidecar_it_is_metadata_or_refused(text: bytes | str) -> None:
    found = metadata.said(text)
    assert isinstance(found.metadata, dict) != isinstance(found.error, str)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not JSON"),
        (b"\xff\xfe\xfd", "is not JSON"),
        ("[" * 10_000, "is not JSON"),
        ('{"a": NaN}', "a: must be a finite number"),
        ('{"a": 1e999}', "a: must be a finite number"),
        ('{"a": 9007199254740993}', "a: must be a finite number"),
        ("[]", "must be a JSON object"),
        ("null", "must be a JSON object"),
        ('{"a": 1, "a": 2}', "has a name twice"),
        ('{"a": null}', "a: must be a string, a number"),
        ('{"a": {}}', "a: must be a string, a number"),
        ('{"a": [1]}', "a: must be a string"),
        ('{"a": [["x"]]}', "a: must be a string"),
        ('{"a": "\\u0000"}', "a: must not contain NUL"),
        ('{"a": ["\\ud800"]}', "a: must not contain NUL characters or lone"),
        ('{"1a": 1}', "'1a' is no name"),
        ('{"": 1}', "'' is no name"),
        ('{"a b": 1}', "'a b' is no name"),
        (json.dumps({"n" * 65: 1}), "is no name"),
        (json.dumps({f"n{number}": 1 for number in range(51)}), "has more than 50 names"),
        (json.dumps({"a": "x" * 1001}), "a: has more than 1,000 characters"),
        (json.dumps({"a": ["x"] * 101}), "a: has more than 100 items"),
        (json.dumps({"a": ["x" * 999] * 20}), "has more than 16,384 bytes"),
    ],
)
def test_what_is_no_metadata_is_refused_by_name(text: str | bytes, reason: str) -> None:
    found = metadata.said(text)
    assert (found.metadata, reason in str(found.error)) == (None, True)


def test_more_than_an_upload_carries_is_pointed_to_the_sidecar() -> None:
    metadata.as_field({"a": "x" * 1_000, "b": "y" * 900})
    with pytest.raises(MetadataError, match=r"<key>\.metadata\.json, which may have 16,384"):
        metadata.as_field({"a": "x" * 1_000, "b": "é" * 400})
