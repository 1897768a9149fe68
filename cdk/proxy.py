"""The proxy before the database: a few connections for many functions, and end-to-end IAM."""

from __future__ import annotations

from collections.abc import Iterable

import aws_cdk
from aws_cdk import Duration
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_rds as rds
from constructs import Construct

from cdk.network import Network
from cdk.roles import service_role
from cdk.stages import Stage

PORT = 5432


def connecting(scope: Construct, resource_id: str, roles: Iterable[str]) -> iam.PolicyStatement:
    """Lets an identity connect as these database roles to the instance or proxy of this id."""
    stack = aws_cdk.Stack.of(scope)
    users = [
        stack.format_arn(
            service="rds-db",
            resource="dbuser",
            resource_name=f"{resource_id}/{role}",
            arn_format=aws_cdk.ArnFormat.COLON_RESOURCE_NAME,
        )
        for role in roles
    ]
    return iam.PolicyStatement(actions=["rds-db:connect"], resources=users)


def database_proxy(
    scope: Construct,
    *,
    stage: Stage,
    network: Network,
    target: rds.IDatabaseInstance,
    connects: iam.PolicyStatement,
    log: logs.LogGroup,
) -> rds.DatabaseProxy:
    """A proxy whose own role `connects` as the database role that the function asked for."""
    group = network.group("proxy", "The proxy: from functions")
    group.connections.allow_from(network.functions_group, ec2.Port.tcp(PORT), "Functions")
    proxy = rds.DatabaseProxy(
        scope,
        "proxy",
        db_proxy_name=f"rag-{stage.name}",
        proxy_target=rds.ProxyTarget.from_instance(target),
        default_auth_scheme=rds.DefaultAuthScheme.IAM_AUTH,
        role=service_role(scope, "proxy-role", service="rds", statements=[connects]),
        vpc=network.vpc,
        vpc_subnets=network.isolated,
        security_groups=[group],
        require_tls=True,
        idle_client_timeout=Duration.minutes(15),
        borrow_timeout=Duration.seconds(5),
        max_connections_percent=80,
        max_idle_connections_percent=20,
    )
    proxy.node.add_dependency(log)
    return proxy
