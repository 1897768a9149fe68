"""A Lambda authorizer of type REQUEST as API Gateway uses it: asked once per credential, applied to each call.

https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-use-lambda-authorizer.html
"""

from __future__ import annotations

import asyncio
import fnmatch
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from local.lambda_runtime import Invocation
from local.proxy_event import Request, authorizer_event
from local.runtime_api import Recipient

_MAX_CACHED = 10_000

Credential = tuple[tuple[str, str], ...]
# Every value of these is what a verdict is about.
_SOURCES = ("x-api-key", "authorization")


class UnauthorizedError(Exception):
    """No credential, or one that the authorizer does not know: 401."""


class ForbiddenError(Exception):
    """The policy does not allow this call: 403."""


class AuthorizerFailedError(Exception):
    """The authorizer crashed or answered nonsense: nobody's request is at fault."""


class Invocable(Protocol):
    async def invoke(
        self, payload: bytes, *, trace_id: str | None = None, recipient: Recipient | None = None
    ) -> Invocation: ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """A policy and who it is for; `context` is what the integration's event gets."""

    statements: tuple[tuple[str, re.Pattern[str]], ...]
    context: Mapping[str, str]

    def allows(self, method_arn: str) -> bool:
        effects = {effect for effect, pattern in self.statements if pattern.fullmatch(method_arn)}
        return effects == {"Allow"}


class Authorizer:
    """Policies, denying ones too, are kept per credential; that a credential is unknown is not kept, as on AWS."""

    def __init__(self, function: Invocable, *, cache_seconds: float) -> None:
        self._function = function
        self._cache_seconds = cache_seconds
        self._verdicts: dict[Credential, tuple[float, Verdict]] = {}
        self._asking: dict[Credential, asyncio.Task[Verdict]] = {}

    async def context(self, request: Request) -> Mapping[str, str]:
        """What the integration is told about the caller.

        Raises UnauthorizedError, ForbiddenError, AuthorizerFailedError.
        """
        credential = tuple((name, value) for name, value in request.headers if name in _SOURCES)
        if not any(value for _, value in credential):
            raise UnauthorizedError("send an API key in x-api-key or in Authorization: Bearer")
        verdict = await self._verdict(credential, request)
        if not verdict.allows(request.method_arn):
            raise ForbiddenError("this credential may not do that")
        return verdict.context

    async def _verdict(self, credential: Credential, request: Request) -> Verdict:
        kept = self._verdicts.get(credential)
        if kept and kept[0] > time.monotonic():
            return kept[1]
        asking = self._asking.get(credential)
        if asking is None:
            asking = self._asking[credential] = asyncio.create_task(self._ask(credential, request))
            asking.add_done_callback(lambda _: self._asking.pop(credential))
        # Shielded, because the next caller may be waiting for the same answer when this one goes away.
        return await asyncio.shield(asking)

    async def _ask(self, credential: Credential, request: Request) -> Verdict:
        payload = json.dumps(authorizer_event(request)).encode()
        invocation = await self._function.invoke(payload, trace_id=request.trace_id)
        verdict = _verdict(invocation)
        if len(self._verdicts) >= _MAX_CACHED:
            self._verdicts.clear()
        self._verdicts[credential] = (time.monotonic() + self._cache_seconds, verdict)
        return verdict


def _verdict(invocation: Invocation) -> Verdict:
    try:
        answer = json.loads(invocation.payload)
        if invocation.function_error:
            if answer.get("errorMessage") == "Unauthorized":
                raise UnauthorizedError("this credential is unknown, expired or revoked")
            raise AuthorizerFailedError(str(answer.get("errorMessage")))
        context = {name: _string(value) for name, value in (answer.get("context") or {}).items()}
        statements = [found for statement in answer["policyDocument"]["Statement"] for found in _patterns(statement)]
        return Verdict(tuple(statements), {"principalId": str(answer["principalId"]), **context})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise AuthorizerFailedError(f"its answer is not a policy: {error!r}") from error


def _patterns(statement: dict[str, Any]) -> list[tuple[str, re.Pattern[str]]]:
    if "execute-api:Invoke" not in _listed(statement["Action"]) and "*" not in _listed(statement["Action"]):
        return []
    return [(statement["Effect"], _pattern(resource)) for resource in _listed(statement["Resource"])]


def _pattern(resource: str) -> re.Pattern[str]:
    """IAM's wildcards are `*` and `?`; fnmatch's brackets have no meaning there."""
    return re.compile(fnmatch.translate(resource.replace("[", "[[]")))


def _listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def _string(value: Any) -> str:
    """Context values arrive as strings, whatever they were; objects are refused by API Gateway."""
    if isinstance(value, dict | list) or value is None:
        raise TypeError(f"a context value is {value!r}")
    return str(value).lower() if isinstance(value, bool) else str(value)
