"""Who is calling: API key or access token → tenant, principal and role, as a policy for this one request."""

from __future__ import annotations

import gc

# Until everything is imported, which stays: looking for garbage among it again and again is a tenth of the time.
gc.disable()

from typing import TYPE_CHECKING

from functions.authorize.presented import presented
from rag import calling, keys, wiring
from rag.errors import ForbiddenError, NotAuthorizedError
from rag.types import JSON, Caller

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

# Every event needs it, somebody waits for the first one too, and Lambda gives an initialisation more CPU.
wiring.preload_settings()
# Nor will a full collection look through it.
gc.freeze()
gc.enable()


def handler(event: JSON, context: LambdaContext) -> JSON:
    wiring.until_the_end(context, margin_seconds=wiring.LAST_SECONDS)
    try:
        return allowed(caller(*presented(event)), event["methodArn"])
    except ForbiddenError:
        return policy("nobody", "Deny", event["methodArn"])
    except NotAuthorizedError:
        # The one message that API Gateway turns into 401 (its developer guide, "Lambda authorizer output").
        raise Exception("Unauthorized") from None  # noqa: TRY002


def caller(api_key: str, bearer: str) -> Caller:
    """Return whose credential it is: the API key of `x-api-key`, or what is in `Authorization: Bearer`."""
    if api_key or keys.is_meant(bearer) or not wiring.settings().oidc:
        return wiring.key_store().caller(api_key or bearer)
    return user(bearer)


def user(token: str) -> Caller:
    return wiring.key_store().user(wiring.access_tokens().caller(token))


def allowed(caller: Caller, method_arn: str) -> JSON:
    """Let this caller in at every route of this API's stage; what its role may do there each route checks."""
    return {**policy(caller.principal, "Allow", method_arn), "context": calling.context(caller)}


def policy(principal: str, effect: str, method_arn: str) -> JSON:
    api_and_stage = "/".join(method_arn.split("/")[:2])
    return {
        "principalId": principal,
        "policyDocument": {
            "Version": "2012-10-17",
            "Statement": [{"Action": "execute-api:Invoke", "Effect": effect, "Resource": f"{api_and_stage}/*"}],
        },
    }
