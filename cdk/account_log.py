"""The account's one role for the logs of API Gateway, which each of its stages needs."""

from __future__ import annotations

import aws_cdk
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_iam as iam
from constructs import Construct

from cdk.acknowledging import SOLUTIONS, accept
from cdk.given import allow


class AccountLog(Construct):
    """Every stage's deployment names it anew; it stays when a stage goes, because other APIs may log by it."""

    def __init__(self, scope: Construct, name: str) -> None:
        super().__init__(scope, name)
        policy = iam.ManagedPolicy(
            self,
            "Policy",
            statements=[
                allow(
                    [
                        "logs:CreateLogGroup",
                        "logs:CreateLogStream",
                        "logs:DescribeLogGroups",
                        "logs:DescribeLogStreams",
                        "logs:PutLogEvents",
                        "logs:GetLogEvents",
                        "logs:FilterLogEvents",
                    ],
                    "*",
                )
            ],
        )
        accept(
            policy,
            "API Gateway writes to groups that it names itself, of every API in the account.",
            f"{SOLUTIONS}IAM5[Resource::*]",
        )
        principal = iam.ServicePrincipal("apigateway.amazonaws.com")
        role = iam.Role(self, "Role", assumed_by=principal, managed_policies=[policy])
        account = apigateway.CfnAccount(self, "Account", cloud_watch_role_arn=role.role_arn)
        for resource in (policy.node.default_child, role.node.default_child, account):
            resource.apply_removal_policy(aws_cdk.RemovalPolicy.RETAIN)
