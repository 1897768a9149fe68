"""What is done by the functions themselves before anybody may call them: the schema, and the first tenant."""

from __future__ import annotations

import asyncio
import secrets
import time
from pathlib import Path

from functions.table import MIGRATE, TENANTS
from local import service
from local.account import Account
from local.backing import OnEvent


async def prepared(account: Account, directory: Path, on_event: OnEvent) -> dict[str, str]:
    """Bring the database to the schema of this code; `tenant_id` and `api_key` of the first tenant."""
    began = time.monotonic()
    await account.call(MIGRATE, {})
    on_event("migrate", time.monotonic() - began)
    began = time.monotonic()
    tenant = await _first_tenant(account, directory)
    on_event("tenant", time.monotonic() - began)
    # Their work is done for a long time, and each holds 50 MB.
    await asyncio.gather(account[MIGRATE].close(), account[TENANTS].close())
    return tenant


async def _first_tenant(account: Account, directory: Path) -> dict[str, str]:
    """`tenant_id` and `api_key` of the tenant that is made at the very first start; the key is written last."""
    tenant_file, key_file = directory / "tenant-id", directory / "api-key"
    if not key_file.exists():
        # A start that was killed between the two may have left a tenant whose key nobody has.
        name = f"local-{secrets.token_hex(3)}" if tenant_file.exists() else "local"
        service.write_private(tenant_file, "")
        made = await account.call(TENANTS, {"action": "create", "name": name})
        service.write_private(tenant_file, made["tenant_id"])
        service.write_private(key_file, made["api_key"])
    return {"tenant_id": tenant_file.read_text(), "api_key": key_file.read_text()}
