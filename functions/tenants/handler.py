"""Administrators' work on tenants: `{"action": "create", "name": …}` → `{"tenant_id", "api_key"}`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag import telemetry, wiring
from rag.errors import InvalidRequestError
from rag.types import JSON

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

logger = telemetry.logger()


@logger.inject_lambda_context
def handler(event: JSON, context: LambdaContext) -> JSON:  # noqa: ARG001 (Lambda's signature)
    match event:
        case {"action": "create", "name": str(name)} if 0 < len(name.strip()) <= 200 and name.isprintable():
            tenant_id, api_key = wiring.tenant_store().create(name.strip())
            logger.info("tenant created", tenant_id=str(tenant_id))
            return {"tenant_id": str(tenant_id), "api_key": api_key}
        case _:
            msg = 'expected {"action": "create", "name": "1 to 200 printable characters"}'
            raise InvalidRequestError(msg)
