"""The AWS Parameters and Secrets Lambda extension's one call that functions make: a secret's value by its id.

https://docs.aws.amazon.com/secretsmanager/latest/userguide/retrieving-secrets_lambda.html
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from local.asgi import Server, listen, reply

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

_CACHE_SECONDS = 300.0


class SecretsExtension:
    """Serves functions on one loopback port; like the real one it keeps each value for 300 seconds.

    `read` is boto3's `get_secret_value`.
    """

    def __init__(self, read: Callable[..., dict[str, Any]], *, token: str) -> None:
        self._read = read
        self._token = token.encode()
        self._cache: dict[str, tuple[float, bytes]] = {}
        self._socket = listen()
        self.port: int = self._socket.getsockname()[1]
        self._server = Server(self._serve, grace_seconds=1)

    async def open(self) -> None:
        await self._server.open([self._socket])

    async def close(self) -> None:
        await self._server.close()

    async def _serve(self, scope: Scope, _: Receive, send: Send) -> None:
        given = dict(scope["headers"]).get(b"x-aws-parameters-secrets-token", b"")
        if not hmac.compare_digest(given, self._token):
            return await reply(send, 401, b"not authorized to perform this operation\n")
        if (scope["method"], scope["path"]) != ("GET", "/secretsmanager/get"):
            return await reply(send, 404, b"404 page not found\n")
        secret_id = parse_qs(scope["query_string"].decode("latin-1")).get("secretId", [""])[0]
        if not secret_id:
            return await reply(send, 400, b"the query parameter secretId is missing\n")
        status, body = await self._value(secret_id)
        return await reply(send, status, body, [("Content-Type", "application/json")])

    async def _value(self, secret_id: str) -> tuple[int, bytes]:
        kept = self._cache.get(secret_id)
        if kept and kept[0] > time.monotonic():
            return 200, kept[1]
        try:
            found = await asyncio.to_thread(self._read, SecretId=secret_id)
        except Exception as error:  # noqa: BLE001  (botocore's classes are made at run time)
            return 400, json.dumps({"message": str(error)}).encode()
        body = json.dumps({name: _plain(value) for name, value in found.items() if name != "ResponseMetadata"}).encode()
        self._cache[secret_id] = (time.monotonic() + _CACHE_SECONDS, body)
        return 200, body


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
