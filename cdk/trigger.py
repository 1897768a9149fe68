"""What the CDK invokes a function with while it deploys: a function of its own, made here as ours are."""

from __future__ import annotations

import aws_cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from cdk.acknowledging import SOLUTIONS, accept
from cdk.given import TRACING, Given, allow
from cdk.logs import log_group

_PROVIDER = "AWSCDK.TriggerCustomResourceProviderCustomResourceProvider"


class Provider(Construct):
    """Limits what comes with `triggers.Trigger`: its log ends, and its role invokes one function and no more.

    It stays outside of the network, because it speaks to Lambda and CloudFormation and to nothing of ours.
    """

    def __init__(self, scope: Construct, name: str, *, given: Given, invoked: lambda_.Function) -> None:
        super().__init__(scope, name)
        called = f"rag-{given.stage.name}-deployed"
        logs = log_group(self, "Logs", stage=given.stage, keys=given.data.keys, log_group_name=f"/aws/lambda/{called}")
        policy = iam.ManagedPolicy(
            self,
            "Policy",
            statements=[
                allow(["lambda:InvokeFunction"], f"{invoked.function_arn}:*"),
                allow(["logs:CreateLogStream", "logs:PutLogEvents"], logs.log_group_arn),
                allow(TRACING, "*"),
                *given.failing(),
            ],
        )
        stack = aws_cdk.Stack.of(self)
        accept(policy, "Traces are written to X-Ray, whose calls take no resource.", f"{SOLUTIONS}IAM5[Resource::*]")
        logical_id = stack.resolve(invoked.node.default_child.logical_id)
        accept(
            policy,
            "Each deployment invokes another version of the one function.",
            f"{SOLUTIONS}IAM5[Resource::<{logical_id}.Arn>:*]",
        )
        provider = stack.node.find_child(_PROVIDER)
        role = provider.node.find_child("Role")
        role.add_property_override("ManagedPolicyArns", [policy.managed_policy_arn])
        role.add_property_deletion_override("Policies")
        key = given.data.keys.data
        made = {
            "FunctionName": called,
            "Architectures": ["arm64"],
            "TracingConfig": {"Mode": "Active"},
            "LoggingConfig": {"LogFormat": "JSON", "LogGroup": logs.log_group_name},
            "DeadLetterConfig": {"TargetArn": given.failures.queue_arn},
            "KmsKeyArn": key.key_arn if key else None,
            "ReservedConcurrentExecutions": 1 if given.stage.reserve_concurrency else None,
        }
        for name_of, value in made.items():
            if value is not None:
                provider.node.find_child("Handler").add_property_override(name_of, value)
