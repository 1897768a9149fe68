"""Who is calling: API key → tenant, principal and role, as a policy that API Gateway caches."""

from __future__ import annotations

import gc

# Until everything is imported, which stays: looking for garbage among it again and again is a tenth of the time.
gc.disable()

from typing import TYPE_CHECKING

from rag import wiring
from rag.errors import NotAuthorizedError
from rag.types import JSON, Caller

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

# Every event needs it, somebody waits for the first one too, and Lambda gives an initialisation more CPU.
wiring.preload_settings()
# Nor will a full collection look through it.
gc.freeze()
gc.enable()


def handler(event: JSON, context: LambdaContext) -> JSON:  # noqa: ARG001 (Lambda's signature)
    headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    try:
        caller = wiring.key_store().caller(credential(headers))
    except NotAuthorizedError:
        # The one message that API Gateway turns into 401 (its developer guide, "Lambda authorizer output").
        raise Exception("Unauthorized") from None  # noqa: TRY002
    return policy(caller, event["methodArn"])


def credential(headers: dict[str, str]) -> str:
    """Return the API key of `x-api-key` or of `Authorization: Bearer`; empty when there is none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    return headers.get("x-api-key", "").strip() or bearer


def policy(caller: Caller, method_arn: str) -> JSON:
    """Allow every route of this API's stage: the verdict is cached per key, and roles are checked by each route."""
    api_and_stage = "/".join(method_arn.split("/")[:2])
    return {
        "principalId": caller.principal,
        "policyDocument": {
            "Version": "2012-10-17",
            "Statement": [{"Action": "execute-api:Invoke", "Effect": "Allow", "Resource": f"{api_and_stage}/*"}],
        },
        "context": {"tenant_id": str(caller.tenant_id), "principal": caller.principal, "role": caller.role},
    }
