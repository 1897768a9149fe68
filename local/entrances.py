"""Where events come in: the API's port, the administrators' port, the queue."""

from __future__ import annotations

import asyncio
import secrets
from socket import socket

from local import aws
from local.account import Account
from local.asgi import LOOPBACK, Server, listen
from local.authorizer import Authorizer
from local.aws_service import Aws
from local.environment import AUTHORIZE, INGEST, INGEST_BATCH_SIZE, QUERY
from local.event_source import EventSource
from local.gateway import Gateway
from local.invoke_api import InvokeApi
from local.resources import Queues


class Entrances:
    """`door` is the bound socket of the API; `admin_token` opens Lambda's Invoke API at `admin_url`."""

    def __init__(self, account: Account, aws_service: Aws, queues: Queues, door: socket, *, grace_seconds: int) -> None:
        self.admin_token = secrets.token_hex(24)
        self._grace_seconds = grace_seconds
        self._door, self._admin_door = door, listen()
        gateway = Gateway(account[QUERY], Authorizer(account[AUTHORIZE]))
        invoke_api = InvokeApi(account.functions, token=self.admin_token)
        self._api = Server(gateway, grace_seconds=grace_seconds)
        self._admin = Server(invoke_api, grace_seconds=grace_seconds)
        self._source = EventSource(
            account[INGEST],
            aws_service.client("sqs"),
            queue_url=queues.url,
            queue_arn=queues.arn,
            region=aws.REGION,
            batch_size=INGEST_BATCH_SIZE,
            concurrency=INGEST.concurrency,
        )

    @property
    def url(self) -> str:
        return _url(self._door)

    @property
    def admin_url(self) -> str:
        return _url(self._admin_door)

    async def open(self) -> None:
        self._source.start()
        await asyncio.gather(self._api.open([self._door]), self._admin.open([self._admin_door]))

    async def close(self) -> None:
        """Let nothing in any more; what came in may finish within the grace period."""
        await asyncio.gather(
            self._api.close(), self._admin.close(), self._source.stop(timeout_seconds=self._grace_seconds)
        )


def _url(bound: socket) -> str:
    return f"http://{LOOPBACK}:{bound.getsockname()[1]}"
