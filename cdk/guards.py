"""What an account has once: who did what, what was changed, what looks like an attack."""

from __future__ import annotations

import aws_cdk
from aws_cdk import aws_cloudtrail as cloudtrail
from aws_cdk import aws_config as config
from aws_cdk import aws_guardduty as guardduty
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_securityhub as securityhub
from constructs import Construct

from cdk.acknowledging import NIST, accept
from cdk.keys import Keys
from cdk.logs import log_group
from cdk.stages import Stage


class Guards(Construct):
    """CloudTrail of all regions with every access to documents and backups, Config, GuardDuty, Security Hub."""

    def __init__(
        self, scope: Construct, name: str, *, stage: Stage, keys: Keys, logs: s3.Bucket, watched: list[s3.Bucket]
    ) -> None:
        super().__init__(scope, name)
        self._stage = stage
        self._trail(keys, logs, watched)
        self._record(logs)
        securityhub.CfnHub(self, "hub", enable_default_standards=True)
        guardduty.CfnDetector(self, "detector", enable=True, finding_publishing_frequency="FIFTEEN_MINUTES")

    def _trail(self, keys: Keys, logs: s3.Bucket, watched: list[s3.Bucket]) -> None:
        name = f"rag-{self._stage.name}"
        stack = aws_cdk.Stack.of(self)
        arn = stack.format_arn(service="cloudtrail", resource="trail", resource_name=name)
        if keys.logs:
            keys.logs.add_to_resource_policy(
                iam.PolicyStatement(
                    sid="TrailWrites",
                    principals=[iam.ServicePrincipal("cloudtrail.amazonaws.com")],
                    actions=["kms:GenerateDataKey*", "kms:DescribeKey"],
                    resources=["*"],
                    conditions={"StringEquals": {"aws:SourceArn": arn}},
                )
            )
        trail = cloudtrail.Trail(
            self,
            "trail",
            trail_name=name,
            bucket=logs,
            s3_key_prefix="trail",
            encryption_key=keys.logs,
            enable_file_validation=True,
            is_multi_region_trail=True,
            include_global_service_events=True,
            send_to_cloud_watch_logs=True,
            cloud_watch_log_group=log_group(
                self, "trail-log", stage=self._stage, keys=keys, log_group_name=f"/rag/{self._stage.name}/trail"
            ),
        )
        accept(
            trail,
            "The library makes the trail's role, with what it writes to that one log group as part of it.",
            f"{NIST}IAMNoInlinePolicy",
        )
        trail.add_s3_event_selector(
            [cloudtrail.S3EventSelector(bucket=bucket) for bucket in watched], include_management_events=True
        )

    def _record(self, logs: s3.Bucket) -> None:
        """Config's own service-linked role: no policy of ours to keep up to date."""
        role = iam.CfnServiceLinkedRole(self, "config-role", aws_service_name="config.amazonaws.com")
        stack = aws_cdk.Stack.of(self)
        recorder = config.CfnConfigurationRecorder(
            self,
            "recorder",
            role_arn=stack.format_arn(
                service="iam",
                region="",
                resource="role",
                resource_name="aws-service-role/config.amazonaws.com/AWSServiceRoleForConfig",
            ),
            recording_group=config.CfnConfigurationRecorder.RecordingGroupProperty(
                all_supported=True, include_global_resource_types=True
            ),
        )
        recorder.add_resource_dependency(role)
        principal = iam.ServicePrincipal("config.amazonaws.com")
        mine = {"aws:SourceAccount": aws_cdk.Aws.ACCOUNT_ID}
        logs.add_to_resource_policy(
            iam.PolicyStatement(
                sid="ConfigLooks",
                principals=[principal],
                actions=["s3:GetBucketAcl", "s3:ListBucket"],
                resources=[logs.bucket_arn],
                conditions={"StringEquals": mine},
            )
        )
        logs.add_to_resource_policy(
            iam.PolicyStatement(
                sid="ConfigWrites",
                principals=[principal],
                actions=["s3:PutObject"],
                resources=[logs.arn_for_objects(f"config/AWSLogs/{aws_cdk.Aws.ACCOUNT_ID}/*")],
                conditions={"StringEquals": {"s3:x-amz-acl": "bucket-owner-full-control", **mine}},
            )
        )
        channel = config.CfnDeliveryChannel(self, "channel", s3_bucket_name=logs.bucket_name, s3_key_prefix="config")
        channel.node.add_dependency(logs.policy)
