"""A Lambda function as each of ours is: its own role, log group, version and alias."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from cdk.acknowledging import NIST, SERVERLESS, SOLUTIONS, accept
from cdk.given import TRACING, Given, allow
from cdk.layers import code_of
from cdk.logs import log_group
from cdk.packaging import function_asset
from functions.table import USUAL_TEMPORARY_MIB, FunctionRow

# Only CloudFormation may read what a function's answer or event holds, never a trace or a log.
_QUIET = {"POWERTOOLS_TRACER_CAPTURE_RESPONSE": "false", "POWERTOOLS_LOGGER_LOG_EVENT": "false"}
_SNAP_START = "Annotation::@aws-cdk/aws-lambda:snapStartRequirePublish"
_INTERFACES = (
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
)


class Function(Construct):
    """What calls it calls the alias `live`: the version that the last deployment published.

    `known_arn` is written out by its fixed name, for policies that must exist before the function or its alias.
    """

    def __init__(
        self, scope: Construct, *, row: FunctionRow, given: Given, statements: Sequence[iam.PolicyStatement] = ()
    ) -> None:
        super().__init__(scope, row.name.capitalize())
        self.row = row
        stage, network = given.stage, given.data.network
        name = f"rag-{stage.name}-{row.name}"
        self.known_arn = aws_cdk.Stack.of(self).format_arn(
            service="lambda",
            resource="function",
            resource_name=name,
            arn_format=aws_cdk.ArnFormat.COLON_RESOURCE_NAME,
        )
        self.logs = log_group(self, "Logs", stage=stage, keys=given.data.keys, log_group_name=f"/aws/lambda/{name}")
        self.function = lambda_.Function(
            self,
            "Function",
            function_name=name,
            code=code_of(function_asset(row.folder)),
            handler=row.handler,
            runtime=lambda_.Runtime.PYTHON_3_13,
            architecture=lambda_.Architecture.ARM_64,
            layers=given.layers.of(row),
            timeout=aws_cdk.Duration.seconds(row.timeout_seconds),
            memory_size=row.memory_mib,
            ephemeral_storage_size=_temporary_storage(row, snap_start=stage.snap_start),
            environment=self._environment(given),
            environment_encryption=given.data.keys.data,
            # Its own grants are refused: everything that it may do stands in one policy.
            role=self._role(given, [*given.statements_of(row), *statements]).without_policy_updates(),
            vpc=network.vpc,
            vpc_subnets=network.private,
            security_groups=[network.functions_group],
            log_group=self.logs,
            logging_format=lambda_.LoggingFormat.JSON,
            system_log_level_v2=lambda_.SystemLogLevel.WARN,
            tracing=lambda_.Tracing.ACTIVE,
            dead_letter_queue=given.failures,
            reserved_concurrent_executions=given.reserved(row),
            code_signing_config=given.signing,
            snap_start=lambda_.SnapStartConf.ON_PUBLISHED_VERSIONS if stage.snap_start and row.warm else None,
            # A version with SnapStart costs as long as it exists.
            current_version_options=lambda_.VersionOptions(removal_policy=aws_cdk.RemovalPolicy.DESTROY),
        )
        self.alias = lambda_.Alias(
            self,
            "Live",
            alias_name="live",
            version=self.function.current_version,
            retry_attempts=2,
            max_event_age=aws_cdk.Duration.hours(1),
        )
        self._accept(given)

    def _accept(self, given: Given) -> None:
        accept(self.function, "Only the alias is called, which is a published version.", _SNAP_START)
        accept(
            self.function,
            "Layers are locked, compiled and tested for this version of Python; the next one comes with all of them.",
            f"{SOLUTIONS}L1",
            f"{SERVERLESS}LambdaLatestVersion",
        )
        accept(
            self.alias,
            "What fails goes to the function's dead-letter queue; a destination beside it would get it twice.",
            f"{SERVERLESS}LambdaAsyncFailureDestination",
        )
        if not given.stage.reserve_concurrency:
            accept(
                self.function,
                "A new account has ten sandboxes in all, none of which can be reserved; the API's throttle bounds it.",
                f"{NIST}LambdaConcurrency",
            )

    def _environment(self, given: Given) -> dict[str, str]:
        return {
            **self.row.environment,
            **_QUIET,
            **({"AWS_LAMBDA_EXEC_WRAPPER": f"/var/task/{self.row.wrapper}"} if self.row.wrapper else {}),
            **{name: value for name, value in given.settings_of(self.row).items() if value},
        }

    def _role(self, given: Given, statements: Sequence[iam.PolicyStatement]) -> iam.Role:
        policy = iam.ManagedPolicy(
            self,
            "Policy",
            statements=[
                *statements,
                allow(["logs:CreateLogStream", "logs:PutLogEvents"], self.logs.log_group_arn),
                allow(TRACING, "*"),
                allow(_INTERFACES, "*"),
                self._not_by_itself(),
            ],
        )
        if "bucket" in self.row.uses:
            accept(
                policy,
                "Every object of the bucket is a document.",
                f"{SOLUTIONS}IAM5[Resource::{_as_reported(given.bucket_arn)}/*]",
            )
        accept(
            policy,
            "X-Ray takes no resource; Lambda makes its network interfaces, and the function is denied those calls.",
            f"{SOLUTIONS}IAM5[Resource::*]",
        )
        return iam.Role(
            self, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"), managed_policies=[policy]
        )

    def _not_by_itself(self) -> iam.PolicyStatement:
        """Lambda makes the interfaces with the role's rights; the code needs none of them.

        Source: Lambda developer guide, "Giving Lambda functions access to resources in an Amazon VPC".
        """
        return iam.PolicyStatement(
            effect=iam.Effect.DENY,
            actions=[*_INTERFACES],
            resources=["*"],
            conditions={"ArnEquals": {"lambda:SourceFunctionArn": [self.known_arn]}},
        )


def _temporary_storage(row: FunctionRow, *, snap_start: bool) -> aws_cdk.Size | None:
    """More than Lambda's usual 512 MiB, which a function with SnapStart cannot have."""
    usual = row.temporary_mib == USUAL_TEMPORARY_MIB or (snap_start and row.warm)
    return None if usual else aws_cdk.Size.mebibytes(row.temporary_mib)


def _as_reported(arn: str) -> str:
    """As the rule packs write what is only known while deploying."""
    unknown = (
        ("Partition", aws_cdk.Aws.PARTITION),
        ("AccountId", aws_cdk.Aws.ACCOUNT_ID),
        ("Region", aws_cdk.Aws.REGION),
    )
    for name, token in unknown:
        arn = arn.replace(token, f"<AWS::{name}>")
    return arn
