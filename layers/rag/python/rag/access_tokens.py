"""Access tokens (JSON Web Tokens): their signature, issuer, audience and times, as RFC 8725 and RFC 9068 say.

PyJWT and cryptography cost 0.2 s to import: only who was sent a token imports this module.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from typing import Any, NoReturn

import jwt

from rag import claims
from rag.errors import NotAuthorizedError
from rag.jwks import KeySet
from rag.oidc import Issuer
from rag.types import Caller

MOST_CHARACTERS = 8192
LEEWAY_SECONDS = 60

_TOKEN = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
_ALGORITHMS = frozenset({"RS256", "ES256"})
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
# Headers that change what is signed or how it is read, none of which an access token has.
_STRANGE = frozenset({"crit", "b64", "zip", "enc", "cty"})
_REQUIRED = ("iss", "sub", "exp", "iat")


class AccessTokens:
    """Accepts what these issuers sign, with keys that they publish: nothing that a token says leads to another key."""

    def __init__(self, issuers: Sequence[Issuer]) -> None:
        self._issuers = {each.issuer: (each, KeySet(each)) for each in issuers}

    def caller(self, token: str) -> Caller:
        """Return whose token it is.

        NotAuthorizedError when it does not hold, ForbiddenError when its user has no role, UnavailableError when the
        issuer's keys cannot be read.
        """
        try:
            issuer, verified = self._verified(token)
            return claims.caller(verified, issuer)
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise NotAuthorizedError("the access token is not valid") from error

    def _verified(self, token: str) -> tuple[Issuer, dict[str, Any]]:
        if len(token) > MOST_CHARACTERS or not _TOKEN.fullmatch(token):
            _refuse("no compact token of an acceptable size")
        head, body, _ = token.split(".")
        header = _decoded(head)
        kid, algorithm = header.get("kid"), header.get("alg")
        if str(algorithm) not in _ALGORITHMS or not isinstance(kid, str) or header.keys() & _STRANGE:
            _refuse("a header that is not accepted")
        if str(header.get("typ", "JWT")).lower() not in _TYPES:
            _refuse("another kind of token")
        # Not verified yet: it only says whose keys are to verify it, among the issuers that are accepted.
        named = _decoded(body).get("iss")
        if not isinstance(named, str) or named not in self._issuers:
            _refuse("an unknown issuer")
        issuer, keys = self._issuers[named]
        key = keys.key(kid, str(algorithm))
        if key is None:
            _refuse("an unknown key")
        verified = jwt.decode(
            token,
            key,
            [key.algorithm_name],
            {"require": [*_REQUIRED], "enforce_minimum_key_length": True},
            audience=issuer.audiences or None,
            issuer=issuer.issuer,
            leeway=LEEWAY_SECONDS,
        )
        return issuer, verified


def _decoded(part: str) -> dict[str, Any]:
    """A JSON object in base64url, in the one way in which it can be written; no name stands in it twice."""
    try:
        raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except binascii.Error as error:
        raise ValueError(part) from error
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != part:
        _refuse("base64url that is not canonical")
    held = json.loads(raw, object_pairs_hook=_distinct, parse_constant=_refuse)
    return held if isinstance(held, dict) else _refuse("no JSON object")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """RFC 7519, 4: a claim's name is unique; JSON readers differ on which one of two counts."""
    held = dict(pairs)
    return held if len(held) == len(pairs) else _refuse("a name stands twice")


def _refuse(why: str) -> NoReturn:
    raise ValueError(why)
