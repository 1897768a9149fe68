"""Promises of the database, its proxy, the cache and the network."""

from __future__ import annotations

from collections.abc import Iterator

from tests.infrastructure.checks.estate import Estate, Resource, statements, text
from tests.infrastructure.checks.storage import KEPT
from tests.infrastructure.checks.table import PROD, PROTECTED, Spoil, check

_PARAMETERS = {
    "rds.force_ssl": {"1"},
    "log_lock_waits": {"1", "on"},
    "password_encryption": {"scram-sha-256"},
}
_BOUNDED = "log_min_duration_statement", "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"


def primaries(estate: Estate) -> list[Resource]:
    """Databases that are no replicas."""
    return [each for each in estate.of("RDS::DBInstance") if not each.get("SourceDBInstanceIdentifier")]


@check("RDS", Spoil("RDS::DBInstance", "PubliclyAccessible", value=True))
def database_is_private(estate: Estate) -> Iterator[str]:
    """The database is encrypted and not public."""
    if len(primaries(estate)) != 1:
        yield f"{len(primaries(estate))} databases"
    for database in estate.of("RDS::DBInstance"):
        if database.get("PubliclyAccessible") is not False:
            yield f"{database}: public"
    for database in primaries(estate):
        own = not estate.stage.own_keys or estate.targets(database.stack, database.get("KmsKeyId"))
        if database.get("StorageEncrypted") is not True or not own:
            yield f"{database}: not encrypted"


@check("RDS", Spoil("RDS::DBInstance", "MultiAZ"), stages=PROD)
def database_survives_a_zone(estate: Estate) -> Iterator[str]:
    """The database has a standby in another zone."""
    for database in primaries(estate):
        if database.get("MultiAZ") is not True:
            yield str(database)


@check("RDS", Spoil("RDS::DBInstance", "DeletionProtection"), stages=PROTECTED)
def database_is_protected(estate: Estate) -> Iterator[str]:
    """The database is protected from deletion, and outlives its stack with its automated backups."""
    for database in primaries(estate):
        kept = {database.body.get("DeletionPolicy"), database.body.get("UpdateReplacePolicy")} <= {*KEPT, "Snapshot"}
        if not database.get("DeletionProtection") or not kept or database.get("DeleteAutomatedBackups") is not False:
            yield str(database)


@check("RDS", Spoil("RDS::DBInstance", "BackupRetentionPeriod", 0))
def database_can_go_back(estate: Estate) -> Iterator[str]:
    """Any moment of the stage's days of recovery can be restored; snapshots keep the tags."""
    for database in primaries(estate):
        days = database.get("BackupRetentionPeriod")
        if days != estate.stage.recovery_days or database.get("CopyTagsToSnapshot") is not True:
            yield f"{database}: {days} days"


@check("RDS", Spoil("RDS::DBInstance", "PreferredMaintenanceWindow"), stages=PROTECTED)
def windows_are_apart(estate: Estate) -> Iterator[str]:
    """Backups and maintenance of the database have windows, and not the same."""
    for database in primaries(estate):
        backup, maintenance = database.get("PreferredBackupWindow"), database.get("PreferredMaintenanceWindow")
        if not backup or not maintenance or backup.split("-")[0] in maintenance:
            yield f"{database}: {backup} {maintenance}"


@check("RDS", Spoil("Backup::BackupVault", "LockConfiguration"), stages=PROD)
def backups_cannot_be_shortened(estate: Estate) -> Iterator[str]:
    """The database is in a backup plan whose vault refuses to forget early."""
    vaults = estate.of("Backup::BackupVault")
    selected = [
        found
        for each in estate.of("Backup::BackupSelection")
        for found in estate.targets(each.stack, each.get("BackupSelection.Resources"))
    ]
    if not vaults or not all(each.get("LockConfiguration.MinRetentionDays") for each in vaults):
        yield f"{len(vaults)} vaults, not all locked"
    yield from (f"{each}: in no plan" for each in primaries(estate) if each not in selected)


