"""PostgreSQL with pgvector: one instance, and by stage a standby, a proxy before it and a replica beside it."""

from __future__ import annotations

import aws_cdk
from aws_cdk import Duration
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_rds as rds
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from cdk.acknowledging import NIST, SOLUTIONS, accept
from cdk.keys import Keys
from cdk.logs import log_group
from cdk.network import Network
from cdk.proxy import PORT, connecting, database_proxy
from cdk.roles import service_role
from cdk.secrets import keep_in_account, reading
from cdk.stages import Stage
from functions.table import MAINTAIN, OWNER, ROLES

NAME = "rag"
ENGINE = rds.DatabaseInstanceEngine.postgres(version=rds.PostgresEngineVersion.VER_18_3)
# Where the rag layer puts the roots that RDS signs with, a file for each region, and those of its proxies.
ROOT_CERTIFICATES = "/opt/python/rag/certificates"
# UTC; AWS Backup refuses to start within an hour before either.
BACKUP_WINDOW = "02:00-02:30"
MAINTENANCE_WINDOW = "sun:04:00-sun:04:30"


class Database(Construct):
    """`instance`, and None or what the stage has of `proxy` and `replica`.

    Functions connect by IAM as their own role, through the proxy where there is one; the owner by its password, and
    directly, because session locks and building indexes concurrently don't go through a proxy.
    """

    name = NAME
    port = PORT

    def __init__(self, scope: Construct, name: str, *, stage: Stage, keys: Keys, network: Network) -> None:
        super().__init__(scope, name)
        self._stage, self._keys, self._network = stage, keys, network
        self.group = network.group("database", "The database: from functions and the proxy")
        self.group.connections.allow_from(network.functions_group, ec2.Port.tcp(PORT), "Functions")
        self._parameters = self._parameter_group()
        self._monitoring = self._monitoring_role() if stage.enhanced_monitoring else None
        self.instance, self.master_secret_arn = self._instance()
        self.replica = self._replica() if stage.database_replica else None
        self.proxy = self._proxy() if stage.database_proxy else None
        self.instance_endpoint = self.instance.db_instance_endpoint_address
        self.endpoint = self.proxy.endpoint if self.proxy else self.instance_endpoint

    def url(self, role: str, *, direct: bool = False) -> str:
        """The URL of this role, without a password; `direct`: of the instance where there is a proxy too."""
        proxied = self.proxy is not None and not direct
        host = self.endpoint if proxied else self.instance_endpoint
        roots = "proxy" if proxied else aws_cdk.Stack.of(self).region
        return (
            f"postgresql://{role}@{host}:{PORT}/{NAME}?sslmode=verify-full&sslrootcert={ROOT_CERTIFICATES}/{roots}.pem"
        )

    def connect_statement(self, role: str) -> iam.PolicyStatement:
        """Lets an identity connect as this role where `url` points, with a token instead of a password."""
        if self.proxy is None:
            return connecting(self, self.instance.instance_resource_id, [role])
        # arn:aws:rds:<region>:<account>:db-proxy:<id>
        proxy_id = aws_cdk.Fn.select(6, aws_cdk.Fn.split(":", self.proxy.db_proxy_arn))
        return connecting(self, proxy_id, [role])

    def secret_statements(self) -> list[iam.PolicyStatement]:
        """Lets an identity read the owner's user name and password, a JSON object."""
        return reading(self.master_secret_arn, self._keys)

    def _parameter_group(self) -> rds.ParameterGroup:
        return rds.ParameterGroup(
            self,
            "parameters",
            engine=ENGINE,
            description=f"rag {self._stage.name}",
            parameters={
                "rds.force_ssl": "1",
                "password_encryption": "scram-sha-256",
                "rds.accepted_password_auth_method": "scram",
                "max_connections": str(self._stage.database_connections),
                "shared_preload_libraries": "pg_stat_statements",
                "log_min_duration_statement": "500",
                "log_lock_waits": "1",
                # What is asked and answered is a tenant's: statements are logged, their values are not.
                "log_parameter_max_length": "0",
                # Milliseconds, for who sets none of its own: roles of functions have shorter ones.
                "idle_in_transaction_session_timeout": "60000",
                "statement_timeout": str(MAINTAIN.timeout_seconds * 1000),
                "lock_timeout": "120000",
            },
        )

    def _monitoring_role(self) -> iam.Role:
        stack = aws_cdk.Stack.of(self)
        group = stack.format_arn(
            service="logs",
            resource="log-group",
            resource_name="RDSOSMetrics",
            arn_format=aws_cdk.ArnFormat.COLON_RESOURCE_NAME,
        )
        role = service_role(
            self,
            "monitoring",
            service="monitoring.rds",
            names_account=True,
            statements=[
                iam.PolicyStatement(
                    actions=["logs:CreateLogGroup", "logs:PutRetentionPolicy", "logs:DescribeLogStreams"],
                    resources=[group, f"{group}:*"],
                ),
                iam.PolicyStatement(
                    actions=["logs:CreateLogStream", "logs:GetLogEvents", "logs:PutLogEvents"],
                    resources=[f"{group}:log-stream:*"],
                ),
            ],
        )
        written = "arn:<AWS::Partition>:logs:<AWS::Region>:<AWS::AccountId>:log-group:RDSOSMetrics"
        accept(
            self,
            "Enhanced Monitoring writes to one log group of the account, whose streams are named by RDS.",
            f"{SOLUTIONS}IAM5[Resource::{written}:*]",
            f"{SOLUTIONS}IAM5[Resource::{written}:log-stream:*]",
        )
        return role

    def _shared(self, identifier: str) -> dict[str, object]:
        """What the instance and its replica have in common."""
        return {
            "instance_identifier": identifier,
            "instance_type": ec2.InstanceType(self._stage.database_class),
            "vpc": self._network.vpc,
            "vpc_subnets": self._network.isolated,
            "security_groups": [self.group],
            "publicly_accessible": False,
            "iam_authentication": True,
            "ca_certificate": rds.CaCertificate.RDS_CA_RSA2048_G1,
            "parameter_group": self._parameters,
            "storage_type": rds.StorageType.GP3,
            "max_allocated_storage": self._stage.database_max_gib,
            "copy_tags_to_snapshot": True,
            "auto_minor_version_upgrade": True,
            "preferred_maintenance_window": MAINTENANCE_WINDOW,
            "cloudwatch_logs_exports": ["postgresql", "upgrade"],
            "database_insights_mode": rds.DatabaseInsightsMode.STANDARD,
            "enable_performance_insights": True,
            "performance_insight_encryption_key": self._keys.data,
            "monitoring_interval": Duration.seconds(60) if self._monitoring else None,
            "monitoring_role": self._monitoring,
            "deletion_protection": self._stage.protected,
        }

    def _instance(self) -> tuple[rds.DatabaseInstance, str]:
        identifier = f"rag-{self._stage.name}"
        groups = self._log_groups(identifier)
        protected = self._stage.protected
        secret = self._own_secret() if self._stage.database_replica else None
        instance = rds.DatabaseInstance(
            self,
            "instance",
            engine=ENGINE,
            database_name=NAME,
            port=PORT,
            credentials=rds.Credentials.from_secret(secret, OWNER)
            if secret
            else rds.Credentials.from_username(OWNER, encryption_key=self._keys.data),
            manage_master_user_password=None if secret else True,
            allocated_storage=self._stage.database_gib,
            storage_encrypted=True,
            storage_encryption_key=self._keys.data,
            multi_az=self._stage.database_multi_az,
            backup_retention=Duration.days(self._stage.recovery_days),
            preferred_backup_window=BACKUP_WINDOW,
            delete_automated_backups=not protected,
            removal_policy=aws_cdk.RemovalPolicy.SNAPSHOT if protected else aws_cdk.RemovalPolicy.DESTROY,
            **self._shared(identifier),
        )
        instance.node.add_dependency(*groups)
        resource = instance.node.default_child
        self._accept(instance)
        if secret is None:
            return instance, resource.attr_master_user_secret_secret_arn
        self._rotate(instance)
        return instance, secret.secret_arn

    def _accept(self, instance: rds.DatabaseInstance) -> None:
        accept(
            self,
            "Nothing but the functions' and the proxy's groups reaches it; another port would hide it from nobody.",
            f"{SOLUTIONS}RDS11",
        )
        if not self._stage.protected:
            accept(
                instance,
                "A stage to try things in, which can be taken away again; its loss is made good by uploading again.",
                f"{SOLUTIONS}RDS10",
                f"{NIST}RDSInstanceDeletionProtectionEnabled",
                f"{NIST}RDSInBackupPlan",
                f"{NIST}RDSEnhancedMonitoringEnabled",
            )
        if not self._stage.database_multi_az:
            accept(
                instance,
                "The stage pays for one zone; what is lost with it is restored to any minute of the recovery days.",
                f"{SOLUTIONS}RDS3",
                f"{NIST}RDSMultiAZSupport",
            )

    def _own_secret(self) -> rds.DatabaseSecret:
        """RDS manages no password of an instance with a replica, other than of SQL Server.

        Source: Amazon RDS user guide, "Limitations for Secrets Manager integration with Amazon RDS".
        """
        secret = rds.DatabaseSecret(self, "owner", username=OWNER, encryption_key=self._keys.data)
        keep_in_account(secret)
        return secret

    def _rotate(self, instance: rds.DatabaseInstance) -> None:
        instance.secret.add_rotation_schedule(
            "rotation",
            automatically_after=Duration.days(30),
            hosted_rotation=secretsmanager.HostedRotation.postgre_sql_single_user(
                vpc=self._network.vpc,
                vpc_subnets=self._network.private,
                security_groups=[self._network.functions_group],
            ),
        )

    def _replica(self) -> rds.DatabaseInstanceReadReplica:
        identifier = f"rag-{self._stage.name}-replica"
        groups = self._log_groups(identifier)
        replica = rds.DatabaseInstanceReadReplica(
            self,
            "replica",
            source_database_instance=self.instance,
            port=PORT,
            removal_policy=aws_cdk.RemovalPolicy.DESTROY,
            **self._shared(identifier),
        )
        replica.node.add_dependency(*groups)
        accept(
            replica,
            "A second copy of the instance, encrypted with its key; made again from it and not from a backup.",
            f"{SOLUTIONS}RDS2",
            f"{SOLUTIONS}RDS3",
            f"{NIST}RDSStorageEncrypted",
            f"{NIST}RDSMultiAZSupport",
            f"{NIST}RDSInBackupPlan",
        )
        return replica

    def _proxy(self) -> rds.DatabaseProxy:
        return database_proxy(
            self,
            stage=self._stage,
            network=self._network,
            # With a port that rules over security groups can read before the instance exists.
            target=rds.DatabaseInstance.from_database_instance_attributes(
                self,
                "known-port",
                engine=ENGINE,
                instance_identifier=self.instance.instance_identifier,
                instance_endpoint_address=self.instance.db_instance_endpoint_address,
                port=PORT,
                security_groups=[self.group],
            ),
            connects=connecting(self, self.instance.instance_resource_id, ROLES),
            log=self._log_group("proxy-log", f"/aws/rds/proxy/rag-{self._stage.name}"),
        )

    def _log_groups(self, identifier: str) -> list[Construct]:
        """Before the instance, which would make them itself, kept for ever."""
        return [
            self._log_group(f"{identifier}-{log}", f"/aws/rds/instance/{identifier}/{log}")
            for log in ("postgresql", "upgrade")
        ]

    def _log_group(self, name: str, log_group_name: str) -> Construct:
        return log_group(self, name, stage=self._stage, keys=self._keys, log_group_name=log_group_name)
