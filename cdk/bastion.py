"""A way for a person to the database: a machine without an address, reached by Session Manager."""

from __future__ import annotations

from aws_cdk import aws_ec2 as ec2
from constructs import Construct

from cdk.cache import PORT as CACHE_PORT
from cdk.cache import Cache
from cdk.database import PORT, Database
from cdk.network import HTTPS, Network
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
        ec2.BastionHostLinux(
            self,
            "host",
            vpc=network.vpc,
            subnet_selection=network.private,
            security_group=group,
            instance_name=f"rag-{stage.name}-bastion",
            instance_type=ec2.InstanceType("t4g.nano"),
            machine_image=ec2.MachineImage.latest_amazon_linux2023(cpu_type=ec2.AmazonLinuxCpuType.ARM_64),
            require_imdsv2=True,
            block_devices=[
                ec2.BlockDevice(device_name="/dev/xvda", volume=ec2.BlockDeviceVolume.ebs(8, encrypted=True))
            ],
        )
