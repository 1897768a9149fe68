"""The database comes to the schema of new code before that code takes traffic."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk
from aws_cdk import triggers
from constructs import Construct, IConstruct

from cdk.function import Function
from cdk.given import Given
from cdk.trigger import Provider
from functions.table import MIGRATE


class Migrate(Function):
    """Invoked by the deployment itself whenever its version is a new one: its code, its layers or its settings."""

    def __init__(self, scope: Construct, *, given: Given) -> None:
        super().__init__(scope, row=MIGRATE, given=given)
        self._trigger = triggers.Trigger(
            self,
            "Deployed",
            handler=self.function,
            # A migration that fails, or takes longer than the function may, fails the deployment.
            invocation_type=triggers.InvocationType.REQUEST_RESPONSE,
            timeout=aws_cdk.Duration.seconds(MIGRATE.timeout_seconds),
        )
        Provider(self, "Provider", given=given, invoked=self.function)

    def before(self, later: Sequence[IConstruct]) -> None:
        """None of these is made or changed until the migrations are through."""
        self._trigger.execute_before(*later)
