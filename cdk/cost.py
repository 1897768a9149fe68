"""What a stage costs a month while nobody uses it: its templates, multiplied by a dated table of prices."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from cdk.templates import Template

Properties = dict[str, Any]
Resources = dict[str, dict[str, Any]]
Positions = Iterator[tuple[str, float, float]]


@dataclass(frozen=True, slots=True)
class Line:
    """One position: `quantity` units of `price` US dollars a month each."""

    resource: str
    what: str
    quantity: float
    price: float

    @property
    def usd(self) -> float:
        """US dollars a month."""
        return self.quantity * self.price


@dataclass(frozen=True, slots=True)
class Bill:
    """All positions; the types that are billed by use only; and those that the table of prices does not know."""

    lines: list[Line]
    by_use: list[str]
    unknown: list[str]

    @property
    def usd(self) -> float:
        """US dollars a month."""
        return sum(line.usd for line in self.lines)


def prices() -> dict[str, Any]:
    """The table in prices.toml."""
    return tomllib.loads((Path(__file__).parent / "prices.toml").read_text())


def idle(stacks: dict[str, Template]) -> Bill:
    """Price one stage; raises KeyError for a class or size that the table does not know."""
    table = prices()
    lines: list[Line] = []
    by_use: set[str] = set()
    unknown: set[str] = set()
    for template in stacks.values():
        resources = template.get("Resources", {})
        for name, resource in resources.items():
            kind = resource["Type"]
            if kind in _PRICED:
                positions = _PRICED[kind](resource.get("Properties", {}), table, resources)
                lines += [Line(name, what, quantity, price) for what, quantity, price in positions]
            elif not _among(kind, table["free"]["types"]):
                (by_use if _among(kind, table["by_use"]["types"]) else unknown).add(kind)
    return Bill(lines, sorted(by_use), sorted(unknown))


def _among(kind: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(kind, pattern) for pattern in patterns)


def _database(row: Properties, table: Properties, resources: Resources) -> Positions:
    of, size, hours = table["database"], row["DBInstanceClass"], table["hours_a_month"]
    copies = 2 if row.get("MultiAZ") else 1
    yield f"{size}{', two zones' * (copies == 2)}", copies, of["class_hour"][size] * hours
    storage = float(row.get("AllocatedStorage") or _storage_of_source(row, resources))
    yield "GiB of gp3", copies * storage, of["gp3_gib_month"]
    if row.get("ManageMasterUserPassword"):
        yield "managed secret", 1, table["secret"]["month"]
    if row.get("DatabaseInsightsMode") == "advanced":
        yield "vCPUs of Database Insights", copies * of["class_vcpus"][size], of["insights_advanced_vcpu_hour"] * hours


def _storage_of_source(row: Properties, resources: Resources) -> float:
    # A replica has as much as its source, which is named by a reference.
    named = str(row["SourceDBInstanceIdentifier"])
    [source] = [each for name, each in resources.items() if repr(name) in named]
    return float(source["Properties"]["AllocatedStorage"])


def _proxy(_: Properties, table: Properties, resources: Resources) -> Positions:
    of = table["database"]
    databases = [each["Properties"] for each in resources.values() if each["Type"] == "AWS::RDS::DBInstance"]
    [primary] = [each for each in databases if "SourceDBInstanceIdentifier" not in each]
    # By the vCPUs of its target, two at least.
    vcpus = max(2, of["class_vcpus"][primary["DBInstanceClass"]])
    yield "vCPUs of its target", vcpus, of["proxy_vcpu_hour"] * table["hours_a_month"]


def _cache_nodes(row: Properties, table: Properties, _: Resources) -> Positions:
    groups = int(row.get("NumNodeGroups", 1))
    nodes = (
        int(row["NumCacheClusters"]) if "NumCacheClusters" in row else groups * (1 + int(row["ReplicasPerNodeGroup"]))
    )
    size = row["CacheNodeType"]
    yield size, nodes, table["cache"]["node_hour"][size] * table["hours_a_month"]


def _cache_serverless(row: Properties, table: Properties, _: Resources) -> Positions:
    of = table["cache"]
    least = row.get("CacheUsageLimits", {}).get("DataStorage", {}).get("Minimum", 0)
    yield "GB at least", max(of["serverless_floor_gb"], least), of["serverless_gb_hour"] * table["hours_a_month"]


def _nat_gateway(_: Properties, table: Properties, __: Resources) -> Positions:
    yield "gateway", 1, table["network"]["nat_gateway_hour"] * table["hours_a_month"]


def _address(_: Properties, table: Properties, __: Resources) -> Positions:
    yield "public IPv4 address", 1, table["network"]["public_ipv4_hour"] * table["hours_a_month"]


def _machine(row: Properties, table: Properties, _: Resources) -> Positions:
    of, size = table["machine"], row["InstanceType"]
    yield size, 1, of["type_hour"][size] * table["hours_a_month"]
    volumes = [each["Ebs"].get("VolumeSize", 0) for each in row.get("BlockDeviceMappings", []) if "Ebs" in each]
    yield "GiB of gp3", sum(volumes) or of["root_volume_gib"], of["gp3_gib_month"]
    if any(each.get("AssociatePublicIpAddress") for each in row.get("NetworkInterfaces", [])):
        yield from _address(row, table, {})


def _endpoint(row: Properties, table: Properties, _: Resources) -> Positions:
    if row.get("VpcEndpointType") == "Interface":
        yield "zones", len(row["SubnetIds"]), table["network"]["endpoint_zone_hour"] * table["hours_a_month"]


def _key(_: Properties, table: Properties, __: Resources) -> Positions:
    yield "key", 1, table["key"]["month"]


def _secret(_: Properties, table: Properties, __: Resources) -> Positions:
    yield "secret", 1, table["secret"]["month"]


def _alarm(row: Properties, table: Properties, _: Resources) -> Positions:
    metrics = sum("MetricStat" in each for each in row.get("Metrics", [])) or 1
    yield "metrics", metrics, table["watching"]["alarm_metric_month"]


def _composite_alarm(_: Properties, table: Properties, __: Resources) -> Positions:
    yield "composite alarm", 1, table["watching"]["composite_alarm_month"]


def _dashboard(_: Properties, table: Properties, __: Resources) -> Positions:
    yield "dashboard", 1, table["watching"]["dashboard_month"]


def _firewall(row: Properties, table: Properties, _: Resources) -> Positions:
    yield "web ACL", 1, table["firewall"]["acl_month"]
    yield "rules", len(row.get("Rules", [])), table["firewall"]["rule_month"]


def _version(row: Properties, table: Properties, resources: Resources) -> Positions:
    function = resources[row["FunctionName"]["Ref"]]["Properties"]
    gigabytes, seconds = function.get("MemorySize", 128) / 1024, table["hours_a_month"] * 3600
    if function.get("SnapStart", {}).get("ApplyOn") == "PublishedVersions":
        yield "GB of SnapStart", gigabytes, table["function"]["snap_start_gb_second"] * seconds
    if provisioned := row.get("ProvisionedConcurrencyConfig"):
        number = provisioned["ProvisionedConcurrentExecutions"]
        yield "GB provisioned", number * gigabytes, table["function"]["provisioned_gb_second"] * seconds


def _api_stage(row: Properties, table: Properties, _: Resources) -> Positions:
    if row.get("CacheClusterEnabled"):
        size = str(row["CacheClusterSize"])
        yield f"cache of {size} GB", 1, table["gateway"]["cache_hour"][size] * table["hours_a_month"]


_PRICED: dict[str, Callable[[Properties, Properties, Resources], Positions]] = {
    "AWS::ApiGateway::Stage": _api_stage,
    "AWS::CloudWatch::Alarm": _alarm,
    "AWS::CloudWatch::CompositeAlarm": _composite_alarm,
    "AWS::CloudWatch::Dashboard": _dashboard,
    "AWS::EC2::EIP": _address,
    "AWS::EC2::Instance": _machine,
    "AWS::EC2::NatGateway": _nat_gateway,
    "AWS::EC2::VPCEndpoint": _endpoint,
    "AWS::ElastiCache::ReplicationGroup": _cache_nodes,
    "AWS::ElastiCache::ServerlessCache": _cache_serverless,
    "AWS::KMS::Key": _key,
    "AWS::Lambda::Version": _version,
    "AWS::RDS::DBInstance": _database,
    "AWS::RDS::DBProxy": _proxy,
    "AWS::SecretsManager::Secret": _secret,
    "AWS::WAFv2::WebACL": _firewall,
}
