"""What every HTTP answer says to browsers and caches in its headers, whoever gives it: function, gateway or laptop.

OWASP, "HTTP Security Response Headers Cheat Sheet" and "REST Security Cheat Sheet".
"""

from __future__ import annotations

from collections.abc import Mapping

# Nothing that the API answers is a page; the one that is names the style that it has.
_NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
POLICY = "content-security-policy"
ON_EVERY_ANSWER: Mapping[str, str] = {
    "strict-transport-security": "max-age=63072000; includeSubDomains",
    POLICY: _NOTHING,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


def policy_of_page(*, style_hash: str) -> str:
    """The policy of a page whose only source of anything is its inline style, by the style's SHA-256 in base64."""
    return f"{_NOTHING}; style-src 'sha256-{style_hash}'"
