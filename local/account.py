"""The functions of the account, on one Runtime API."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from functions.table import ERASE, INGEST, MAINTAIN, FunctionRow
from local import code, environment
from local.backing import Backing
from local.code import Code
from local.environment import Addresses
from local.lambda_runtime import Function
from local.plan import Plan
from local.resources import Queues
from local.runtime_api import RuntimeApi
from local.sandbox import Launch
from local.service import ServiceError


class Account:
    """`functions` by name; their sandboxes start with the first events and see the user's own `settings` too.

    Functions run out of the repository but for those whose code is given.
    """

    def __init__(
        self,
        directory: Path,
        plan: Plan,
        backing: Backing,
        queues: Queues,
        settings: Mapping[str, str],
        packaged: Mapping[str, Code],
        *,
        issuer_url: str,
    ) -> None:
        self._scratch = directory / "tmp"
        self._logs = directory / "logs"
        self._plan = plan
        self._runtime_api = RuntimeApi(ports=sum(plan.concurrency.values()))
        arrivals = plan.queue_of(INGEST)
        addresses = Addresses(
            aws_url=backing.aws.url,
            queue_url=queues[arrivals.name].url,
            dead_letter_queue_url=queues[arrivals.dead_letters].url if arrivals.dead_letters else "",
            maintenance_queue_url=queues[plan.queue_of(MAINTAIN).name].url,
            erasure_queue_url=queues[plan.queue_of(ERASE).name].url,
            postgres_port=backing.postgres_port,
            redis_port=backing.redis_port,
            aws_credentials=backing.aws.credentials,
            issuer_url=issuer_url,
        )

        def function(row: FunctionRow) -> Function:
            ran = packaged.get(row.name) or code.of_repository()
            told = plan.settings_of(row, addresses, backing.model)
            variables = environment.environment_of(row, addresses, backing.model, settings, ran, told)
            return self._function(row, ran, variables)

        self.functions: Mapping[str, Function] = {row.name: function(row) for row in plan.functions}

    def __getitem__(self, row: FunctionRow) -> Function:
        return self.functions[row.name]

    async def open(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)  # of sandboxes that were killed together with their supervisor
        await self._runtime_api.open()

    async def close(self, *, drain_seconds: float) -> None:
        """Let running invocations finish for so long, then kill every sandbox."""
        functions = self.functions.values()
        await asyncio.gather(*(function.drain(timeout_seconds=drain_seconds) for function in functions))
        await asyncio.gather(*(function.close() for function in functions))
        await self._runtime_api.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    async def call(self, row: FunctionRow, event: Any) -> Any:
        """What the function returns; ServiceError with its message when it fails."""
        invocation = await self[row].invoke(json.dumps(event).encode())
        if invocation.function_error:
            message = json.loads(invocation.payload).get("errorMessage")
            raise ServiceError(f"the function {row.name} failed: {message}\nIts log: {self._log(row)}")
        return json.loads(invocation.payload)

    async def warm(self) -> None:
        """Start a sandbox of each function that somebody may soon be waiting for."""
        for row in self._plan.functions:
            if row.warm:
                await self[row].warm()

    def _log(self, row: FunctionRow) -> Path:
        return self._logs / f"{row.name}.log"

    def _function(self, row: FunctionRow, ran: Code, variables: Mapping[str, str]) -> Function:
        launch = Launch(
            name=row.name,
            handler=row.handler,
            environment=variables,
            task_root=ran.task_root,
            scratch=self._scratch,
            log=self._log(row),
            python=ran.python,
        )
        return Function(
            launch,
            self._runtime_api,
            function_arn=environment.function_arn(row),
            timeout_seconds=row.timeout_seconds,
            memory_mib=row.memory_mib,
            concurrency=self._plan.concurrency[row.name],
        )