@check("RDS", Spoil("RDS::DBParameterGroup", "Parameters", {"rds.force_ssl": "0"}))
def database_parameters(estate: Estate) -> Iterator[str]:
    """The database wants TLS and SCRAM, logs waits and what is slow, and bounds statements, locks and idleness."""
    groups = estate.of("RDS::DBParameterGroup")
    if not groups:
        yield "there is no parameter group"
    for group in groups:
        # A key of this map has dots of its own.
        given = {name: str(value) for name, value in group.properties["Parameters"].items()}
        yield from (f"{group}: {name}" for name, allowed in _PARAMETERS.items() if given.get(name) not in allowed)
        yield from (f"{group}: {name} is not bounded" for name in _BOUNDED if int(given.get(name, 0)) <= 0)
        if int(given.get("idle_in_transaction_session_timeout", 0)) > 60_000:
            yield f"{group}: idle transactions of more than a minute"


@check("RDS", Spoil("RDS::DBInstance", "CACertificateIdentifier"))
def database_version_is_said(estate: Estate) -> Iterator[str]:
    """The certificate authority and PostgreSQL's version are pinned."""
    for database in estate.of("RDS::DBInstance"):
        if not database.get("CACertificateIdentifier"):
            yield str(database)
    for database in primaries(estate):
        if not str(database.get("EngineVersion")).startswith("18."):
            yield f"{database}: {database.get('EngineVersion')}"


@check("RDS", Spoil("RDS::DBInstance", "MonitoringInterval", 0), stages=PROTECTED)
def database_is_watched(estate: Estate) -> Iterator[str]:
    """The database exports its log, is measured each minute, patches itself, grows, and tells of a failover."""
    for database in estate.of("RDS::DBInstance"):
        watched = (
            "postgresql" in database.get("EnableCloudwatchLogsExports", []),
            database.get("EnablePerformanceInsights") is True and bool(database.get("PerformanceInsightsKMSKeyId")),
            0 < int(database.get("MonitoringInterval", 0)) <= 60,
            database.get("AutoMinorVersionUpgrade") is True,
            int(database.get("MaxAllocatedStorage", 0)) == estate.stage.database_max_gib,
        )
        if not all(watched):
            yield f"{database}: {watched}"
    if not any("failover" in each.get("EventCategories", []) for each in estate.of("RDS::EventSubscription")):
        yield "nobody is told of a failover"


@check("RDS", Spoil("RDS::DBInstance", "EnableIAMDatabaseAuthentication", value=False))
def nobody_knows_the_masters_password(estate: Estate) -> Iterator[str]:
    """The master user's password is made, kept and rotated by AWS; other users can connect by a token."""
    rotated = [
        secret
        for each in estate.of("SecretsManager::RotationSchedule")
        for attachment in estate.targets(each.stack, each.get("SecretId"))
        for secret in estate.targets(attachment.stack, attachment.get("SecretId"))
    ]
    for database in primaries(estate):
        # RDS manages no password of a database that has replicas: there a schedule rotates it.
        secrets = estate.targets(database.stack, database.get("MasterUserPassword"))
        if database.get("ManageMasterUserPassword") is not True and not (secrets and secrets[0] in rotated):
            yield str(database)
        if database.get("EnableIAMDatabaseAuthentication") is not True:
            yield f"{database}: no tokens"


@check("RDS", Spoil("EC2::SecurityGroupIngress", "CidrIp", "10.0.0.0/8"))
def only_groups_come_in(estate: Estate) -> Iterator[str]:
    """Database, proxy and cache take connections from security groups of ours, on one port, and from no address."""
    guarded = [
        found
        for each, place in (
            *((each, "VPCSecurityGroups") for each in estate.of("RDS::DBInstance")),
            *((each, "VpcSecurityGroupIds") for each in estate.of("RDS::DBProxy")),
            *((each, "SecurityGroupIds") for each in estate.of("ElastiCache::ReplicationGroup")),
            *((each, "SecurityGroupIds") for each in estate.of("ElastiCache::ServerlessCache")),
        )
        for found in estate.targets(each.stack, each.get(place))
    ]
    if not guarded:
        yield "no security group guards the data"
    for group in {str(each): each for each in guarded}.values():
        rules = list(group.get("SecurityGroupIngress", []))
        rules += [
            each.properties
            for each in estate.of("EC2::SecurityGroupIngress")
            if estate.refers(each, each.get("GroupId"), group)
        ]
        if not rules:
            yield f"{group}: lets nobody in"
        for rule in rules:
            if rule.get("CidrIp") or rule.get("CidrIpv6") or not rule.get("SourceSecurityGroupId"):
                yield f"{group}: {rule}"


