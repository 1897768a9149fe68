"""URLs that carry their own signature: whether one may still be used for what it was made for."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from local.aws.errors import S3Error, access_denied
from local.aws.signature import ALGORITHM, canonical_headers, moment, scope, text_to_sign, verify

if TYPE_CHECKING:
    from collections.abc import Mapping

    from local.aws import Credentials

_REQUIRED = ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature")
_LONGEST = timedelta(days=7)
_CLOCK_SKEW = timedelta(minutes=15)
# Signed or not, the hash of the body describes only itself.
_UNSIGNED_HEADERS = {"x-amz-content-sha256"}


def is_presigned(query: str) -> bool:
    return "X-Amz-Signature=" in query or "X-Amz-Algorithm=" in query


def check(
    method: str, path: str, query: str, headers: Mapping[str, str], *, now: datetime, credentials: Credentials
) -> None:
    """Raise S3Error unless the URL is signed by the local secret for this request and not expired at `now`.

    `path` and `query` are as they stand in the request line; names in `headers` are lower-case.
    """
    pairs = [(unquote(name), unquote(value)) for name, _, value in (p.partition("=") for p in query.split("&") if p)]
    fields = dict(pairs)
    missing = [name for name in _REQUIRED if not fields.get(f"X-Amz-{name}")]
    if missing or fields["X-Amz-Algorithm"] != ALGORITHM:
        names = ", ".join(f"X-Amz-{name}" for name in _REQUIRED)
        raise _malformed(f"Query-string authentication version 4 requires the {names} parameters ({ALGORITHM}).")
    of = scope(fields["X-Amz-Credential"], credentials)
    _check_time(fields["X-Amz-Date"], fields["X-Amz-Expires"], of.day, now)
    signed = fields["X-Amz-SignedHeaders"].split(";")
    _check_headers(signed, headers)
    canonical = [
        method,
        quote(unquote(path), safe="/-_.~"),
        "&".join(f"{name}={value}" for name, value in sorted(_quoted(pairs))),
        *canonical_headers(signed, headers),
        fields.get("X-Amz-Content-Sha256") or headers.get("x-amz-content-sha256") or "UNSIGNED-PAYLOAD",
    ]
    verify(text_to_sign(fields["X-Amz-Date"], of, canonical), of, fields["X-Amz-Signature"], credentials)


def _quoted(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    signed = [(name, value) for name, value in pairs if name != "X-Amz-Signature"]
    return [(quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in signed]


def _check_time(date: str, expires: str, day: str, now: datetime) -> None:
    try:
        start, lifetime = moment(date), timedelta(seconds=int(expires))
    except (ValueError, OverflowError) as error:
        raise _malformed("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\".") from error
    if not date.startswith(day):
        raise _malformed(f"Invalid credential date {day}. This date is not the same as X-Amz-Date.")
    if not timedelta(0) < lifetime <= _LONGEST:
        raise _malformed("X-Amz-Expires must be between 1 and 604800 seconds (a week).")
    if now + _CLOCK_SKEW < start:
        raise access_denied("Request is not yet valid", {"X-Amz-Date": date, "ServerTime": now.isoformat()})
    if now > start + lifetime:
        times = {"X-Amz-Expires": expires, "Expires": (start + lifetime).isoformat(), "ServerTime": now.isoformat()}
        raise access_denied("Request has expired", times)


def _check_headers(signed: list[str], headers: Mapping[str, str]) -> None:
    if "host" not in signed:
        raise _malformed("X-Amz-SignedHeaders must name the host header.")
    unsigned = [n for n in headers if n.startswith("x-amz-") and n not in signed and n not in _UNSIGNED_HEADERS]
    if unsigned:
        names = {"HeadersNotSigned": ", ".join(unsigned)}
        raise access_denied("There were headers present in the request which were not signed", names)


def _malformed(message: str) -> S3Error:
    return S3Error(400, "AuthorizationQueryParametersError", message)
