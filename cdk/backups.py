"""Copies of the database beside its own recovery, in a vault, and elsewhere where the stage names a place."""

from __future__ import annotations

import aws_cdk
from aws_cdk import Duration
from aws_cdk import aws_backup as backup
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from constructs import Construct

from cdk.acknowledging import SOLUTIONS, accept
from cdk.database import Database
from cdk.keys import Keys
from cdk.roles import service_role
from cdk.stack import removal
from cdk.stages import Stage


class Backups(Construct):
    """A copy a day, kept as long as the database can be recovered; where locked, until then nobody deletes it."""

    def __init__(self, scope: Construct, name: str, *, stage: Stage, keys: Keys, database: Database) -> None:
        super().__init__(scope, name)
        kept = Duration.days(stage.recovery_days)
        elsewhere = (
            backup.BackupVault.from_backup_vault_arn(self, "elsewhere", stage.copy_backups_to)
            if stage.copy_backups_to
            else None
        )
        self.vault = backup.BackupVault(
            self,
            "vault",
            backup_vault_name=f"rag-{stage.name}",
            encryption_key=keys.backup,
            lock_configuration=backup.LockConfiguration(min_retention=kept) if stage.lock_backups else None,
            removal_policy=removal(stage),
        )
        plan = backup.BackupPlan(self, "plan", backup_plan_name=f"rag-{stage.name}", backup_vault=self.vault)
        plan.add_rule(
            backup.BackupPlanRule(
                rule_name="daily",
                schedule_expression=events.Schedule.cron(hour="6", minute="0"),
                start_window=Duration.hours(1),
                completion_window=Duration.hours(6),
                delete_after=kept,
                copy_actions=[backup.BackupPlanCopyActionProps(destination_backup_vault=elsewhere, delete_after=kept)]
                if elsewhere
                else None,
            )
        )
        plan.add_selection(
            "database",
            resources=[backup.BackupResource.from_rds_database_instance(database.instance)],
            role=self._role(database, keys, elsewhere),
            disable_default_backup_policy=True,
        )

    def _role(self, database: Database, keys: Keys, elsewhere: backup.IBackupVault | None) -> iam.Role:
        """What the part for RDS of AWS's own policy for this role allows, narrowed to this stage's resources."""
        stack = aws_cdk.Stack.of(self)
        snapshots = stack.format_arn(
            service="rds",
            resource="snapshot",
            resource_name="awsbackup:*",
            arn_format=aws_cdk.ArnFormat.COLON_RESOURCE_NAME,
        )
        instance = database.instance.instance_arn
        vaults = [self.vault.backup_vault_arn, *([elsewhere.backup_vault_arn] if elsewhere else [])]
        statements = [
            iam.PolicyStatement(
                actions=["rds:CreateDBSnapshot", "rds:AddTagsToResource", "rds:ListTagsForResource"],
                resources=[instance, snapshots],
            ),
            iam.PolicyStatement(actions=["rds:DescribeDBInstances", "rds:ModifyDBInstance"], resources=[instance]),
            iam.PolicyStatement(actions=["rds:DescribeDBSnapshots"], resources=[instance, snapshots]),
            iam.PolicyStatement(
                actions=[
                    *("rds:CopyDBSnapshot", "rds:DeleteDBSnapshot", "rds:ModifyDBSnapshotAttribute"),
                ],
                resources=[snapshots],
            ),
            iam.PolicyStatement(
                actions=["backup:DescribeBackupVault", "backup:CopyIntoBackupVault", "backup:CopyFromBackupVault"],
                resources=vaults,
            ),
        ]
        if keys.backup and keys.data:
            own = [keys.backup.key_arn, keys.data.key_arn]
            statements += [
                iam.PolicyStatement(actions=["kms:DescribeKey", "kms:Decrypt", "kms:GenerateDataKey"], resources=own),
                iam.PolicyStatement(
                    actions=["kms:CreateGrant"],
                    resources=own,
                    conditions={"Bool": {"kms:GrantIsForAWSResource": "true"}},
                ),
            ]
        role = service_role(self, "role", service="backup", statements=statements)
        accept(
            self,
            "AWS Backup names the snapshots that it makes, under this prefix, which is its own.",
            f"{SOLUTIONS}IAM5[Resource::arn:<AWS::Partition>:rds:<AWS::Region>:<AWS::AccountId>:snapshot:awsbackup:*]",
        )
        return role
