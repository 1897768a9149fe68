"""What EventBridge Scheduler does: functions that have a schedule are invoked on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from functions.table import FunctionRow
from local.account import Account
from local.lambda_runtime import ThrottledError
from local.service import ServiceError

logger = logging.getLogger(__name__)


async def run(account: Account, rows: Iterable[FunctionRow]) -> None:
    """Invoke each scheduled function once per period, the first time after a whole one; until cancelled."""
    async with asyncio.TaskGroup() as group:
        for row in rows:
            if row.schedule_seconds:
                group.create_task(_repeat(account, row, row.schedule_seconds))


async def _repeat(account: Account, row: FunctionRow, seconds: int) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await account.call(row, {})
        except (ServiceError, ThrottledError) as error:
            logger.warning("the schedule of %s goes on after: %s", row.name, error)
