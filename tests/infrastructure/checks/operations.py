"""Promises of alarms, of the account, and of stacks as such."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from tests.infrastructure.checks.estate import Estate, text
from tests.infrastructure.checks.table import PROD, PROTECTED, Spoil, check

_ALWAYS = {
    "AWS/ApiGateway": {"5XXError"},
    "AWS/ElastiCache": {"AuthenticationFailures", "Evictions"},
    "AWS/Lambda": {"Errors", "Throttles"},
    "AWS/RDS": {"CPUUtilization", "DatabaseConnections", "FreeStorageSpace", "FreeableMemory"},
    "AWS/SQS": {"ApproximateNumberOfMessagesVisible"},
}
_CLOSELY = {
    "AWS/ApiGateway": {"4XXError", "Latency p95"},
    "AWS/ElastiCache": {"DatabaseMemoryUsagePercentage", "EngineCPUUtilization", "ReplicationLag"},
    "AWS/Lambda": {"ConcurrentExecutions", "Duration"},
    "AWS/RDS": {"DatabaseConnectionsCurrentlySessionPinned"},
    "AWS/SQS": {"ApproximateAgeOfOldestMessage"},
}
_OF_REPLICAS = {"AWS/RDS": {"ReplicaLag"}}


def _unwatched(estate: Estate, wanted: dict[str, set[str]]) -> Iterator[str]:
    """Metrics that no alarm is about; a percentile stands behind the name."""
    watched = set()
    for alarm in estate.of("CloudWatch::Alarm"):
        rows = [row["MetricStat"]["Metric"] for row in alarm.get("Metrics", []) if "MetricStat" in row]
        for row in rows or [alarm.properties]:
            metric = " ".join(filter(None, [row["MetricName"], row.get("ExtendedStatistic")]))
            watched.add((row["Namespace"], metric))
    for namespace, names in wanted.items():
        yield from (f"{namespace} {name}" for name in sorted(names) if (namespace, name) not in watched)


@check("Alarms", Spoil("CloudWatch::Alarm", "AlarmActions"))
def alarms_reach_somebody(estate: Estate) -> Iterator[str]:
    """Every alarm tells the topic, or rolls a deployment back."""
    rolling_back = [
        found
        for group in estate.of("CodeDeploy::DeploymentGroup")
        for found in estate.targets(group.stack, group.get("AlarmConfiguration.Alarms"))
    ]
    for alarm in estate.of("CloudWatch::Alarm"):
        told = estate.targets(alarm.stack, alarm.get("AlarmActions"))
        if "AWS::SNS::Topic" not in {each.kind for each in told} and alarm not in rolling_back:
            yield str(alarm)


@check("Alarms", Spoil("CloudWatch::Alarm", "MetricName", "Invocations"))
def alarms_watch(estate: Estate) -> Iterator[str]:
    """Dead letters, failing requests and functions, and what the database and the cache run short of, are watched."""
    yield from _unwatched(estate, _ALWAYS)


@check("Alarms", Spoil("CloudWatch::Alarm", "ExtendedStatistic"), stages=PROTECTED)
def alarms_watch_closely(estate: Estate) -> Iterator[str]:
    """Waiting messages, slow and refused requests, functions near their limits, proxy and nodes are watched."""
    yield from _unwatched(estate, _CLOSELY)


@check("Alarms", Spoil("CloudWatch::Alarm", "MetricName", "CPUUtilization"), stages=PROD)
def alarms_watch_the_replica(estate: Estate) -> Iterator[str]:
    """A replica that falls behind is watched."""
    yield from _unwatched(estate, _OF_REPLICAS)


@check("Account", Spoil("CloudTrail::Trail", "EnableLogFileValidation", value=False), stages=PROD)
def account_is_watched(estate: Estate) -> Iterator[str]:
    """Where the stage asks for it, the account has a validated trail of all regions, GuardDuty and Config."""
    if estate.stage.account_guards:
        trails = estate.of("CloudTrail::Trail")
        if not any(each.get("IsMultiRegionTrail") and each.get("EnableLogFileValidation") for each in trails):
            yield "no trail"
        for kind in ("GuardDuty::Detector", "Config::ConfigurationRecorder"):
            if not estate.of(kind):
                yield f"no {kind}"


# The properties by which these types are called, where CloudFormation does not make up a name.
_NAMES = {
    "AWS::Backup::BackupVault": "BackupVaultName",
    "AWS::CloudTrail::Trail": "TrailName",
    "AWS::CloudWatch::Alarm": "AlarmName",
    "AWS::CloudWatch::Dashboard": "DashboardName",
    "AWS::Cognito::UserPool": "UserPoolName",
    "AWS::ElastiCache::ReplicationGroup": "ReplicationGroupId",
    "AWS::ElastiCache::ServerlessCache": "ServerlessCacheName",
    "AWS::ElastiCache::User": "UserId",
    "AWS::ElastiCache::UserGroup": "UserGroupId",
    "AWS::IAM::ManagedPolicy": "ManagedPolicyName",
    "AWS::IAM::Role": "RoleName",
    "AWS::KMS::Alias": "AliasName",
    "AWS::Lambda::Function": "FunctionName",
    "AWS::Logs::LogGroup": "LogGroupName",
    "AWS::RDS::DBInstance": "DBInstanceIdentifier",
    "AWS::RDS::DBProxy": "DBProxyName",
    "AWS::S3::Bucket": "BucketName",
    "AWS::SNS::Topic": "TopicName",
    "AWS::SQS::Queue": "QueueName",
    "AWS::Scheduler::Schedule": "Name",
    "AWS::SecretsManager::Secret": "Name",
    "AWS::WAFv2::WebACL": "Name",
}


@check("Stack", Spoil("SQS::Queue", "QueueName", "documents"))
def names_say_the_stage(estate: Estate) -> Iterator[str]:
    """Every name that is not made by CloudFormation says the stage, so that two stages fit into one account."""
    for each in estate.of(*_NAMES):
        name = each.get(_NAMES[each.kind])
        if name is not None and estate.stage.name not in text(name):
            yield f"{each}: {text(name)}"


@check("Stack", Spoil("SQS::Queue", "RedrivePolicy", {"Fn::ImportValue": "rag-other-data:Queue"}))
def stages_do_not_know_each_other(estate: Estate) -> Iterator[str]:
    """No stack reads an output of another stage."""
    for name, template in estate.stacks.items():
        imports = re.findall(r'"Fn::ImportValue": "([^"]*)"', json.dumps(template))
        yield from (
            f"{name}: {each}" for each in sorted(set(imports)) if not each.startswith(f"rag-{estate.stage.name}-")
        )


def unprotected(estate: Estate) -> list[str]:
    """Stacks that can be deleted by mistake."""
    return [name for name, properties in estate.manifest.items() if not properties.get("terminationProtection")]


def untagged(estate: Estate) -> list[str]:
    """Stacks that do not say whose they are."""
    wanted = {"application": "rag", "stage": estate.stage.name}
    return [name for name, properties in estate.manifest.items() if not wanted.items() <= properties["tags"].items()]
