"""What became of documents is told: to the bus, and to the stage's webhook if it has one."""

from __future__ import annotations

from aws_cdk import aws_events as events
from constructs import Construct

from cdk.function import Function
from cdk.given import Given, allow
from functions.table import NOTIFY


class Notify(Function):
    """What ingest could not tell; it alone signs the webhook's requests."""

    def __init__(self, scope: Construct, *, given: Given) -> None:
        key = given.webhook_key
        signing = [allow(["secretsmanager:GetSecretValue"], key.secret_arn)] if key else []
        super().__init__(scope, row=NOTIFY, given=given, statements=signing)


def event_bus(scope: Construct, name: str, *, stage: str) -> events.EventBus:
    """The bus that other programs put their rules on."""
    return events.EventBus(
        scope, name, event_bus_name=f"rag-{stage}", description="Documents that became ready, or failed"
    )
