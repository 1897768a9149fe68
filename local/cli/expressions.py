"""What people type for metadata and filters: `year=2020`, `year>=2020`, or JSON for all the rest."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from local.cli.failure import UsageFailure

JSON = dict[str, Any]

# A longer sign stands before the one that it begins with.
_OPERATORS = {">=": "gte", "<=": "lte", "!=": "not", "^=": "prefix", ">": "gt", "<": "lt", "=": "eq"}
_EXPRESSION = re.compile(
    rf"\s*([A-Za-z_][\w.-]*)\s*({'|'.join(map(re.escape, _OPERATORS))})\s*(.*?)\s*", re.DOTALL | re.ASCII
)
_FILTER_HINT = 'Write name=value, with one of = != > >= < <= ^=, or a JSON object: \'{"tags": {"any": ["a", "b"]}}\'.'


def filters(expressions: Iterable[str]) -> JSON:
    """All expressions as one filter; raises UsageFailure for what is none, or says two things of one field."""
    found: JSON = {}
    for expression in expressions:
        for field, term in _terms(expression).items():
            operators = term if isinstance(term, dict) else {"eq": term}
            known = found.setdefault(field, {})
            if known.keys() & operators.keys():
                raise UsageFailure(f"Two filters say {_sign(known, operators)} of {field}.", hint=_FILTER_HINT)
            known.update(operators)
    return found


def metadata(file: Path | None, pairs: Iterable[str]) -> JSON | None:
    """The object in the file with the pairs over it; a name that comes twice makes a list. None without any."""
    found = _object(_read(file), f"{file} does not hold a JSON object.") if file else {}
    named: dict[str, list[Any]] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign:
            raise UsageFailure(f"{pair} is no metadata.", hint="Write --meta name=value.")
        named.setdefault(name.strip(), []).append(_value(value.strip()))
    found |= {name: values[0] if len(values) == 1 else values for name, values in named.items()}
    return found or None


def _terms(expression: str) -> JSON:
    if expression.lstrip().startswith("{"):
        return _object(expression, f"{expression} is no JSON object.")
    match = _EXPRESSION.fullmatch(expression)
    if match is None:
        raise UsageFailure(f"{expression} is no filter.", hint=_FILTER_HINT)
    field, sign, value = match.groups()
    return {field: {_OPERATORS[sign]: value if sign == "^=" else _value(value)}}


def _value(text: str) -> Any:
    """A number, true, false or "text" as in JSON; whatever else is text as it stands."""
    try:
        value = json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        return text
    number = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    return value if number or isinstance(value, str) else text


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as problem:
        raise UsageFailure(f"{file} cannot be read: {getattr(problem, 'strerror', None) or 'not UTF-8'}.") from problem


def _object(text: str, complaint: str) -> JSON:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UsageFailure(complaint)
    return value


def _sign(known: JSON, operators: JSON) -> str:
    signs = {operator: sign for sign, operator in _OPERATORS.items()}
    operator = min(known.keys() & operators.keys())
    return signs.get(operator, operator)
