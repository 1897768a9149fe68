"""The credentials that a request presents, in its headers and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag.errors import NotAuthorizedError

if TYPE_CHECKING:
    from rag.types import JSON

# What may stand around a header's value (RFC 9110, section 5.5); any other white space is part of it.
BLANK = " \t"


def presented(event: JSON) -> tuple[str, str]:
    """Return what stands in `x-api-key`, and in `Authorization: Bearer`; empty where there is none.

    NotAuthorizedError for two that differ: of a request that says two things, others might hear the other one.
    """
    api_keys = _given(event, "x-api-key")
    schemes = [value.partition(" ") for value in _given(event, "authorization")]
    tokens = {token.strip(BLANK) for scheme, _, token in schemes if scheme.lower() == "bearer"} - {""}
    if len(api_keys | tokens) > 1:
        msg = "two credentials that differ"
        raise NotAuthorizedError(msg)
    return next(iter(api_keys), ""), next(iter(tokens), "")


def _given(event: JSON, wanted: str) -> set[str]:
    """Every value of a header that came; `headers` has one of each."""
    single = [(name, [value]) for name, value in (event.get("headers") or {}).items()]
    several = (event.get("multiValueHeaders") or {}).items()
    found = {value.strip(BLANK) for name, values in [*single, *several] if name.lower() == wanted for value in values}
    return found - {""}
