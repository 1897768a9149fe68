"""Signature version 4, as far as URLs, upload forms and requests to SQS and Secrets Manager need it.

Source: AWS General Reference, "Create a signed AWS API request"; Amazon S3 API Reference, "Authenticating requests:
using query parameters" and "browser-based uploads using POST".
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from local.aws.errors import S3Error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from local.aws import Credentials

ALGORITHM = "AWS4-HMAC-SHA256"


class Scope(NamedTuple):
    """`<access key>/<yyyymmdd>/<region>/<service>/aws4_request`."""

    access_key_id: str
    day: str
    region: str
    service: str
    end: str

    @property
    def text(self) -> str:
        return "/".join(self[1:])


def scope(credential: str, credentials: Credentials) -> Scope:
    """Read a credential; raise what S3 answers to one that it cannot read or does not know."""
    parts = credential.split("/")
    if len(parts) != len(Scope._fields) or parts[3:] != ["s3", "aws4_request"]:
        raise S3Error(
            400,
            "AuthorizationQueryParametersError",
            "Error parsing the X-Amz-Credential parameter; it must read <key>/<yyyymmdd>/<region>/s3/aws4_request.",
        )
    if parts[0] != credentials.access_key_id:
        raise S3Error(
            403,
            "InvalidAccessKeyId",
            "The AWS Access Key Id you provided does not exist in our records.",
            {"AWSAccessKeyId": parts[0]},
        )
    return Scope(*parts)


def signature(text: str, of: Scope, credentials: Credentials) -> str:
    """The signature of `text` by the local secret, in lower-case hexadecimal digits."""
    key = f"AWS4{credentials.secret_access_key}".encode()
    for part in of[1:]:
        key = hmac.digest(key, part.encode(), hashlib.sha256)
    return hmac.digest(key, text.encode(), hashlib.sha256).hex()


def canonical_headers(signed: Sequence[str], headers: Mapping[str, str]) -> list[str]:
    """The lines of a canonical request that name and hold the signed headers."""
    lines = [f"{name}:{' '.join(headers.get(name, '').split())}" for name in signed]
    return [*lines, "", ";".join(signed)]


def text_to_sign(date: str, of: Scope, canonical: Sequence[str]) -> str:
    """What is signed of a canonical request, given as lines."""
    digest = hashlib.sha256("\n".join(canonical).encode()).hexdigest()
    return f"{ALGORITHM}\n{date}\n{of.text}\n{digest}"


def verify(text: str, of: Scope, claimed: str, credentials: Credentials) -> None:
    """Raise SignatureDoesNotMatch unless `claimed` is the signature of `text`."""
    if not hmac.compare_digest(signature(text, of, credentials).encode(), claimed.encode()):
        raise S3Error(
            403,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. "
            "Check your key and signing method.",
            {"AWSAccessKeyId": of.access_key_id, "StringToSign": text, "SignatureProvided": claimed},
        )


def moment(text: str) -> datetime:
    """Read `20261120T101500Z`; raise ValueError for anything else."""
    return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
