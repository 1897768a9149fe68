"""The services that functions lean on: started side by side, kept alive, stopped together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from functions.table import OWNER
from local import environment, resources
from local.aws_service import Aws
from local.environment import Model
from local.keeper import Keeper, Service
from local.model_service import ModelServer
from local.plan import Plan
from local.postgres import Postgres
from local.resources import Queues
from local.valkey import Valkey

OnEvent = Callable[[str, float], None]


class Backing:
    """PostgreSQL, Valkey, the local AWS, and a model server unless a real one is named.

    `on_event` hears the name of each part and the seconds that it took.
    """

    def __init__(self, directory: Path, plan: Plan, real_model: Model | None, on_event: OnEvent) -> None:
        self._plan = plan
        self._postgres = Postgres(directory / "postgres")
        self._valkey = Valkey(directory / "valkey")
        self._aws = Aws(directory / "aws")
        self._models = None if real_model else ModelServer(directory / "logs")
        self._real_model = real_model
        self._on_event = on_event
        services: dict[str, Service | None] = {
            "postgres": self._postgres,
            "valkey": self._valkey,
            "aws": self._aws,
            "models": self._models,
        }
        self._keepers = {name: Keeper(one) for name, one in services.items() if one}

    @property
    def aws(self) -> Aws:
        return self._aws

    @property
    def postgres_port(self) -> int:
        return self._postgres.port

    @property
    def redis_port(self) -> int:
        return self._valkey.port

    @property
    def model(self) -> Model:
        if self._models:
            return environment.local_model(self._models.url)
        assert self._real_model is not None  # noqa: S101  (one of the two is there)
        return self._real_model

    @property
    def pids(self) -> dict[str, int]:
        """Process id by name of service."""
        services = {name: keeper.service.process for name, keeper in self._keepers.items()}
        return {name: process.pid for name, process in services.items() if process}

    async def start_models(self) -> None:
        """By itself, because nothing else that has to be prepared needs it."""
        if self._models:
            await self._start("models")

    async def start(self) -> Queues:
        """Return when all others answer and hold what a deployment creates; ServiceErrors come in an ExceptionGroup."""
        async with asyncio.TaskGroup() as group:
            started = {name: group.create_task(self._start(name)) for name in self._keepers if name != "models"}
            account = group.create_task(self._create_resources(started["aws"], started["valkey"]))
            group.create_task(self._create_database(started["postgres"], account))
        return account.result()

    async def stop(self) -> None:
        await asyncio.gather(*(keeper.stop() for keeper in self._keepers.values()), return_exceptions=True)

    async def keep(self, on_restart: Callable[[], None]) -> NoReturn:
        """Start again whatever dies; raises an ExceptionGroup of ServiceError when one does not stay alive."""
        async with asyncio.TaskGroup() as group:
            for keeper in self._keepers.values():
                group.create_task(keeper.keep(on_restart))
        raise AssertionError("a keeper ends only by an error")

    async def _start(self, name: str) -> None:
        began = time.monotonic()
        await self._keepers[name].start()
        self._on_event(name, time.monotonic() - began)

    async def _create_resources(self, *needed: asyncio.Task[None]) -> Queues:
        # The SDK takes 0.4 s to import: while the services start, not after.
        await asyncio.to_thread(__import__, "boto3")
        await asyncio.gather(*needed)
        key = self._real_model.api_key if self._real_model else None
        began = time.monotonic()
        queues = await asyncio.to_thread(
            resources.create, self._aws, self._plan, redis_password=self._valkey.password, model_key=key
        )
        self._on_event("resources", time.monotonic() - began)
        return queues

    async def _create_database(self, postgres: asyncio.Task[None], account: asyncio.Task[Queues]) -> None:
        await asyncio.gather(postgres, account)
        began = time.monotonic()
        await asyncio.to_thread(self._create_owner_and_database)
        self._on_event("database", time.monotonic() - began)

    def _create_owner_and_database(self) -> None:
        secret = environment.database_secret(OWNER)
        password = self._aws.client("secretsmanager").get_secret_value(SecretId=secret)["SecretString"]
        self._postgres.create_database(environment.DATABASE, owner=OWNER, password=password)
