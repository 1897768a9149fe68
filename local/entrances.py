"""Where events come in: the API's port, the administrators' port, the queues."""

from __future__ import annotations

import asyncio
import secrets
from socket import socket

from functions.table import AUTHORIZE
from local import aws
from local.account import Account
from local.asgi import Server, listen
from local.authorizer import Authorizer
from local.aws_service import Aws
from local.event_source import EventSource
from local.gateway import Gateway
from local.invoke_api import InvokeApi
from local.issuer import Issuer, Users, url_of
from local.plan import Plan, Source
from local.resources import Queues


class Entrances:
    """`door` and `issuer_door` are the bound sockets of the API and of the issuer of tokens for these `users`.

    `admin_token` opens Lambda's Invoke API at `admin_url`, and administers users.
    """

    def __init__(
        self,
        account: Account,
        plan: Plan,
        aws_service: Aws,
        queues: Queues,
        door: socket,
        users: Users,
        issuer_door: socket,
        *,
        grace_seconds: int,
    ) -> None:
        self.admin_token = secrets.token_hex(24)
        self._grace_seconds = grace_seconds
        self._door, self._admin_door, self._issuer_door = door, listen(), issuer_door
        authorizer = Authorizer(account[AUTHORIZE], cache_seconds=plan.verdict_seconds)
        gateway = Gateway(account.functions, plan.routes, authorizer)
        invoke_api = InvokeApi(account.functions, token=self.admin_token)
        self._api = Server(gateway, grace_seconds=grace_seconds)
        self._admin = Server(invoke_api, grace_seconds=grace_seconds)
        self._issuer = Server(Issuer(users, self.issuer_url, admin_token=self.admin_token), grace_seconds=grace_seconds)

        hidden = {queue.name: queue.visibility_seconds for queue in plan.queues}

        def fed(source: Source) -> EventSource:
            return EventSource(
                account.functions[source.function],
                aws_service.client("sqs"),
                queue_url=queues[source.queue].url,
                queue_arn=queues[source.queue].arn,
                region=aws.REGION,
                batch_size=source.batch_size,
                visibility_seconds=hidden[source.queue],
                window_seconds=source.window_seconds,
                concurrency=source.concurrency,
                reports_failures=source.reports_failures,
            )

        self._sources = [fed(source) for source in plan.sources]

    @property
    def url(self) -> str:
        return url_of(self._door)

    @property
    def admin_url(self) -> str:
        return url_of(self._admin_door)

    @property
    def issuer_url(self) -> str:
        return url_of(self._issuer_door)

    async def open(self) -> None:
        for source in self._sources:
            source.start()
        await asyncio.gather(
            self._api.open([self._door]), self._admin.open([self._admin_door]), self._issuer.open([self._issuer_door])
        )

    async def close(self) -> None:
        """Let nothing in any more; what came in may finish within the grace period."""
        await asyncio.gather(
            self._api.close(),
            self._admin.close(),
            self._issuer.close(),
            *(source.stop(timeout_seconds=self._grace_seconds) for source in self._sources),
        )