@check("RDS Proxy", Spoil("RDS::DBProxy", "RequireTLS", value=False), stages=PROTECTED)
def proxy(estate: Estate) -> Iterator[str]:
    """The proxy wants TLS and tokens, ends idle clients, leaves connections to others, and its log forgets."""
    proxies, targets = estate.of("RDS::DBProxy"), estate.of("RDS::DBProxyTargetGroup")
    if not proxies:
        yield "there is no proxy"
    for each in proxies:
        tokens = each.get("DefaultAuthScheme") == "IAM_AUTH" or (
            each.get("Auth") and all(row.get("IAMAuth") == "REQUIRED" for row in each.get("Auth"))
        )
        if each.get("RequireTLS") is not True or not tokens or not each.get("IdleClientTimeout"):
            yield str(each)
        group = f"/aws/rds/proxy/{each.get('DBProxyName')}"
        if group not in [text(found.get("LogGroupName")) for found in estate.of("Logs::LogGroup")]:
            yield f"{each}: logs for ever"
    for each in targets:
        if not 0 < each.get("ConnectionPoolConfigurationInfo.MaxConnectionsPercent", 100) < 100:
            yield str(each)


@check("ElastiCache", Spoil("ElastiCache::User", "AccessString", "on ~* +@all"))
def cache_users(estate: Estate) -> Iterator[str]:
    """The cache knows its users; the one named default is switched off, and none may administer."""
    caches = estate.of("ElastiCache::ReplicationGroup", "ElastiCache::ServerlessCache")
    if len(caches) != 1:
        yield f"{len(caches)} caches"
    for cache in caches:
        if not (cache.get("UserGroupId") or cache.get("UserGroupIds")):
            yield f"{cache}: open to everybody inside"
    for user in estate.of("ElastiCache::User"):
        rights = user.get("AccessString", "").split()
        if user.get("UserName") == "default" and "off" not in rights:
            yield f"{user}: the default user is on"
        if "on" in rights and not ({"-@admin", "-@dangerous"} <= set(rights) or "+@all" not in rights):
            yield f"{user}: {rights}"
        if user.get("NoPasswordRequired"):
            yield f"{user}: without a password"


@check("ElastiCache", Spoil("ElastiCache::ReplicationGroup", "TransitEncryptionEnabled", value=False), stages=PROTECTED)
def cache_nodes(estate: Estate) -> Iterator[str]:
    """The cache encrypts on the wire and at rest with an own key, survives a node, and tells what was slow."""
    nodes = estate.of("ElastiCache::ReplicationGroup")
    if not nodes:
        yield "there are no nodes"
    for cache in nodes:
        facts = (
            cache.get("TransitEncryptionEnabled") is True
            and cache.get("TransitEncryptionMode", "required") == "required",
            cache.get("AtRestEncryptionEnabled") is True and bool(cache.get("KmsKeyId")),
            cache.get("AutomaticFailoverEnabled") is True and cache.get("MultiAZEnabled") is True,
            int(cache.get("NumCacheClusters", 0)) >= 2,
            "slow-log" in [row["LogType"] for row in cache.get("LogDeliveryConfigurations", [])],
        )
        if not all(facts):
            yield f"{cache}: {facts}"
        for group in estate.targets(cache.stack, cache.get("CacheParameterGroupName")):
            if group.properties["Properties"].get("maxmemory-policy") != "allkeys-lru":
                yield f"{group}: {group.properties['Properties']}"


@check("ElastiCache", Spoil("ElastiCache::ReplicationGroup", "SnapshotRetentionLimit", 0), stages=PROD)
def cache_snapshots(estate: Estate) -> Iterator[str]:
    """The cache is snapshotted, so that conversations and counters outlive it."""
    for cache in estate.of("ElastiCache::ReplicationGroup"):
        if not cache.get("SnapshotRetentionLimit"):
            yield str(cache)


