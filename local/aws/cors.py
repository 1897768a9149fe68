"""Cross-origin requests by the rules of the bucket: preflights, and the headers of actual replies.

Source: Amazon S3 User Guide, "Elements of a CORS configuration": the first rule that fits decides.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from local.aws.errors import S3Error
from local.aws.exchange import Reply

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def preflight(rules: Sequence[Any], headers: Mapping[str, str]) -> Reply:
    """Answer an OPTIONS request; `headers` by lower-case name. Raises S3Error when no rule allows it."""
    asked = [h.strip() for h in headers.get("access-control-request-headers", "").lower().split(",") if h.strip()]
    found = _fitting(rules, headers, headers.get("access-control-request-method", ""), asked)
    if not found:
        raise S3Error(403, "AccessForbidden", "CORSResponse: This CORS request is not allowed.")
    allowed = {"Access-Control-Allow-Headers": ", ".join(asked)} if asked else {}
    seconds = {"Access-Control-Max-Age": str(found.max_age_seconds)} if found.max_age_seconds else {}
    return Reply(200, tuple({**_origin(found, headers), **allowed, **seconds}.items()))


def headers_for(rules: Sequence[Any], method: str, headers: Mapping[str, str]) -> dict[str, str]:
    """What a reply to an actual request carries; nothing when no rule fits."""
    found = _fitting(rules, headers, method, [])
    if not found:
        return {}
    exposed = {"Access-Control-Expose-Headers": ", ".join(found.exposed_headers)} if found.exposed_headers else {}
    return {**_origin(found, headers), **exposed}


def _fitting(rules: Sequence[Any], headers: Mapping[str, str], method: str, asked: Sequence[str]) -> Any:
    origin = headers.get("origin", "")
    for rule in rules if origin else ():
        origin_fits = any(fnmatchcase(origin, pattern) for pattern in rule.allowed_origins)
        patterns = [pattern.lower() for pattern in rule.allowed_headers or ()]
        headers_fit = all(any(fnmatchcase(name, pattern) for pattern in patterns) for name in asked)
        if origin_fits and method in rule.allowed_methods and headers_fit:
            return rule
    return None


def _origin(rule: Any, headers: Mapping[str, str]) -> dict[str, str]:
    everyone = "*" in rule.allowed_origins
    origin = {"Access-Control-Allow-Origin": "*" if everyone else headers["origin"]}
    credentials = {} if everyone else {"Access-Control-Allow-Credentials": "true"}
    methods = {"Access-Control-Allow-Methods": ", ".join(rule.allowed_methods)}
    return {**origin, **credentials, **methods, "Vary": "Origin"}
