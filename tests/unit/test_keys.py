"""API keys: what they hold, and what is refused before any look-up."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag import keys
from rag.errors import NotAuthorizedError


def test_a_new_key_parses_to_the_id_and_digest_that_were_stored() -> None:
    key, key_id, digest = keys.new()

    parsed_id, parsed_digest = keys.parse(key)

    assert parsed_id == key_id
    assert keys.matches(parsed_digest, digest)
    assert key.startswith(f"rag_{key_id}.")


def test_the_digest_tells_nothing_of_the_key() -> None:
    key, key_id, digest = keys.new()

    assert len(digest) == 32
    assert key_id.encode() not in digest
    assert key.encode() not in digest


def test_two_keys_share_neither_id_nor_secret() -> None:
    made = [keys.new() for _ in range(100)]

    assert len({key_id for _, key_id, _ in made}) == 100
    assert len({digest for _, _, digest in made}) == 100


def test_the_secret_holds_256_bits() -> None:
    key, _, _ = keys.new()
    secret = key.partition(".")[2][:-6]

    assert len(secret) * math.log2(62) >= 256


@given(position=st.integers(0, 61), replacement=st.sampled_from("0aZ_-. é\n"))
def test_every_single_wrong_character_is_noticed(position: int, replacement: str) -> None:
    key, _, _ = keys.new()
    wrong = key[:position] + replacement + key[position + 1 :]

    if wrong != key:
        with pytest.raises(NotAuthorizedError, match="malformed"):
            keys.parse(wrong)


@given(position=st.integers(13, 60))
def test_two_characters_swapped_are_noticed(position: int) -> None:
    key, _, _ = keys.new()
    swapped = key[:position] + key[position + 1] + key[position] + key[position + 2 :]

    if swapped != key:
        with pytest.raises(NotAuthorizedError):
            keys.parse(swapped)


@given(st.text())
def test_no_other_text_is_a_key(text: str) -> None:
    with pytest.raises(NotAuthorizedError):
        keys.parse(text)


@pytest.mark.parametrize("change", [str.upper, lambda key: key + "\n", lambda key: " " + key, lambda key: key[:-1]])
def test_a_key_that_was_copied_badly_is_refused(change: object) -> None:
    key, _, _ = keys.new()

    with pytest.raises(NotAuthorizedError):
        keys.parse(change(key))  # type: ignore[operator]


def test_another_secret_does_not_match() -> None:
    assert not keys.matches(keys.new()[2], keys.new()[2])


@pytest.mark.parametrize("length", [62, 61, 40, 14])
def test_of_a_key_in_a_text_its_id_is_left(length: int) -> None:
    key, key_id, _ = keys.new()
    assert keys.masked(f"/v1/keys/{key[:length]}, twice {key[:length]}") == (
        f"/v1/keys/rag_{key_id}.…, twice rag_{key_id}.…"
    )
    assert keys.masked(f"rag_{key_id}") == f"rag_{key_id}"
