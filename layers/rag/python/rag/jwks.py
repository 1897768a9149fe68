"""The public keys of an issuer: fetched when they are needed, seldom, and kept for a while when it is down.

Sources: RFC 7517; OpenID Connect Discovery 1.0, section 4; RFC 8725.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import jwt

from rag.errors import UnavailableError
from rag.oidc import Issuer

# Of one wait for the issuer, and of a whole answer: whoever sends a token waits for it.
TIMEOUT_SECONDS = 2.0
ANSWER_SECONDS = 4.0
MOST_BYTES = 150_000
MOST_KEYS = 100
# A key that the issuer withdrew is trusted for so long.
FRESH_SECONDS = 600.0
# However many tokens name keys that do not exist, the issuer is asked once in this time.
REFETCH_SECONDS = 60.0
RETRY_SECONDS = 5.0
# While the issuer is down its last keys hold.
STALE_SECONDS = 6 * 3600.0

_KINDS = {"RSA": "RS256", "EC P-256": "ES256"}


class KeySet:
    """One per issuer; threads that need a key at once cause one request."""

    def __init__(self, issuer: Issuer, clock: Callable[[], float] = time.monotonic) -> None:
        self._issuer = issuer
        self._clock = clock
        self._turn = threading.Lock()
        self._uri = issuer.jwks_uri
        self._keys: dict[tuple[str, str], jwt.PyJWK] = {}
        self._fetched_at = float("-inf")
        self._not_before = float("-inf")
        self._failed = False

    def key(self, kid: str, algorithm: str) -> jwt.PyJWK | None:
        """The issuer's key of this id and algorithm; None where it has none.

        UnavailableError when that cannot be known, because the issuer does not answer.
        """
        with self._turn:
            found = self._keys.get((kid, algorithm))
            now = self._clock()
            if (found is None or now - self._fetched_at >= FRESH_SECONDS) and now >= self._not_before:
                self._refresh()
                found = self._keys.get((kid, algorithm))
            if self._clock() - self._fetched_at > STALE_SECONDS or (found is None and self._failed):
                msg = f"the keys of {self._issuer.issuer} cannot be read"
                raise UnavailableError(msg)
            return found

    def _refresh(self) -> None:
        try:
            self._keys = self._fetched()
        except (OSError, ValueError, RecursionError, http.client.HTTPException):
            self._failed, self._uri = True, self._issuer.jwks_uri
            self._not_before = self._clock() + RETRY_SECONDS
        else:
            self._failed, self._fetched_at = False, self._clock()
            self._not_before = self._fetched_at + REFETCH_SECONDS

    def _fetched(self) -> dict[tuple[str, str], jwt.PyJWK]:
        self._uri = self._uri or self._discovered()
        listed = _document(self._uri).get("keys")
        if not isinstance(listed, list):
            msg = f"{self._uri} is no key set"
            raise ValueError(msg)  # noqa: TRY004 (what a server sends is a value)
        keys = [key for each in listed[:MOST_KEYS] if (key := _usable(each))]
        if not keys:
            msg = f"{self._uri} holds no key to verify with"
            raise ValueError(msg)
        return {(str(key.key_id), key.algorithm_name): key for key in keys}

    def _discovered(self) -> str:
        issuer = self._issuer.issuer
        said = _document(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        uri = said.get("jwks_uri")
        if said.get("issuer") != issuer or not isinstance(uri, str):
            msg = f"{issuer} describes another issuer, or no keys"
            raise ValueError(msg)
        if urlsplit(uri).scheme != "https" and urlsplit(issuer).scheme == "https":
            msg = f"{issuer} keeps its keys where anybody could change them"
            raise ValueError(msg)
        return uri


def _usable(described: Any) -> jwt.PyJWK | None:
    """A key for signatures of the two algorithms that are accepted; its kind alone says which of them it is for."""
    if not isinstance(described, dict) or not isinstance(described.get("kid"), str):
        return None
    algorithm = _KINDS.get(f"{described.get('kty')} {described.get('crv', '')}".strip())
    if algorithm is None or described.get("use", "sig") != "sig" or described.get("alg", algorithm) != algorithm:
        return None
    try:
        key = jwt.PyJWK(described, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
        return None
    return None if key.Algorithm.check_key_length(key.key) else key


def _document(url: str) -> dict[str, Any]:
    """The JSON object at this address; nothing that it redirects to."""
    parts = urlsplit(url)
    host, until = parts.netloc, time.monotonic() + ANSWER_SECONDS
    connection = http.client.HTTPConnection(host, timeout=TIMEOUT_SECONDS)
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(host, timeout=TIMEOUT_SECONDS, context=_everybodys_authorities())
    try:
        connection.request("GET", parts.path or "/", headers={"accept": "application/json", "user-agent": "rag"})
        response = connection.getresponse()
        body = bytearray()
        while part := response.read1(65_536):
            body += part
            if len(body) > MOST_BYTES or time.monotonic() > until:
                msg = f"{url} sends too much or too slowly"
                raise ValueError(msg)
    finally:
        connection.close()
    held = json.loads(body) if response.status == http.client.OK else None
    if not isinstance(held, dict):
        msg = f"{url} is no JSON object (status {response.status})"
        raise ValueError(msg)  # noqa: TRY004 (what a server sends is a value)
    return held


@cache
def _everybodys_authorities() -> ssl.SSLContext:
    return ssl.create_default_context()
