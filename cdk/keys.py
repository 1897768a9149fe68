"""Keys of our own: one for what tenants gave us, one for what is written about it, one for its copies."""

from __future__ import annotations

import aws_cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from cdk.stack import removal
from cdk.stages import Stage


class Keys(Construct):
    """`data`, `logs` and `backup`; each None where the stage leaves encryption to AWS's own keys.

    Who may use them is said by identities, never here: a role of another stack in a key's policy is a cycle.
    """

    def __init__(self, scope: Construct, name: str, *, stage: Stage) -> None:
        super().__init__(scope, name)
        self._stage = stage
        self.data = self._key("data", "Documents, passages, queues, topics and secrets")
        self.logs = self._key("logs", "Logs and trails")
        self.backup = self._key("backup", "Backups")
        if self.data:
            self._let_services_send(self.data)
        if self.logs:
            self._let_logs_write(self.logs)

    def _key(self, name: str, description: str) -> kms.Key | None:
        if not self._stage.own_keys:
            return None
        return kms.Key(
            self,
            name,
            alias=f"rag/{self._stage.name}/{name}",
            description=description,
            enable_key_rotation=True,
            pending_window=aws_cdk.Duration.days(30),
            removal_policy=removal(self._stage),
        )

    def _let_services_send(self, key: kms.Key) -> None:
        """Let AWS put events of this account into encrypted queues and topics."""
        services = ("s3", "sns", "events", "events.rds", "cloudwatch", "budgets")
        key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="ServicesSend",
                principals=[iam.ServicePrincipal(f"{service}.amazonaws.com") for service in services],
                actions=["kms:Decrypt", "kms:GenerateDataKey"],
                resources=["*"],
                conditions={"StringEquals": {"aws:SourceAccount": aws_cdk.Aws.ACCOUNT_ID}},
            )
        )

    def _let_logs_write(self, key: kms.Key) -> None:
        groups = aws_cdk.Stack.of(self).format_arn(
            service="logs", resource="log-group", resource_name="*", arn_format=aws_cdk.ArnFormat.COLON_RESOURCE_NAME
        )
        key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="LogsWrite",
                principals=[iam.ServicePrincipal(f"logs.{aws_cdk.Aws.REGION}.amazonaws.com")],
                actions=["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"],
                resources=["*"],
                conditions={"ArnLike": {"kms:EncryptionContext:aws:logs:arn": groups}},
            )
        )
