"""The schedule of functions on this machine."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from functions.table import FunctionRow
from local import clock
from local.lambda_runtime import ThrottledError
from local.service import ServiceError


class Account:
    """Answers in the place of the functions; fails the first time."""

    def __init__(self, failure: Exception) -> None:
        self.failure = failure
        self.called: list[tuple[str, Any]] = []
        self.again = asyncio.Event()

    async def call(self, row: FunctionRow, event: Any) -> None:
        self.called.append((row.name, event))
        if len(self.called) == 1:
            raise self.failure
        self.again.set()


@pytest.mark.parametrize("failure", [ServiceError("not this time"), ThrottledError("busy")])
def test_a_scheduled_function_is_invoked_again_and_again_even_after_it_failed(failure: Exception) -> None:
    rows = [FunctionRow(name, 1, 128, "role", schedule_seconds=seconds) for name, seconds in (("a", 0), ("b", None))]
    soon = FunctionRow("soon", 1, 128, "role", schedule_seconds=1)
    account: Any = Account(failure)

    async def story() -> None:
        running = asyncio.create_task(clock.run(account, [*rows, soon]))
        await asyncio.wait_for(account.again.wait(), 60)
        running.cancel()

    asyncio.run(story())
    assert account.called == [("soon", {}), ("soon", {})]
