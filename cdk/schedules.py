"""EventBridge Scheduler: functions whose row says so are invoked with `{}` at a fixed rate."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_scheduler_targets as targets
from constructs import Construct

from cdk.function import Function
from cdk.given import Given, allow


class Schedules(Construct):
    """What cannot be delivered, after retries, ends in the queue of failures."""

    def __init__(self, scope: Construct, name: str, *, given: Given, functions: Sequence[Function]) -> None:
        super().__init__(scope, name)
        stage = given.stage.name
        group = scheduler.ScheduleGroup(
            self, "Group", schedule_group_name=f"rag-{stage}", removal_policy=aws_cdk.RemovalPolicy.DESTROY
        )
        scheduled = [one for one in functions if one.row.schedule_seconds]
        role = self._role(given, scheduled)
        for function in scheduled:
            seconds = function.row.schedule_seconds or 0
            scheduler.Schedule(
                self,
                function.row.name.capitalize(),
                schedule_name=f"rag-{stage}-{function.row.name}",
                schedule_group=group,
                schedule=scheduler.ScheduleExpression.rate(aws_cdk.Duration.seconds(seconds)),
                time_window=scheduler.TimeWindow.off(),
                key=given.data.keys.data,
                target=targets.LambdaInvoke(
                    function.alias,
                    input=scheduler.ScheduleTargetInput.from_object({}),
                    role=role,
                    dead_letter_queue=given.failures,
                    retry_attempts=2,
                    # The next one is as good.
                    max_event_age=aws_cdk.Duration.seconds(seconds),
                ),
            )

    def _role(self, given: Given, scheduled: Sequence[Function]) -> iam.IRole:
        policy = iam.ManagedPolicy(
            self,
            "Policy",
            statements=[
                allow(["lambda:InvokeFunction"], *(one.alias.function_arn for one in scheduled)),
                *given.failing(),
            ],
        )
        role = iam.Role(
            self, "Role", assumed_by=iam.ServicePrincipal("scheduler.amazonaws.com"), managed_policies=[policy]
        )
        return role.without_policy_updates()
