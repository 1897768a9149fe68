"""Valkey behind TLS and a user of its own: serverless where little is asked for, else nodes with failover."""

from __future__ import annotations

from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_elasticache as elasticache
from aws_cdk import aws_iam as iam
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from cdk.acknowledging import NIST, SOLUTIONS, accept
from cdk.keys import Keys
from cdk.logs import log_group
from cdk.network import Network
from cdk.secrets import keep_in_account, reading
from cdk.stack import removal
from cdk.stages import Stage

USER = "rag"
PORT = 6379
# Everything that reads, writes and locks; nothing that configures the server, empties it or lists its keys.
ACCESS = "on ~* &* +@all -@admin -@dangerous"
NOBODY = "off -@all"
# AWS's least: a bound on what a runaway loop may cost.
SERVERLESS_GIB, SERVERLESS_UNITS_PER_SECOND = 1, 1000
SNAPSHOT_DAYS = 15


class Cache(Construct):
    """`url` of the user rag without its password, and the secret that holds it.

    `cluster_id` names it in metrics.
    """

    def __init__(self, scope: Construct, name: str, *, stage: Stage, keys: Keys, network: Network) -> None:
        super().__init__(scope, name)
        self._stage, self._keys, self._network = stage, keys, network
        self.cluster_id = f"rag-{stage.name}"
        self.group = network.group("cache", "The cache: from functions")
        self.group.connections.allow_from(network.functions_group, ec2.Port.tcp(PORT), "Functions")
        self._secret = self._password()
        self.secret_arn = self._secret.secret_arn
        users = self._users()
        subnets = network.vpc.select_subnets(subnet_type=network.isolated.subnet_type).subnet_ids
        host = self._serverless(users, subnets) if stage.cache == "serverless" else self._nodes(users, subnets)
        self.url = f"rediss://{USER}@{host}:{PORT}/0"

    def secret_statements(self) -> list[iam.PolicyStatement]:
        """Lets an identity read the password."""
        return reading(self.secret_arn, self._keys)

    def _password(self) -> secretsmanager.Secret:
        secret = secretsmanager.Secret(
            self,
            "password",
            secret_name=f"rag/{self._stage.name}/cache",
            description="Password of the cache's user, as a plain string",
            encryption_key=self._keys.data,
            generate_secret_string=secretsmanager.SecretStringGenerator(
                exclude_punctuation=True, include_space=False, password_length=64
            ),
            removal_policy=removal(self._stage),
        )
        keep_in_account(secret)
        accept(
            secret,
            "Generated, used inside the network only, and opens nothing but a cache; a new one is set by deploying.",
            f"{SOLUTIONS}SMG4",
            f"{NIST}SecretsManagerRotationEnabled",
        )
        if self._keys.data is None:
            accept(
                secret,
                "Secrets Manager encrypts it with a key of its own; the stage pays for none of ours.",
                f"{NIST}SecretsManagerUsingKMSKey",
            )
        return secret

    def _users(self) -> elasticache.CfnUserGroup:
        """The one user, and the default one, which a group must have and which may nothing."""
        names = {USER: ACCESS, "default": NOBODY}
        users = [self._user(name, access) for name, access in names.items()]
        group = elasticache.CfnUserGroup(
            self, "users", engine="valkey", user_group_id=self.cluster_id, user_ids=[user.user_id for user in users]
        )
        for user in users:
            group.add_resource_dependency(user)
        return group

    def _user(self, name: str, access: str) -> elasticache.CfnUser:
        return elasticache.CfnUser(
            self,
            f"user-{name}",
            engine="valkey",
            user_id=f"{self.cluster_id}-{name}",
            user_name=name,
            access_string=access,
            # The template holds a reference that CloudFormation resolves, not the value.
            passwords=[self._secret.secret_value.unsafe_unwrap()],
        )

    def _serverless(self, users: elasticache.CfnUserGroup, subnets: list[str]) -> str:
        limits = elasticache.CfnServerlessCache
        cache = elasticache.CfnServerlessCache(
            self,
            "serverless",
            serverless_cache_name=self.cluster_id,
            description=f"rag {self._stage.name}",
            engine="valkey",
            major_engine_version="8",
            kms_key_id=self._keys.data.key_arn if self._keys.data else None,
            security_group_ids=[self.group.security_group_id],
            subnet_ids=subnets,
            user_group_id=users.ref,
            cache_usage_limits=limits.CacheUsageLimitsProperty(
                data_storage=limits.DataStorageProperty(maximum=SERVERLESS_GIB, unit="GB"),
                ecpu_per_second=limits.ECPUPerSecondProperty(maximum=SERVERLESS_UNITS_PER_SECOND),
            ),
        )
        return str(cache.attr_endpoint_address)

    def _nodes(self, users: elasticache.CfnUserGroup, subnets: list[str]) -> str:
        several = self._stage.cache_nodes > 1
        placed = elasticache.CfnSubnetGroup(
            self, "subnets", cache_subnet_group_name=self.cluster_id, description=self.cluster_id, subnet_ids=subnets
        )
        parameters = elasticache.CfnParameterGroup(
            self,
            "parameters",
            cache_parameter_group_family="valkey8",
            description=self.cluster_id,
            properties={"maxmemory-policy": "allkeys-lru"},
        )
        nodes = elasticache.CfnReplicationGroup(
            self,
            "nodes",
            replication_group_id=self.cluster_id,
            replication_group_description=f"rag {self._stage.name}",
            engine="valkey",
            engine_version="8.1",
            port=PORT,
            cache_node_type=self._stage.cache_class,
            num_cache_clusters=self._stage.cache_nodes,
            automatic_failover_enabled=several,
            multi_az_enabled=several,
            cache_subnet_group_name=placed.ref,
            cache_parameter_group_name=parameters.ref,
            security_group_ids=[self.group.security_group_id],
            transit_encryption_enabled=True,
            transit_encryption_mode="required",
            at_rest_encryption_enabled=True,
            kms_key_id=self._keys.data.key_arn if self._keys.data else None,
            user_group_ids=[users.ref],
            auto_minor_version_upgrade=True,
            snapshot_retention_limit=SNAPSHOT_DAYS,
            snapshot_window="02:00-03:00",
            preferred_maintenance_window="sun:04:00-sun:05:00",
            log_delivery_configurations=[self._log("slow-log"), self._log("engine-log")],
        )
        accept(
            nodes,
            "Only the functions' group reaches it, over TLS and by name; another port would hide it from nobody.",
            f"{SOLUTIONS}AEC5",
        )
        accept(
            nodes,
            "Users with passwords of their own let in; the older AUTH token, one for all, excludes them.",
            f"{SOLUTIONS}AEC6",
        )
        return str(nodes.attr_primary_end_point_address)

    def _log(self, kind: str) -> elasticache.CfnReplicationGroup.LogDeliveryConfigurationRequestProperty:
        properties = elasticache.CfnReplicationGroup
        group = log_group(
            self,
            kind,
            stage=self._stage,
            keys=self._keys,
            log_group_name=f"/aws/vendedlogs/elasticache/{self.cluster_id}/{kind}",
        )
        to = properties.CloudWatchLogsDestinationDetailsProperty(log_group=group.log_group_name)
        return properties.LogDeliveryConfigurationRequestProperty(
            log_type=kind,
            log_format="json",
            destination_type="cloudwatch-logs",
            destination_details=properties.DestinationDetailsProperty(cloud_watch_logs_details=to),
        )
