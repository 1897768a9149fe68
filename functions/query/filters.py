"""The language of filters: JSON as clients send it → conditions."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, NoReturn, cast

from rag import metadata
from rag.errors import MetadataError
from rag.types import Condition, Filters, Operator, Scalar

MOST_CONDITIONS = 20
MOST_VALUES = 100
# Of ids and keys that are looked up by an index, each at the same price.
MOST_LOOKED_UP = 1_000
LOOKED_UP = frozenset({"document_id", "key"})
# Leads to metadata even where a field of the document has the same name.
PREFIX = "metadata."

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class FilterError(ValueError):
    """`path` leads to what is wrong: field, operator."""

    def __init__(self, path: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.path = path


class Kind(NamedTuple):
    """Which operators a field has, and how a value of it is read."""

    operators: frozenset[str]
    read: Callable[[object], Scalar]


class Field(NamedTuple):
    """A field of documents, or of their metadata, by the name that the client gave it and by its own."""

    given_name: str
    name: str
    kind: Kind
    of_document: bool


def _instant(value: object) -> int:
    """Whole microseconds since 1970; UTC where no offset is named."""
    try:
        moment = datetime.fromisoformat(metadata.check_string(value))
    except ValueError as error:
        msg = 'must be a date or a time in ISO 8601, like "2026-11-20" or "2026-11-20T09:30:00Z"'
        raise MetadataError(msg) from error
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1)


def _identity(value: object) -> str:
    try:
        return str(uuid.UUID(metadata.check_string(value)))
    except ValueError as error:
        msg = "must be the id of a document"
        raise MetadataError(msg) from error


_ORDER = frozenset({"gte", "gt", "lte", "lt"})
_TEXT = Kind(_ORDER | {"eq", "any", "exists", "prefix", "not"}, metadata.check_string)
_INSTANT = Kind(_ORDER | {"eq", "not"}, _instant)
METADATA = Kind(_TEXT.operators | {"all"}, metadata.check_scalar)
FIELDS: Mapping[str, Kind] = {
    "document_id": Kind(frozenset({"eq", "any", "not"}), _identity),
    "key": _TEXT,
    "media_type": _TEXT,
    "title": _TEXT,
    "created_at": _INSTANT,
    "updated_at": _INSTANT,
}


def read(given: object) -> Filters:
    """Return the conditions that `{field: value or {operator: value}}` means; all of them must hold.

    FilterError names the field and the operator that do not fit.
    """
    if not isinstance(given, dict):
        raise FilterError((), "must be an object: {field: value} or {field: {operator: value}}")
    conditions = [one for field, value in given.items() for one in _field(field, value)]
    if len(conditions) > MOST_CONDITIONS:
        raise FilterError((), f"has {len(conditions)} conditions, {MOST_CONDITIONS} at most")
    return Filters(tuple(conditions))


def _field(given_name: str, given: object) -> list[Condition]:
    of_document = given_name in FIELDS
    name = given_name if of_document else given_name.removeprefix(PREFIX)
    if not of_document and not metadata.NAME.fullmatch(name):
        msg = f"is neither {', '.join(FIELDS)} nor a name that metadata may have"
        raise FilterError((given_name[:80],), msg)
    field = Field(given_name, name, FIELDS.get(given_name, METADATA), of_document)
    operators = given if isinstance(given, dict) else {"eq": given}
    if not operators:
        raise FilterError((given_name,), f"names no operator: {_words(field.kind.operators)}")
    return [_condition(field, operator, value) for operator, value in operators.items()]


def _condition(field: Field, operator: str, value: object) -> Condition:
    negated = operator == "not"
    path: tuple[str, ...] = (field.given_name,)
    if operator not in field.kind.operators:
        raise FilterError((*path, operator[:80]), f"is no operator of this field: {_words(field.kind.operators)}")
    if negated:
        path = (*path, "not")
        operator, value = _negated(path, field.kind, value)
    # A bare value is at fault itself, not an operator of it.
    place = path if operator == "eq" else (*path, operator)
    most = MOST_LOOKED_UP if field.of_document and field.name in LOOKED_UP and not negated else MOST_VALUES
    try:
        read = _value(field.kind, operator, value, most)
    except MetadataError as error:
        raise FilterError(place, str(error)) from error
    return Condition(field.name, cast("Operator", operator), read, field.of_document, negated)


def _negated(path: tuple[str, ...], kind: Kind, value: object) -> tuple[str, object]:
    operators = value if isinstance(value, dict) else {"eq": value}
    allowed = kind.operators - {"not"}
    if len(operators) != 1 or not operators.keys() <= allowed:
        raise FilterError(path, f"takes a value or one operator: {_words(allowed)}")
    [found] = operators.items()
    return found


def _value(kind: Kind, operator: str, value: object, most: int) -> Scalar | tuple[Scalar, ...]:
    if operator in {"any", "all"}:
        return tuple(kind.read(one) for one in _list(value, most))
    if isinstance(value, list):
        instead = _words(kind.operators & {"any", "all"})
        _refuse(f"must not be a list: use {instead}" if instead else "must not be a list")
    return _single(kind, operator, value)


def _single(kind: Kind, operator: str, value: object) -> Scalar:
    if operator == "exists" and not isinstance(value, bool):
        _refuse("must be true or false")
    if operator == "prefix" and metadata.check_string(value) == "":
        _refuse("must not be empty")
    if operator in _ORDER and isinstance(value, bool):
        _refuse("must be a number or a string")
    return cast("bool", value) if operator == "exists" else kind.read(value)


def _list(value: object, most: int) -> list[Any]:
    if not isinstance(value, list) or not 1 <= len(value) <= most:
        _refuse(f"must be a list of 1 to {most:,} values")
    return value


def _words(operators: frozenset[str]) -> str:
    return ", ".join(sorted(operators))


def _refuse(reason: str) -> NoReturn:
    raise MetadataError(reason)
