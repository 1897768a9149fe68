"""`poe create-only`: write `create_only.json` anew from the resource schemas that lie in cfn-lint's distribution."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parent / "create_only.json"

# What holds state, or an address that somebody wrote down.
STATEFUL = (
    "AWS::ApiGateway::RestApi",
    "AWS::Backup::BackupVault",
    "AWS::Cognito::UserPool",
    "AWS::Cognito::UserPoolClient",
    "AWS::EC2::Subnet",
    "AWS::EC2::VPC",
    "AWS::ElastiCache::ReplicationGroup",
    "AWS::ElastiCache::ServerlessCache",
    "AWS::KMS::Key",
    "AWS::Logs::LogGroup",
    "AWS::RDS::DBInstance",
    "AWS::S3::Bucket",
    "AWS::SNS::Topic",
    "AWS::SQS::Queue",
    "AWS::SecretsManager::Secret",
)

# Conditional in the schema; the user guide of AWS::RDS::DBInstance promises «some interruptions» at most, and of
# AWS::ElastiCache::ReplicationGroup «no interruption» for a rotated token.
IN_PLACE = {
    "AWS::RDS::DBInstance": {
        "AutoMinorVersionUpgrade",
        "BackupRetentionPeriod",
        "DBParameterGroupName",
        "MultiAZ",
        "PerformanceInsightsKMSKeyId",
        "PreferredMaintenanceWindow",
    },
    "AWS::ElastiCache::ReplicationGroup": {"AuthToken"},
}


def from_schemas(folder: Path) -> dict[str, list[str]]:
    """Type → its create-only properties, of every stateful type; `folder` holds one JSON schema for each type."""
    schemas = {}
    for path in folder.glob("*.json"):
        schema = json.loads(path.read_text())
        schemas[schema.get("typeName")] = schema
    return {name: sorted(_properties(schemas[name]) - IN_PLACE.get(name, set())) for name in STATEFUL}


def _properties(schema: dict[str, Any]) -> set[str]:
    pointers = schema.get("createOnlyProperties", []) + schema.get("conditionalCreateOnlyProperties", [])
    # `/properties/Name` or deeper: a change anywhere below counts.
    return {pointer.split("/")[2] for pointer in pointers}


def schemas_beside(environment: Path) -> Path:
    """Where cfn-lint of that virtual environment keeps them."""
    [folder] = environment.glob("lib/python3*/site-packages/cfnlint/data/schemas/resources")
    return folder


if __name__ == "__main__":
    found = from_schemas(schemas_beside(Path(".venv-lint")))
    TABLE.write_text(json.dumps(found, indent=2) + "\n")
