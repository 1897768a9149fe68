from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cdk.database import ROOT_CERTIFICATES
from cdk.stages import DEV, STAGES, STAGING, Stage
from functions.table import FUNCTIONS, MAINTAIN, OWNER, ROLES
from tests.infrastructure.conftest import Templates
from tests.infrastructure.reading import Resource, only, properties, resources, stack_of, starting, text

ROOT = Path(__file__).parents[2]
per_stage = pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)


def instance(templates: Templates, stage: Stage) -> Resource:
    return starting(templates[stage.name]["data"], "AWS::RDS::DBInstance", "databaseinstance")


@per_stage
def test_the_instance_is_as_large_as_its_stage_and_grows_to_a_limit(templates: Templates, stage: Stage) -> None:
    own = instance(templates, stage)["Properties"]
    assert own["DBInstanceClass"] == f"db.{stage.database_class}"
    assert (own["AllocatedStorage"], own["MaxAllocatedStorage"]) == (str(stage.database_gib), stage.database_max_gib)
    assert (own["Engine"], own["EngineVersion"], own["StorageType"]) == ("postgres", "18.3", "gp3")
    assert own["MultiAZ"] is stage.database_multi_az


@per_stage
def test_the_instance_is_encrypted_private_and_knows_identities(templates: Templates, stage: Stage) -> None:
    own = instance(templates, stage)["Properties"]
    assert own["StorageEncrypted"] is True
    assert ("KmsKeyId" in own) == stage.own_keys
    assert own["PubliclyAccessible"] is False
    assert own["EnableIAMDatabaseAuthentication"] is True
    assert own["CACertificateIdentifier"] == "rds-ca-rsa2048-g1"
    assert "isolated" in text(properties(templates[stage.name]["data"], "AWS::RDS::DBSubnetGroup")[0]["SubnetIds"])


@per_stage
def test_a_protected_database_outlives_its_stack_with_its_backups(templates: Templates, stage: Stage) -> None:
    found = instance(templates, stage)
    own = found["Properties"]
    assert own["BackupRetentionPeriod"] == {"dev": 7, "staging": 14, "prod": 35}[stage.name]
    assert own["CopyTagsToSnapshot"] is True
    assert own["DeletionProtection"] is stage.protected
    assert own["DeleteAutomatedBackups"] is not stage.protected
    kept = "Snapshot" if stage.protected else "Delete"
    assert (found["DeletionPolicy"], found["UpdateReplacePolicy"]) == (kept, kept)
    assert own["PreferredBackupWindow"] not in own["PreferredMaintenanceWindow"]


@per_stage
def test_the_owners_password_is_made_by_aws_and_in_no_template(templates: Templates, stage: Stage) -> None:
    data = templates[stage.name]["data"]
    own = instance(templates, stage)["Properties"]
    assert own["MasterUsername"] == OWNER
    if stage.database_replica:
        assert "{{resolve:secretsmanager:" in text(own["MasterUserPassword"])
        assert "ManageMasterUserPassword" not in own
        rotation = only(data, "AWS::SecretsManager::RotationSchedule")
        assert rotation["HostedRotationLambda"]["RotationType"] == "PostgreSQLSingleUser"
    else:
        assert own["ManageMasterUserPassword"] is True
        assert "MasterUserPassword" not in own


@per_stage
def test_no_session_is_unencrypted_endless_or_unseen_when_slow(templates: Templates, stage: Stage) -> None:
    parameters = only(templates[stage.name]["data"], "AWS::RDS::DBParameterGroup")["Parameters"]
    assert parameters["rds.force_ssl"] == "1"
    assert parameters["password_encryption"] == "scram-sha-256"
    assert parameters["max_connections"] == str(stage.database_connections)
    assert parameters["shared_preload_libraries"] == "pg_stat_statements"
    assert 0 < int(parameters["idle_in_transaction_session_timeout"]) <= 60_000
    assert int(parameters["statement_timeout"]) == 1000 * MAINTAIN.timeout_seconds
    assert 0 < int(parameters["lock_timeout"]) < int(parameters["statement_timeout"])
    assert int(parameters["log_min_duration_statement"]) > 0
    assert parameters["log_lock_waits"] == "1"
    assert parameters["log_parameter_max_length"] == "0"


@per_stage
def test_the_log_groups_that_rds_writes_to_exist_before_it_would_make_them(templates: Templates, stage: Stage) -> None:
    data = templates[stage.name]["data"]
    groups = {group["LogGroupName"]: group["RetentionInDays"] for group in properties(data, "AWS::Logs::LogGroup")}
    for found in resources(data, "AWS::RDS::DBInstance").values():
        own = found["Properties"]
        assert len(found["DependsOn"]) == len(own["EnableCloudwatchLogsExports"]) == 2
        for log in own["EnableCloudwatchLogsExports"]:
            assert groups[f"/aws/rds/instance/{own['DBInstanceIdentifier']}/{log}"] == stage.log_days


@per_stage
def test_what_the_instance_does_is_measured(templates: Templates, stage: Stage) -> None:
    own = instance(templates, stage)["Properties"]
    assert own["EnablePerformanceInsights"] is True
    assert ("PerformanceInsightsKMSKeyId" in own) == stage.own_keys
    assert own.get("MonitoringInterval") == (60 if stage.enhanced_monitoring else None)
    assert own["AutoMinorVersionUpgrade"] is True


