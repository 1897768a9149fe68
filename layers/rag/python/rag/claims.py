"""A verified token's claims → who is calling. What a claim is not exactly, it does not say."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any, get_args

from rag.errors import ForbiddenError, NotAuthorizedError
from rag.oidc import Issuer
from rag.types import Caller, Role

# Cognito's longest; beyond it an issuer is asked to renew, not trusted for years.
LONGEST_SECONDS = 24 * 3600
MOST_NAMES = 100

_ROLES: tuple[Role, ...] = get_args(Role)
_TENANT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_SUBJECT = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,255}")
# `group:` before it makes an identity, which has 320 characters at most.
_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,200}")
_EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f-\x9f]{1,64}@[^@\s\x00-\x1f\x7f-\x9f]{1,240}")


def caller(claims: Mapping[str, Any], issuer: Issuer) -> Caller:
    """Return who this token, whose signature, issuer, audience and times hold, is of.

    NotAuthorizedError for a token that is not an access token of this issuer's for us; ForbiddenError for somebody who
    has no role here.
    """
    _check_kind(claims, issuer)
    groups = _names(claims.get(issuer.groups_claim, []))
    return Caller(
        _tenant(claims, groups, issuer),
        f"user:{issuer.subject_prefix}{_text(claims.get('sub'), _SUBJECT)}",
        _role(groups, issuer),
        _names(claims.get(issuer.collections_claim)) if issuer.collections_claim else None,
        tuple(name for name in groups if name not in issuer.roles and not _names_tenant(name, issuer)),
        email=_email(claims),
    )


def _check_kind(claims: Mapping[str, Any], issuer: Issuer) -> None:
    """An ID token tells a client who signed in; it lets nobody in here."""
    if claims.get("token_use", "access") != "access":
        raise NotAuthorizedError("this is not an access token")
    if issuer.client_ids and claims.get("client_id") not in issuer.client_ids:
        raise NotAuthorizedError("the token is of another client")
    if any(claims.get(name) != value for name, value in issuer.require.items()):
        raise NotAuthorizedError("the token lacks a claim that is required")
    lifetime = _seconds(claims, "exp") - _seconds(claims, "iat")
    if not 0 < lifetime <= LONGEST_SECONDS:
        raise NotAuthorizedError("the token is valid for longer than a day, or never")
    if "nbf" in claims:
        _seconds(claims, "nbf")


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    """A NumericDate is a number (RFC 7519, 2), and to Python a boolean is one."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NotAuthorizedError(f"the token's {name} is no time")
    return value


def _tenant(claims: Mapping[str, Any], groups: tuple[str, ...], issuer: Issuer) -> uuid.UUID:
    if issuer.tenant_id:
        return issuer.tenant_id
    if issuer.tenant_group_prefix:
        named = [name.removeprefix(issuer.tenant_group_prefix) for name in groups if _names_tenant(name, issuer)]
        return uuid.UUID(_text(named[0] if len(named) == 1 else None, _TENANT))
    return uuid.UUID(_text(claims.get(issuer.tenant_claim), _TENANT))


def _names_tenant(group: str, issuer: Issuer) -> bool:
    return bool(issuer.tenant_group_prefix) and group.startswith(issuer.tenant_group_prefix)


def _role(groups: tuple[str, ...], issuer: Issuer) -> Role:
    given = [_ROLES.index(issuer.roles[name]) for name in groups if name in issuer.roles]
    if not given:
        raise ForbiddenError("none of the user's groups gives a role here")
    return _ROLES[max(given)]


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MOST_NAMES:
        raise NotAuthorizedError("the token names no groups or collections that can be read")
    return tuple(dict.fromkeys(_text(name, _NAME) for name in value))


def _email(claims: Mapping[str, Any]) -> str | None:
    """An address that the issuer has verified, in small letters; any other proves nothing."""
    value = claims.get("email")
    verified = claims.get("email_verified") is True
    return value.lower() if verified and isinstance(value, str) and _EMAIL.fullmatch(value) else None


def _text(value: Any, pattern: re.Pattern[str]) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise NotAuthorizedError("a claim of the token is missing or malformed")
    return value
