"""The door of the local platform through which functions are invoked that no route leads to."""

from __future__ import annotations

from typing import Any

from local.cli.failure import Failure, NotRunning
from local.cli.output import one_line


def invoke(ready: dict[str, Any], function: str, event: dict[str, Any], *, seconds: float = 60.0) -> dict[str, Any]:
    """Return what the function returns; Failure with its words when it fails, NotRunning when nobody answers."""
    import httpx  # noqa: PLC0415 (it costs 0.3 s, which `rag --help` need not wait for)

    url = f"{ready['admin_url']}/2015-03-31/functions/{function}/invocations"
    headers = {"authorization": f"Bearer {ready['admin_token']}"}
    try:
        response = httpx.post(url, json=event, headers=headers, timeout=seconds, trust_env=False)
    except httpx.TransportError as problem:
        raise NotRunning(f"Nothing answers at {ready['admin_url']}.", hint="Start it with `rag up`.") from problem
    reply: dict[str, Any] = response.json()
    if response.is_error or "X-Amz-Function-Error" in response.headers:
        message = reply.get("errorMessage") or reply.get("message") or f"HTTP {response.status_code}"
        raise Failure(f"Nothing was changed: {one_line(message)}")
    return reply
