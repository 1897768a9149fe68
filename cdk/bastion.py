"""A way for a person to the database: a machine without an address, reached by Session Manager."""

from __future__ import annotations

from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from constructs import Construct

from cdk.acknowledging import NIST, SOLUTIONS, accept
from cdk.cache import PORT as CACHE_PORT
from cdk.cache import Cache
from cdk.database import Database
from cdk.network import HTTPS, Network
from cdk.proxy import PORT
from cdk.stages import Stage


class Bastion(Construct):
    """`aws ssm start-session` with AWS-StartPortForwardingSessionToRemoteHost leads through it."""

    def __init__(
        self, scope: Construct, name: str, *, stage: Stage, network: Network, database: Database, cache: Cache
    ) -> None:
        super().__init__(scope, name)
        group = network.group("bastion", "The bastion: to the database, the cache, and Session Manager")
        group.add_egress_rule(ec2.Peer.any_ipv4(), HTTPS, "Session Manager")
        network.admit(group)
        database.group.connections.allow_from(group, ec2.Port.tcp(PORT), "Bastion")
        cache.group.connections.allow_from(group, ec2.Port.tcp(CACHE_PORT), "Bastion")
        host = ec2.Instance(
            self,
            "host",
            vpc=network.vpc,
            vpc_subnets=network.private,
            security_group=group,
            role=self._role(),
            instance_name=f"rag-{stage.name}-bastion",
            instance_type=ec2.InstanceType("t4g.nano"),
            machine_image=ec2.MachineImage.latest_amazon_linux2023(cpu_type=ec2.AmazonLinuxCpuType.ARM_64),
            require_imdsv2=True,
            block_devices=[
                ec2.BlockDevice(device_name="/dev/xvda", volume=ec2.BlockDeviceVolume.ebs(8, encrypted=True))
            ],
        )
        accept(
            host,
            "It holds nothing and is there as long as somebody needs it; another is a deployment away.",
            f"{SOLUTIONS}EC28",
            f"{SOLUTIONS}EC29",
            f"{NIST}EC2InstanceDetailedMonitoringEnabled",
        )

    def _role(self) -> iam.Role:
        role = iam.Role(self, "role", assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"))
        policy = iam.ManagedPolicy(
            self,
            "role-policy",
            roles=[role],
            statements=[
                iam.PolicyStatement(
                    actions=[
                        "ssm:UpdateInstanceInformation",
                        *("ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel"),
                        *("ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel"),
                    ],
                    resources=["*"],
                )
            ],
        )
        accept(policy, "Session Manager's actions know no resources.", f"{SOLUTIONS}IAM5[Resource::*]")
        return role
