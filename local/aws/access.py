"""Who may speak to the local AWS: under which names, and for SQS and Secrets Manager with whose key.

S3 takes any access key in a header, so that tools which know no more than the endpoint can put objects: the bucket of a
laptop is as open as its loopback port. Queues and secrets are not: a secret may be the key of a model server that costs
money. A foreign Host header is how a web page reads a loopback server, by having its own name resolve to this machine.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from local.aws.errors import S3Error
from local.aws.signature import ALGORITHM, Scope, canonical_headers, moment, signature, text_to_sign

if TYPE_CHECKING:
    from collections.abc import Mapping

    from local.aws import Credentials
    from local.aws.exchange import Environ

_CLOCK_SKEW = timedelta(minutes=15)
_AUTHORIZATION = re.compile(
    rf"{ALGORITHM} +Credential=(?P<credential>[^,\s]+), *"
    r"SignedHeaders=(?P<signed>[^,\s]+), *Signature=(?P<signature>[0-9a-f]+)"
)


def check_host(environ: Environ) -> None:
    """Raise S3Error unless the request names a loopback address, or localhost, with our port."""
    try:
        host = urlsplit(f"//{environ.get('HTTP_HOST', '')}")
        ours = _is_loopback(host.hostname or "") and str(host.port or 80) == str(environ["SERVER_PORT"])
    except ValueError:
        ours = False
    if not ours:
        raise S3Error(403, "AccessDenied", "The local AWS answers on loopback addresses and as localhost only.")


def _is_loopback(name: str) -> bool:
    return name == "localhost" or ip_address(name).is_loopback


def check_signature(
    method: str, target: str, headers: Mapping[str, str], body: bytes, *, credentials: Credentials, now: datetime
) -> None:
    """Raise S3Error unless the header's signature is ours for this request; names in `headers` are lower-case."""
    given = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    parts = given["credential"].split("/") if given else []
    if given is None or len(parts) != len(Scope._fields) or parts[0] != credentials.access_key_id:
        raise S3Error(403, "InvalidClientTokenId", "The security token included in the request is invalid.")
    of, signed, date = Scope(*parts), given["signed"].split(";"), headers.get("x-amz-date", "")
    if not {"host", "x-amz-date"} <= set(signed) or not _is_now(date, now):
        raise S3Error(403, "InvalidSignatureException", "The signature is not of now, or covers no host and date.")
    path, _, query = target.partition("?")
    payload = hashlib.sha256(body).hexdigest()
    canonical = [method, quote(unquote(path), safe="/-_.~"), query, *canonical_headers(signed, headers), payload]
    if not hmac.compare_digest(signature(text_to_sign(date, of, canonical), of, credentials), given["signature"]):
        raise S3Error(403, "InvalidSignatureException", "The request signature does not match the one you provided.")


def _is_now(date: str, now: datetime) -> bool:
    try:
        return abs(now - moment(date)) <= _CLOCK_SKEW
    except ValueError:
        return False
