"""A new version first answers a tenth of the requests, for five minutes; when an alarm goes off, none."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_codedeploy as codedeploy
from aws_cdk import aws_iam as iam
from constructs import Construct

from cdk.acknowledging import NIST, SOLUTIONS, accept
from cdk.alarms import RUNBOOKS
from cdk.function import Function
from cdk.given import allow

_MINUTE = aws_cdk.Duration.minutes(1)


class Canary(Construct):
    """Alarms stand in the stack whose deployment they roll back."""

    def __init__(
        self, scope: Construct, name: str, *, stage: str, functions: Sequence[Function], rest: apigateway.RestApi
    ) -> None:
        super().__init__(scope, name)
        failing = self._alarm(
            f"rag-{stage}-canary-api",
            rest.metric_server_error(period=_MINUTE, statistic="sum"),
            "The API fails while a version is being deployed: the deployment is rolled back by itself.",
            at_least=5,
        )
        application = codedeploy.LambdaApplication(self, "Application", application_name=f"rag-{stage}")
        for function in functions:
            codedeploy.LambdaDeploymentGroup(
                self,
                function.row.name.capitalize(),
                application=application,
                deployment_group_name=f"rag-{stage}-{function.row.name}",
                alias=function.alias,
                role=self._role(function),
                deployment_config=codedeploy.LambdaDeploymentConfig.CANARY_10_PERCENT_5_MINUTES,
                alarms=[self._errors(stage, function), failing],
                auto_rollback=codedeploy.AutoRollbackConfig(failed_deployment=True, deployment_in_alarm=True),
            )

    def _role(self, function: Function) -> iam.IRole:
        """What CodeDeploy needs for an alias, and no more than for this one.

        The alias waits for its deployment group, and that for its role: a reference to the alias here would be a cycle.
        """
        name = function.row.name.capitalize()
        policy = iam.ManagedPolicy(
            self,
            f"{name}Policy",
            statements=[
                allow(
                    ["lambda:GetAlias", "lambda:UpdateAlias", "lambda:GetProvisionedConcurrencyConfig"],
                    function.known_arn,
                    f"{function.known_arn}:{function.alias.alias_name}",
                ),
                allow(["cloudwatch:DescribeAlarms"], "*"),
            ],
        )
        accept(policy, "CodeDeploy looks at alarms by a call that lists them all.", f"{SOLUTIONS}IAM5[Resource::*]")
        role = iam.Role(
            self,
            f"{name}Role",
            assumed_by=iam.ServicePrincipal("codedeploy.amazonaws.com"),
            managed_policies=[policy],
        )
        return role.without_policy_updates()

    def _errors(self, stage: str, function: Function) -> cloudwatch.Alarm:
        return self._alarm(
            f"rag-{stage}-canary-{function.row.name}",
            function.alias.metric_errors(period=_MINUTE, statistic="sum"),
            "The version that is being deployed crashes: the deployment is rolled back by itself.",
            at_least=1,
        )

    def _alarm(self, name: str, metric: cloudwatch.Metric, meaning: str, *, at_least: int) -> cloudwatch.Alarm:
        alarm = metric.create_alarm(
            self,
            name,
            alarm_name=name,
            alarm_description=f"{meaning} What to do: {RUNBOOKS}#canary",
            threshold=at_least,
            evaluation_periods=1,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        accept(alarm, "Its action is CodeDeploy's, which rolls the deployment back.", f"{NIST}CloudWatchAlarmAction")
        return alarm