def routes_out(estate: Estate, subnet: Resource) -> list[Resource]:
    """The default routes of a subnet."""
    tables = [
        found
        for each in estate.of("EC2::SubnetRouteTableAssociation")
        if estate.refers(each, each.get("SubnetId"), subnet)
        for found in estate.targets(each.stack, each.get("RouteTableId"))
    ]
    return [
        route
        for route in estate.of("EC2::Route")
        if route.get("DestinationCidrBlock") == "0.0.0.0/0"
        and any(estate.refers(route, route.get("RouteTableId"), table) for table in tables)
    ]


@check("VPC", Spoil("EC2::Route", "RouteTableId", {"Ref": "networkvpcisolatedSubnet1RouteTable"}))
def data_has_no_way_out(estate: Estate) -> Iterator[str]:
    """Database and cache are in subnets without a route to the world; functions' lead through NAT only."""
    groups = estate.of("RDS::DBSubnetGroup", "ElastiCache::SubnetGroup", "ElastiCache::ServerlessCache")
    for group in groups:
        for subnet in estate.targets(group.stack, group.get("SubnetIds")):
            if routes_out(estate, subnet):
                yield f"{group}: {subnet} leads out"
    for function in estate.of("Lambda::Function"):
        for subnet in estate.targets(function.stack, function.get("VpcConfig.SubnetIds")):
            routes = routes_out(estate, subnet)
            if not routes or any(route.get("GatewayId") for route in routes):
                yield f"{function}: {subnet} leads out by {[str(route) for route in routes]}"


@check("VPC", Spoil("EC2::Subnet", "MapPublicIpOnLaunch", value=True))
def no_public_addresses(estate: Estate) -> Iterator[str]:
    """No subnet gives out public addresses by itself, except to the NAT instance where the stage has one."""
    for subnet in estate.of("EC2::Subnet"):
        natting = estate.stage.nat == "instance" and "public" in subnet.name.lower()
        if subnet.get("MapPublicIpOnLaunch") is not False and not natting:
            yield str(subnet)


@check("VPC", Spoil("EC2::VPCEndpoint", "PolicyDocument"))
def endpoints_know_what_is_ours(estate: Estate) -> Iterator[str]:
    """S3 is reached by a gateway endpoint whose policy names our buckets; other endpoints serve this account only."""
    endpoints = estate.of("EC2::VPCEndpoint")
    if not any(each.get("VpcEndpointType", "Gateway") == "Gateway" for each in endpoints):
        yield "S3 has no gateway"
    for endpoint in endpoints:
        allowed = [each for each in statements(endpoint.get("PolicyDocument")) if each["Effect"] == "Allow"]
        gateway = endpoint.get("VpcEndpointType", "Gateway") == "Gateway"
        for statement in allowed:
            ours = statement.get("Condition", {}).get("StringEquals", {}).get("aws:PrincipalAccount")
            if not ours or (gateway and statement["Resource"] == "*"):
                yield f"{endpoint}: {statement.get('Resource')}"
        if not allowed:
            yield f"{endpoint}: no policy"


@check("VPC", Spoil("EC2::VPCEndpoint", "ServiceName", "com.amazonaws.us-east-1.nothing"), stages=PROTECTED)
def services_without_the_internet(estate: Estate) -> Iterator[str]:
    """Secrets, queues, logs, metrics, traces, keys and tokens are reached inside the network."""
    services = {text(each.get("ServiceName")).rpartition(".")[2] for each in estate.of("EC2::VPCEndpoint")}
    yield from sorted({"secretsmanager", "sqs", "logs", "monitoring", "xray", "kms", "sts"} - services)


@check("VPC", Spoil("EC2::FlowLog", "ResourceType", "Subnet"))
def network_is_watched(estate: Estate) -> Iterator[str]:
    """Every network logs its flows, and its default security group is emptied."""
    for network in estate.of("EC2::VPC"):
        flows = [
            each
            for each in estate.of("EC2::FlowLog")
            if each.get("ResourceType") == "VPC" and estate.refers(each, each.get("ResourceId"), network)
        ]
        closed = [
            each
            for each in estate.of("Custom::VpcRestrictDefaultSG")
            if estate.refers(each, each.get("DefaultSecurityGroupId"), network)
        ]
        if not flows or not closed:
            yield f"{network}: {len(flows)} flow logs, default group {'closed' if closed else 'open'}"
