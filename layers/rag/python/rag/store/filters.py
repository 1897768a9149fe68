"""Filters as parameters: names stand in a jsonpath, where they are checked and quoted, values are bound beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rag.types import Condition, Filters

_FIELDS = ("document_id", "key", "media_type", "title", "created_at", "updated_at")
_COMPARISONS = {"eq": "==", "any": "==", "gte": ">=", "gt": ">", "lte": "<=", "lt": "<"}


def parameter(filters: Filters) -> str | None:
    """What the function `filtered_documents` is to look for, as JSON; None where nothing is asked.

    Ids and keys that must be equal are arrays, which indexes serve. All other conditions are jsonpaths: one on each
    field of a document's own, one on its metadata; all of them find their values in `values`.
    """
    if not filters.any:
        return None
    values: list[Any] = []
    rest = [one for one in filters.conditions if not _is_equality(one)]
    own = {name: [one for one in rest if one.of_document and one.name == name] for name in _FIELDS}
    wanted = {
        "document_ids": _equal(filters, "document_id"),
        "keys": _equal(filters, "key"),
        **{name: _path(conditions, values) for name, conditions in own.items()},
        "metadata": _path([one for one in rest if not one.of_document], values),
        "values": {f"v{number}": value for number, value in enumerate(values)},
    }
    return json.dumps({name: value for name, value in wanted.items() if value is not None})


def _is_equality(one: Condition) -> bool:
    return one.of_document and one.name in {"document_id", "key"} and one.operator in {"eq", "any"} and not one.negated


def _equal(filters: Filters, name: str) -> list[Any] | None:
    sets = [set(_listed(one)) for one in filters.conditions if _is_equality(one) and one.name == name]
    return sorted(set.intersection(*sets)) if sets else None


def _listed(one: Condition) -> tuple[Any, ...]:
    return one.value if isinstance(one.value, tuple) else (one.value,)


def _path(conditions: Sequence[Condition], values: list[Any]) -> str | None:
    """A predicate that is true or false of every document, never unknown; None where there is nothing to ask."""
    return " && ".join(_term(one, values) for one in conditions) or None


def _term(one: Condition, values: list[Any]) -> str:
    # Lax mode looks at each item of a list; a filter takes a comparison of different types for false. A field of the
    # document is the whole value, null where it is absent.
    place = "$" if one.of_document else f"$.{json.dumps(one.name)}"
    if one.operator == "exists":
        there = "$ != null" if one.of_document else f"exists({place})"
        holds = there if one.value else f"!({there})"
    elif one.operator == "all":
        holds = " && ".join(_compared(place, "==", value, values) for value in _listed(one))
    elif one.operator == "prefix":
        holds = _compared(place, "starts with", one.value, values)
    else:
        listed = list(one.value) if isinstance(one.value, tuple) else one.value
        holds = _compared(place, _COMPARISONS[one.operator], listed, values)
    return f"!({holds})" if one.negated else f"({holds})"


def _compared(place: str, comparison: str, value: object, values: list[Any]) -> str:
    values.append(value)
    items = "[*]" if isinstance(value, list) else ""
    return f"exists({place} ? (@ {comparison} $v{len(values) - 1}{items}))"