@per_stage
def test_only_functions_and_the_proxy_reach_the_database(templates: Templates, stage: Stage) -> None:
    rules = [
        rule
        for rule in properties(templates[stage.name]["data"], "AWS::EC2::SecurityGroupIngress")
        if "networkdatabase" in text(rule["GroupId"])
    ]
    sources = {"functions", "proxy"} if stage.database_proxy else {"functions"}
    assert len(rules) == len(sources)
    assert all((rule["FromPort"], rule["ToPort"]) == (5432, 5432) for rule in rules)
    assert {s for s in sources if any(f"network{s}" in text(r["SourceSecurityGroupId"]) for r in rules)} == sources


@per_stage
def test_the_proxy_passes_identities_on_and_may_connect_as_the_functions_roles_alone(
    templates: Templates, stage: Stage
) -> None:
    data = templates[stage.name]["data"]
    assert len(properties(data, "AWS::RDS::DBProxy")) == int(stage.database_proxy)
    if not stage.database_proxy:
        return
    proxy = only(data, "AWS::RDS::DBProxy")
    assert (proxy["DefaultAuthScheme"], proxy["RequireTLS"], "Auth" in proxy) == ("IAM_AUTH", True, False)
    pool = only(data, "AWS::RDS::DBProxyTargetGroup")["ConnectionPoolConfigurationInfo"]
    assert pool["MaxConnectionsPercent"] == 80
    policy = starting(data, "AWS::IAM::ManagedPolicy", "databaseproxyrolepolicy")["Properties"]["PolicyDocument"]
    [statement] = policy["Statement"]
    assert statement["Action"] == "rds-db:connect"
    users = {text(resource).rpartition("/")[2].strip('"]}') for resource in statement["Resource"]}
    assert users == set(ROLES)
    assert OWNER not in users


def test_functions_go_where_the_stage_has_it_and_the_owner_always_to_the_instance() -> None:
    for stage in (DEV, STAGING):
        data = stack_of(stage, "data")
        database = data.database
        through, direct = (text(data.resolve(database.url("rag_query", direct=d))) for d in (False, True))
        assert ("databaseproxy" in through) is stage.database_proxy
        assert "databaseinstance" in direct
        assert "databaseproxy" not in direct
        assert "postgresql://rag_query@" in through
        for url, proxied in ((through, stage.database_proxy), (direct, False)):
            assert f":5432/rag?sslmode=verify-full&sslrootcert={ROOT_CERTIFICATES}/" in url
            assert ("/proxy.pem" in url) is proxied
            assert ("AWS::Region" in url) is not proxied
        statement = data.resolve(database.connect_statement("rag_query").to_statement_json())
        assert statement["Action"] == "rds-db:connect"
        assert text(statement["Resource"]).endswith('/rag_query"]]}')
        assert ("databaseproxy" in text(statement["Resource"])) is stage.database_proxy


def test_reading_the_owners_password_takes_no_more_than_that_secret_and_its_key() -> None:
    data = stack_of(STAGING, "data")
    read, decrypt = (data.resolve(each.to_statement_json()) for each in data.database.secret_statements())
    assert read["Action"] == "secretsmanager:GetSecretValue"
    assert "MasterUserSecret.SecretArn" in text(read["Resource"])
    assert decrypt["Action"] == "kms:Decrypt"
    assert "secretsmanager." in text(decrypt["Condition"]["StringEquals"]["kms:ViaService"])


def test_prod_has_a_replica_with_what_its_source_has(templates: Templates) -> None:
    replica = starting(templates["prod"]["data"], "AWS::RDS::DBInstance", "databasereplica")["Properties"]
    source = starting(templates["prod"]["data"], "AWS::RDS::DBInstance", "databaseinstance")["Properties"]
    shared = (
        "DBInstanceClass",
        "DBParameterGroupName",
        "VPCSecurityGroups",
        "PubliclyAccessible",
        "MonitoringInterval",
    )
    assert {name: replica[name] for name in shared} == {name: source[name] for name in shared}
    assert not {"StorageEncrypted", "KmsKeyId", "MasterUsername"} & set(replica)


def test_no_function_is_told_of_the_replica(templates: Templates, record_fault: Callable[..., None]) -> None:
    """An answer from it could be older than what its reader was told of."""
    functions = properties(templates["prod"]["service"], "AWS::Lambda::Function")
    environments = [text(each.get("Environment", {})) for each in functions]
    told = [each for each in environments if "databasereplica" in each]
    connected = [each for each in environments if "databaseproxy" in each or "databaseinstance" in each]
    figure = f"of prod's {len(connected)} functions {len(told)} are told of its replica"
    record_fault("C12", injected=len(connected), violations=len(told), figure=figure)
    assert told == []
    assert len(connected) == len(FUNCTIONS)


def test_the_roots_that_the_urls_name_lie_in_our_layer() -> None:
    folder = ROOT / "layers/rag" / Path(ROOT_CERTIFICATES).relative_to("/opt")
    assert {"proxy", "us-east-1", "eu-central-1"} <= {path.stem for path in folder.glob("*.pem")}
