"""The platform with limits that never refuse, and beside its API a door to the pipeline without access control.

python -m tests.benchmarks.two_doors DIRECTORY
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from functions.table import QUERY, FunctionRow
from local import environment, platform
from local.environment import Addresses, Model
from local.plan import Plan, Route, of_the_table
from tests.benchmarks import door

# Each request of a credential is counted, as wherever it is not a laptop.
LIMITED = {"RAG_RATE_LIMIT_REQUESTS": "1000000", "RAG_TENANT_RATE_LIMIT_REQUESTS": "1000000"}


class Unauthenticated(FunctionRow):
    @property
    def handler(self) -> str:
        return door.HANDLER


ROW = Unauthenticated("unauthenticated", QUERY.timeout_seconds, QUERY.memory_mib, QUERY.role, QUERY.uses)


def plan(directory: Path) -> Plan:
    """As a laptop has it, and the other door."""
    usual = of_the_table()

    def settings_of(row: FunctionRow, addresses: Addresses, model: Model) -> Mapping[str, str]:
        settings = {**environment.settings_of(row, addresses, model), **LIMITED}
        if row is not ROW:
            return settings
        # A database of its own in the cache: what one door has embedded must not spare the other one the model.
        redis_url = f"redis://127.0.0.1:{addresses.redis_port}/1"
        return {**settings, "RAG_REDIS_URL": redis_url, door.DIRECTORY: str(directory.resolve())}

    return replace(
        usual,
        functions=(*usual.functions, ROW),
        concurrency={**usual.concurrency, ROW.name: 1},
        settings_of=settings_of,
        routes=(Route("POST", door.PATH, ROW.name, authorized=False), *usual.routes),
    )


if __name__ == "__main__":
    platform.run(Path(sys.argv[1]), plan=plan(Path(sys.argv[1])))
