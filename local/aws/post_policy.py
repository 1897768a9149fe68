"""What an upload form may contain: the policy that its signature covers.

Source: Amazon S3 API Reference, "Creating a POST policy" and "Calculating a signature". Every field of the form but the
signature, the file, the policy itself and `x-ignore-…` must be named by a condition; field names ignore case.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from local.aws.errors import S3Error, access_denied
from local.aws.signature import ALGORITHM, moment, scope, verify

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from local.aws import Credentials

_UNCONDITIONED = {"x-amz-signature", "file", "policy"}
_SIGNED_FORM = ("policy", "x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature")


@dataclass(frozen=True, slots=True)
class SizeLimits:
    """Bytes that the file may have, both ends included."""

    smallest: int = 0
    largest: int | None = None

    def refuse_above(self, size: int) -> None:
        if self.largest is not None and size > self.largest:
            sizes = {"ProposedSize": str(size), "MaxSizeAllowed": str(self.largest)}
            raise S3Error(400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size", sizes)

    def refuse_below(self, size: int) -> None:
        if size < self.smallest:
            sizes = {"ProposedSize": str(size), "MinSizeAllowed": str(self.smallest)}
            raise S3Error(400, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size", sizes)


def check(fields: Mapping[str, str], *, bucket: str, now: datetime, credentials: Credentials) -> SizeLimits:
    """Raise S3Error unless the form is signed by the local secret, in time, and within its policy.

    `fields` are those before the file, names in lower case; the caller holds the file against the limits returned.
    """
    _check_signature(fields, credentials)
    policy = _read(fields["policy"])
    if now >= _expiration(policy):
        raise access_denied("Invalid according to Policy: Policy expired.")
    conditions = [*_flatten(policy["conditions"])]
    limits = _size_limits(conditions)
    values = {**fields, "bucket": bucket}
    for operator, name, wanted in (c for c in conditions if c[0] != "content-length-range"):
        if not _holds(operator, values.get(name), wanted, listed=name == "content-type"):
            condition = json.dumps([operator, f"${name}", wanted])
            raise access_denied(f"Invalid according to Policy: Policy Condition failed: {condition}")
    _check_coverage(values, {name for _, name, _ in conditions})
    return limits


def _check_signature(fields: Mapping[str, str], credentials: Credentials) -> None:
    if "policy" not in fields:
        raise access_denied("Access Denied")
    missing = [name for name in _SIGNED_FORM if not fields.get(name)]
    if missing:
        message = f"Bucket POST must contain a field named '{missing[0]}'. If it is specified, please check the order."
        raise S3Error(400, "InvalidArgument", message, {"ArgumentName": missing[0], "ArgumentValue": ""})
    of = scope(fields["x-amz-credential"], credentials)
    if fields["x-amz-algorithm"] != ALGORITHM or not _same_day(fields["x-amz-date"], of.day):
        raise S3Error(400, "InvalidArgument", f"x-amz-algorithm must be {ALGORITHM} and x-amz-date of the scope's day.")
    verify(fields["policy"], of, fields["x-amz-signature"], credentials)


def _same_day(date: str, day: str) -> bool:
    try:
        return moment(date).strftime("%Y%m%d") == day
    except ValueError:
        return False


def _read(policy: str) -> dict[str, Any]:
    try:
        document = json.loads(base64.b64decode(policy, validate=True))
    except (binascii.Error, ValueError) as error:
        raise _invalid("Invalid JSON.") from error
    if not isinstance(document, dict) or "expiration" not in document:
        raise _invalid("Policy missing expiration.")
    if not isinstance(document.get("conditions"), list):
        raise _invalid("Policy missing conditions.")
    return document


def _expiration(policy: Mapping[str, Any]) -> datetime:
    try:
        when = datetime.fromisoformat(policy["expiration"])
    except (TypeError, ValueError) as error:
        raise _invalid("Invalid 'expiration' value.") from error
    if when.tzinfo is None:
        raise _invalid("Invalid 'expiration' value.")
    return when


def _flatten(conditions: Iterable[Any]) -> Iterable[tuple[str, str, Any]]:
    """Each condition as (operator, lower-case field name or least size, wanted value or greatest size)."""
    for condition in conditions:
        match condition:
            case {**pairs} if pairs:
                yield from (("eq", str(name).lower(), str(value)) for name, value in pairs.items())
            case [str(operator), smallest, largest] if operator.lower() == "content-length-range":
                yield "content-length-range", smallest, largest
            case [str(operator), str(name), str(value)] if (
                operator.lower() in {"eq", "starts-with"} and name[:1] == "$"
            ):
                yield operator.lower(), name[1:].lower(), value
            case _:
                raise _invalid(f"Invalid condition: {json.dumps(condition)}")


def _size_limits(conditions: Iterable[tuple[str, Any, Any]]) -> SizeLimits:
    ranges = [(smallest, largest) for operator, smallest, largest in conditions if operator == "content-length-range"]
    try:
        bounds = [(int(smallest), int(largest)) for smallest, largest in ranges]
    except (TypeError, ValueError) as error:
        raise _invalid("Invalid content-length-range.") from error
    if any(smallest < 0 or largest < smallest for smallest, largest in bounds):
        raise _invalid("Invalid content-length-range.")
    return SizeLimits(max(b[0] for b in bounds), min(b[1] for b in bounds)) if bounds else SizeLimits()


def _holds(operator: str, value: str | None, wanted: str, *, listed: bool) -> bool:
    if value is None:
        return False
    if operator == "eq":
        return value == wanted
    return all(part.startswith(wanted) for part in (value.split(",") if listed else [value]))


def _check_coverage(values: Mapping[str, str], named: set[str]) -> None:
    extra = [n for n in values if n not in named and n not in _UNCONDITIONED and not n.startswith("x-ignore-")]
    if extra:
        raise access_denied(f"Invalid according to Policy: Extra input fields: {', '.join(extra)}")


def _invalid(reason: str) -> S3Error:
    return S3Error(400, "InvalidPolicyDocument", f"Invalid Policy: {reason}")
