"""The network: data in isolated subnets, functions in private ones, and one way out."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import Aws
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from cdk.acknowledging import NIST, SOLUTIONS, accept
from cdk.keys import Keys
from cdk.logs import log_group
from cdk.roles import service_role
from cdk.stages import Stage

HTTPS = ec2.Port.tcp(443)
ENDPOINTS = {
    "secretsmanager": ec2.InterfaceVpcEndpointAwsService.SECRETS_MANAGER,
    "sqs": ec2.InterfaceVpcEndpointAwsService.SQS,
    "logs": ec2.InterfaceVpcEndpointAwsService.CLOUDWATCH_LOGS,
    "monitoring": ec2.InterfaceVpcEndpointAwsService.CLOUDWATCH_MONITORING,
    "xray": ec2.InterfaceVpcEndpointAwsService.XRAY,
    "kms": ec2.InterfaceVpcEndpointAwsService.KMS,
    "sts": ec2.InterfaceVpcEndpointAwsService.STS,
}


class Network(Construct):
    """`vpc`, the subnets `private` (functions) and `isolated` (data), and `functions_group`.

    Functions reach the database, the cache, and HTTPS: a model server has no address that a rule could name.
    """

    def __init__(self, scope: Construct, name: str, *, stage: Stage, keys: Keys, buckets: Sequence[s3.IBucket]) -> None:
        super().__init__(scope, name)
        self._stage, self._keys = stage, keys
        self.private = ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS)
        self.isolated = ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_ISOLATED)
        nat = None if stage.nat == "gateways" else self._nat_provider()
        self.vpc = ec2.Vpc(
            self,
            "vpc",
            vpc_name=f"rag-{stage.name}",
            ip_addresses=ec2.IpAddresses.cidr("10.0.0.0/16"),
            max_azs=stage.zones,
            nat_gateways=1 if nat else stage.zones,
            nat_gateway_provider=nat,
            restrict_default_security_group=True,
            subnet_configuration=[
                ec2.SubnetConfiguration(
                    name="public", subnet_type=ec2.SubnetType.PUBLIC, cidr_mask=26, map_public_ip_on_launch=False
                ),
                ec2.SubnetConfiguration(name="private", subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS, cidr_mask=20),
                ec2.SubnetConfiguration(name="isolated", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED, cidr_mask=24),
            ],
        )
        self.functions_group = self.group("functions", "All functions: to the database, the cache, and HTTPS")
        self.functions_group.add_egress_rule(ec2.Peer.any_ipv4(), HTTPS, "Model server and AWS")
        accept(
            self.vpc,
            "The public subnets hold the way out and nothing else; nothing there accepts a connection from outside.",
            f"{NIST}VPCNoUnrestrictedRouteToIGW",
        )
        self._nat, self._endpoints = nat, None
        if nat:
            self._restrict(nat)
        self._reach_buckets(buckets)
        if stage.interface_endpoints:
            self._endpoints = self._reach_services()
        self.admit(self.functions_group)
        self._log_flows()

    def admit(self, group: ec2.SecurityGroup) -> None:
        """Let this group through what stands between it and the services that it calls."""
        if self._nat:
            self._nat.security_group.add_ingress_rule(group, HTTPS, "What is sent out")
        if self._endpoints:
            self._endpoints.add_ingress_rule(group, HTTPS, "What calls AWS")

    def group(self, name: str, description: str) -> ec2.SecurityGroup:
        """A security group that lets nothing in or out until it is told so."""
        return ec2.SecurityGroup(
            self, name, vpc=self.vpc, description=description, allow_all_outbound=False, allow_all_ipv6_outbound=False
        )

    def _nat_provider(self) -> ec2.NatInstanceProviderV2:
        return ec2.NatProvider.instance_v2(
            instance_type=ec2.InstanceType("t4g.nano"),
            machine_image=ec2.MachineImage.latest_amazon_linux2023(cpu_type=ec2.AmazonLinuxCpuType.ARM_64),
            default_allowed_traffic=ec2.NatTrafficDirection.NONE,
            associate_public_ip_address=True,
        )

    def _restrict(self, nat: ec2.NatInstanceProviderV2) -> None:
        nat.security_group.add_egress_rule(ec2.Peer.any_ipv4(), HTTPS, "What is sent out, and its own packages")
        for instance in nat.gateway_instances:
            resource = instance.node.default_child
            resource.metadata_options = ec2.CfnInstance.MetadataOptionsProperty(http_tokens="required")
            disk = ec2.CfnInstance.EbsProperty(encrypted=True, volume_type="gp3", volume_size=8)
            resource.block_device_mappings = [
                ec2.CfnInstance.BlockDeviceMappingProperty(device_name="/dev/xvda", ebs=disk)
            ]
            accept(
                instance,
                "A router of a development stage, replaced by deploying again; detailed monitoring costs half of it.",
                f"{SOLUTIONS}EC28",
                f"{SOLUTIONS}EC29",
                f"{NIST}EC2InstanceDetailedMonitoringEnabled",
            )
            accept(
                instance,
                "It is in the network by its interface, whose address is the one that everything else goes out by.",
                f"{NIST}EC2InstanceNoPublicIp",
                f"{NIST}EC2InstancesInVPC",
            )

    def _reach_buckets(self, buckets: Sequence[s3.IBucket]) -> None:
        """Let S3 be reached without the way out, and only buckets of this stage by whoever is of this account."""
        endpoint = self.vpc.add_gateway_endpoint(
            "s3", service=ec2.GatewayVpcEndpointAwsService.S3, subnets=[self.private, self.isolated]
        )
        mine = {"StringEquals": {"aws:PrincipalAccount": Aws.ACCOUNT_ID}}
        for actions, resources in (
            (("s3:ListBucket", "s3:ListBucketVersions", "s3:GetBucketLocation"), [b.bucket_arn for b in buckets]),
            (
                (
                    *("s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectAttributes", "s3:GetObjectTagging"),
                    *("s3:PutObject", "s3:PutObjectTagging", "s3:DeleteObject", "s3:DeleteObjectVersion"),
                    *("s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"),
                ),
                [b.arn_for_objects("*") for b in buckets],
            ),
        ):
            endpoint.add_to_policy(
                iam.PolicyStatement(
                    principals=[iam.AnyPrincipal()], actions=list(actions), resources=resources, conditions=mine
                )
            )

    def _reach_services(self) -> ec2.SecurityGroup:
        group = self.group("endpoints", "Interface endpoints: HTTPS from functions")
        for name, service in ENDPOINTS.items():
            endpoint = self.vpc.add_interface_endpoint(
                name, service=service, subnets=self.private, open=False, security_groups=[group]
            )
            endpoint.add_to_policy(
                iam.PolicyStatement(
                    principals=[iam.AnyPrincipal()],
                    actions=[f"{name if name != 'monitoring' else 'cloudwatch'}:*"],
                    resources=["*"],
                    conditions={"StringEquals": {"aws:PrincipalAccount": Aws.ACCOUNT_ID}},
                )
            )
        return group

    def _log_flows(self) -> None:
        group = log_group(
            self,
            "flows",
            stage=self._stage,
            keys=self._keys,
            log_group_name=f"/rag/{self._stage.name}/flows",
            days=self._stage.flow_log_days,
        )
        role = service_role(
            self,
            "flow-logs",
            service="vpc-flow-logs",
            names_account=True,
            statements=[
                iam.PolicyStatement(
                    actions=["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
                    resources=[group.log_group_arn],
                )
            ],
        )
        self.vpc.add_flow_log(
            "flow-log",
            destination=ec2.FlowLogDestination.to_cloud_watch_logs(group, role.without_policy_updates()),
            traffic_type=ec2.FlowLogTrafficType.ALL,
        )
