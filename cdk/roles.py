"""Roles that AWS's own services take, and what no role of a stage may exceed."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk
from aws_cdk import aws_iam as iam
from constructs import Construct

from cdk.acknowledging import SOLUTIONS, accept
from cdk.stages import Stage

# Whatever a role of any stack is granted must be in here; a test compares.
BOUNDARY = (
    *("backup:CopyFromBackupVault", "backup:CopyIntoBackupVault", "backup:DescribeBackupVault"),
    *("cloudformation:DescribeStacks", "cloudwatch:DescribeAlarms", "cloudwatch:PutMetricData"),
    *("ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface"),
    *("ec2:DescribeNetworkInterfaces", "ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeVpcs"),
    *("ec2:GetSecurityGroupsForVpc", "ec2:UnassignPrivateIpAddresses"),
    *("ec2:AuthorizeSecurityGroupEgress", "ec2:AuthorizeSecurityGroupIngress"),
    *("ec2:RevokeSecurityGroupEgress", "ec2:RevokeSecurityGroupIngress"),
    *("events:PutEvents", "kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey"),
    *("kms:ReEncryptFrom", "kms:ReEncryptTo"),
    *(
        "lambda:GetAlias",
        "lambda:GetFunction",
        "lambda:GetFunctionConfiguration",
        "lambda:GetProvisionedConcurrencyConfig",
    ),
    *("lambda:InvokeFunction", "lambda:ListVersionsByFunction", "lambda:UpdateAlias"),
    *("logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogGroups", "logs:DescribeLogStreams"),
    *("logs:FilterLogEvents", "logs:GetLogEvents", "logs:PutLogEvents", "logs:PutRetentionPolicy"),
    "rds-db:connect",
    *("rds:AddTagsToResource", "rds:CopyDBSnapshot", "rds:CreateDBSnapshot", "rds:DeleteDBSnapshot"),
    *("rds:DescribeDBInstances", "rds:DescribeDBSnapshots", "rds:ListTagsForResource"),
    *("rds:ModifyDBInstance", "rds:ModifyDBSnapshotAttribute"),
    *("s3:AbortMultipartUpload", "s3:DeleteObject", "s3:DeleteObjectVersion", "s3:GetBucketLocation"),
    *("s3:GetObject", "s3:GetObjectAttributes"),
    *("s3:GetObjectTagging", "s3:GetObjectVersion", "s3:ListBucket", "s3:ListBucketVersions"),
    *("s3:ListMultipartUploadParts", "s3:PutObject", "s3:PutObjectTagging"),
    *("secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"),
    "sns:Publish",
    *("sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:GetQueueUrl"),
    *("sqs:ReceiveMessage", "sqs:SendMessage"),
    *("ssm:UpdateInstanceInformation", "ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel"),
    *("ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel"),
    *("xray:GetSamplingRules", "xray:GetSamplingTargets", "xray:PutTelemetryRecords", "xray:PutTraceSegments"),
)


def boundary(scope: Construct, stage: Stage) -> iam.ManagedPolicy | None:
    """What no role of the stage may exceed, whatever its own policies say; None where the stage has no boundary."""
    if not stage.permissions_boundary:
        return None
    policy = iam.ManagedPolicy(
        scope,
        "boundary",
        managed_policy_name=f"rag-{stage.name}-boundary",
        description="Permissions boundary of every role of this stage",
        statements=[iam.PolicyStatement(actions=sorted(BOUNDARY), resources=["*"])],
    )
    accept(
        policy,
        "A boundary grants nothing; which resources a role reaches is said by the role's own policies.",
        f"{SOLUTIONS}IAM5[Resource::*]",
    )
    return policy


def service_role(
    scope: Construct, name: str, *, service: str, statements: Sequence[iam.PolicyStatement], names_account: bool = False
) -> iam.Role:
    """A role for a service of AWS, with a policy that shows by itself what it may do.

    `names_account`: the service's manual says that it tells IAM for whom it acts, so the role asks for this account.
    """
    mine = {"StringEquals": {"aws:SourceAccount": aws_cdk.Aws.ACCOUNT_ID}}
    principal = iam.ServicePrincipal(f"{service}.amazonaws.com", conditions=mine if names_account else None)
    role = iam.Role(scope, name, assumed_by=principal)
    iam.ManagedPolicy(scope, f"{name}-policy", statements=list(statements), roles=[role])
    return role
