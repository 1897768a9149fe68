"""AWS Signature Version 4, of a request and of the token that IAM database authentication takes for a password.

Sources: IAM user guide, "Create a signed AWS API request"; RDS user guide, "Connecting to your DB instance using IAM
authentication".
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime
from typing import NamedTuple
from urllib.parse import quote

TOKEN_SECONDS = 900  # the longest that RDS accepts; it is looked at when a connection is made, not later

_ALGORITHM = "AWS4-HMAC-SHA256"
_HTTPS = 443


class Credentials(NamedTuple):
    """Of a role in a session; without a session token, of a user."""

    access_key_id: str
    secret_access_key: str
    session_token: str = ""


def connect_token(host: str, port: int, user: str, *, region: str, credentials: Credentials, at: datetime) -> str:
    """The password with which this database user connects to this endpoint, for 900 seconds from `at` (UTC)."""
    scope = _scope(at, region, "rds-db")
    query = {
        "Action": "connect",
        "DBUser": user,
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{credentials.access_key_id}/{scope}",
        "X-Amz-Date": _stamp(at),
        "X-Amz-Expires": str(TOKEN_SECONDS),
        "X-Amz-SignedHeaders": "host",
    }
    if credentials.session_token:
        query["X-Amz-Security-Token"] = credentials.session_token
    pairs = [f"{name}={quote(value, safe='-_.~')}" for name, value in query.items()]
    # A Host header leaves its scheme's own port out; the token is for a URL of HTTPS.
    named = host if port == _HTTPS else f"{host}:{port}"
    request = _canonical("GET", "&".join(sorted(pairs)), {"host": named}, b"")
    signature = _signature(request, at, scope, credentials)
    return f"{host}:{port}/?{'&'.join(pairs)}&X-Amz-Signature={signature}"


def signed(
    headers: dict[str, str], body: bytes, *, service: str, region: str, credentials: Credentials, at: datetime
) -> dict[str, str]:
    """The headers, `host` among them and all named in lower case, of a POST to `/` with what makes it this caller's."""
    scope = _scope(at, region, service)
    sent = {**headers, "x-amz-date": _stamp(at)}
    if credentials.session_token:
        sent["x-amz-security-token"] = credentials.session_token
    signature = _signature(_canonical("POST", "", sent, body), at, scope, credentials)
    parts = [
        f"Credential={credentials.access_key_id}/{scope}",
        f"SignedHeaders={_names(sent)}",
        f"Signature={signature}",
    ]
    return {**sent, "authorization": f"{_ALGORITHM} {', '.join(parts)}"}


def _canonical(method: str, query: str, headers: dict[str, str], body: bytes) -> str:
    lines = [f"{name}:{headers[name]}" for name in sorted(headers)]
    return "\n".join([method, "/", query, *lines, "", _names(headers), hashlib.sha256(body).hexdigest()])


def _names(headers: dict[str, str]) -> str:
    return ";".join(sorted(headers))


def _stamp(at: datetime) -> str:
    return at.strftime("%Y%m%dT%H%M%SZ")


def _scope(at: datetime, region: str, service: str) -> str:
    return f"{_stamp(at)[:8]}/{region}/{service}/aws4_request"


def _signature(request: str, at: datetime, scope: str, credentials: Credentials) -> str:
    key = f"AWS4{credentials.secret_access_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = "\n".join([_ALGORITHM, _stamp(at), scope, hashlib.sha256(request.encode()).hexdigest()])
    return hmac.digest(key, text.encode(), "sha256").hex()
