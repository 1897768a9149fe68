"""Callers as strings, and back."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag import calling
from rag.types import Caller

CALLER = Caller(uuid.uuid4(), "key:aB3dE5gH", "writer", ("manuals",), ("finance", 'quote"d, with a comma'))
LIMITS = st.none() | st.integers(0)
NAMES = st.lists(st.text(), max_size=5).map(tuple)


@given(
    st.builds(
        Caller,
        tenant_id=st.uuids(),
        principal=st.text(),
        role=st.sampled_from(calling.ROLES),
        collections=st.none() | NAMES,
        groups=NAMES,
        email=st.none() | st.text(min_size=1),
        requests_per_minute=LIMITS,
        tenant_requests_per_minute=LIMITS,
    )
)
def test_a_caller_arrives_as_it_was_sent(caller: Caller) -> None:
    told = calling.context(caller)
    assert {type(value) for value in told.values()} == {str}
    assert calling.caller(told) == caller


@pytest.mark.parametrize(
    "change",
    [
        {"tenant_id": "acme"},
        {"tenant_id": None},
        {"role": "owner"},
        {"collections": ""},
        {"collections": "7"},
        {"collections": '"manuals"'},
        {"groups": "null"},
        {"groups": "[1]"},
        {"requests_per_minute": "-1"},
        {"requests_per_minute": "true"},
        {"tenant_requests_per_minute": "many"},
    ],
    ids=repr,
)
def test_what_the_authorizer_never_says_is_no_caller(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"authorizer|Expecting|hexadecimal"):
        calling.caller({**calling.context(CALLER), **change})


@pytest.mark.parametrize("missing", ["tenant_id", "principal", "role", "collections", "groups"])
def test_a_caller_of_whom_something_is_not_said_is_none(missing: str) -> None:
    told = calling.context(CALLER)
    del told[missing]
    with pytest.raises(ValueError, match="authorizer"):
        calling.caller(told)


def test_a_caller_of_whose_limits_nothing_is_said_has_the_deployments() -> None:
    told = {name: value for name, value in calling.context(CALLER).items() if "requests" not in name}
    assert calling.caller(told) == CALLER
