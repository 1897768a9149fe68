"""What the log says of an error: which it is and where, not what stands in it."""

from __future__ import annotations

import io
import json
import logging

import pytest

from rag import telemetry
from rag.errors import UnavailableError

STATEMENT = "insert into chunks values ('The vault opens with persimmon')"


def _raise_from_a_library() -> None:
    raise ValueError(STATEMENT)


def _raise_ours() -> None:
    try:
        _raise_from_a_library()
    except ValueError as error:
        msg = "the database is not available: ValueError"
        raise UnavailableError(msg) from error


def test_an_error_is_told_by_its_kind_and_place_and_what_caused_it() -> None:
    with pytest.raises(UnavailableError) as caught:
        _raise_ours()
    told = telemetry.described(caught.value)
    assert "rag.errors.UnavailableError (the database is not available: ValueError)" in told
    assert "; because of builtins.ValueError in" in told
    assert "_raise_from_a_library" in told
    assert "persimmon" not in told
    assert "/" not in told


def test_a_log_line_has_neither_code_nor_what_a_library_says() -> None:
    logger = telemetry.logger()
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logger.registered_formatter)
    logger.addHandler(handler)
    try:
        _raise_ours()
    except UnavailableError:
        logger.exception("unforeseen")
    logger.removeHandler(handler)
    line = json.loads(written.getvalue())
    assert line["exception_name"] == "UnavailableError"
    assert "_raise_ours" in line["exception"]
    assert "persimmon" not in written.getvalue()
    assert ".py" not in line["exception"]


def test_a_chain_of_errors_that_ends_in_itself_is_told_once() -> None:
    first, second = ValueError("first"), KeyError("second")
    first.__context__, second.__context__ = second, first
    assert telemetry.described(first).split("; because of ") == ["builtins.ValueError in ", "builtins.KeyError in "]
