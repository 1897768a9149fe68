"""The Service stack: code and the ways to it; can be deleted and deployed again without loss."""

from __future__ import annotations

import aws_cdk
from aws_cdk import aws_iam as iam
from constructs import Construct

from cdk.answer import Answer
from cdk.api import Api
from cdk.authorize import Authorize
from cdk.canary import Canary
from cdk.data import DataStack
from cdk.erase import Erase
from cdk.failures import failures
from cdk.firewall import Firewall
from cdk.given import Given
from cdk.ingest import Ingest
from cdk.layers import Layers
from cdk.maintain import Maintain
from cdk.migrate import Migrate
from cdk.model_key import ModelKey, WebhookKey
from cdk.notify import Notify, event_bus
from cdk.query import Query
from cdk.reconcile import Reconcile
from cdk.schedules import Schedules
from cdk.signing import code_signing
from cdk.stack import StageStack
from cdk.stages import Stage
from cdk.tenants import Tenants
from cdk.users import Users


class ServiceStack(StageStack):
    """Layers, functions, event sources, schedules, the HTTP API and its users."""

    def __init__(self, scope: Construct, name: str, *, stage: Stage, data: DataStack) -> None:
        super().__init__(scope, name, stage=stage, description="RAG: functions, API and schedules")
        if data.boundary:
            iam.PermissionsBoundary.of(self).apply(data.boundary)
        self.failures = failures(self, "Failures", stage=stage.name, key=data.keys.data)
        self.users = Users(self, "Users", stage=stage)
        self.given = given = Given(
            stage=stage,
            data=data,
            layers=Layers(self, "Layers", stage=stage.name),
            model_key=ModelKey(self, "ModelKey", stage=stage.name, key=data.keys.data),
            failures=self.failures,
            bus=event_bus(self, "Bus", stage=stage.name),
            webhook_key=WebhookKey(self, "WebhookKey", stage=stage.name, key=data.keys.data)
            if stage.webhook_url
            else None,
            signing=code_signing(self, stage=stage.name) if stage.code_signing else None,
            users=self.users,
        )
        migrate = Migrate(self, given=given)
        query, answer, authorize = (kind(self, given=given) for kind in (Query, Answer, Authorize))
        self.ingest = ingest = Ingest(self, given=given)
        maintain, tenants = Maintain(self, given=given), Tenants(self, given=given)
        self.reconcile, self.erase = Reconcile(self, given=given), Erase(self, given=given)
        self.notify = notify = Notify(self, given=given)
        self.functions = (
            *(authorize, query, answer, ingest, migrate, maintain),
            *(self.reconcile, tenants, self.erase, notify),
        )
        migrate.before([one.alias for one in self.functions if one is not migrate])
        Schedules(self, "Schedules", given=given, functions=self.functions)
        self.api = Api(self, "Api", given=given, query=query, streaming=[answer], authorize=authorize)
        if stage.waf or stage.allowed_cidrs:
            Firewall(self, "Firewall", stage=stage, api=self.api.rest, keys=data.keys)
        if stage.canary:
            Canary(self, "Canary", stage=stage.name, functions=[query, answer], rest=self.api.rest)
        self._say(
            ApiUrl=self.api.url,
            DocumentsBucket=data.documents.bucket_name,
            ModelKeySecret=given.model_key.secret_name,
            EventBus=given.bus.event_bus_name,
            UserPool=self.users.pool.user_pool_id,
            UserPoolClient=self.users.client.user_pool_client_id,
            **{f"{one.row.name.capitalize()}Function": one.function.function_name for one in self.functions},
        )

    def _say(self, **outputs: str) -> None:
        """What commands for this stage look up."""
        for name, value in outputs.items():
            aws_cdk.CfnOutput(self, name, value=value)
