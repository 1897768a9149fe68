from __future__ import annotations

import pytest

from cdk.stages import STAGES, Stage
from tests.infrastructure.conftest import Templates
from tests.infrastructure.reading import only, properties, starting, text

per_stage = pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
with_nodes = pytest.mark.parametrize("stage", [s for s in STAGES if s.cache == "nodes"], ids=lambda stage: stage.name)


def test_dev_pays_for_what_it_uses_and_no_more_than_a_limit(templates: Templates) -> None:
    cache = only(templates["dev"]["data"], "AWS::ElastiCache::ServerlessCache")
    assert (cache["Engine"], cache["MajorEngineVersion"]) == ("valkey", "8")
    assert cache["CacheUsageLimits"]["DataStorage"] == {"Maximum": 1, "Unit": "GB"}
    assert "UserGroupId" in cache
    assert "isolated" in text(cache["SubnetIds"])


@with_nodes
def test_nodes_speak_tls_are_encrypted_and_stand_in_for_each_other(templates: Templates, stage: Stage) -> None:
    cache = only(templates[stage.name]["data"], "AWS::ElastiCache::ReplicationGroup")
    assert (cache["Engine"], cache["CacheNodeType"]) == ("valkey", stage.cache_class)
    assert (cache["TransitEncryptionEnabled"], cache["TransitEncryptionMode"]) == (True, "required")
    assert cache["AtRestEncryptionEnabled"] is True
    assert "keysdata" in text(cache["KmsKeyId"])
    assert cache["NumCacheClusters"] == stage.cache_nodes >= 2
    assert (cache["AutomaticFailoverEnabled"], cache["MultiAZEnabled"]) == (True, True)
    assert cache["SnapshotRetentionLimit"] > 0
    assert {log["LogType"] for log in cache["LogDeliveryConfigurations"]} == {"slow-log", "engine-log"}


@with_nodes
def test_a_full_cache_forgets_what_was_not_asked_for_longest(templates: Templates, stage: Stage) -> None:
    parameters = only(templates[stage.name]["data"], "AWS::ElastiCache::ParameterGroup")
    assert parameters["Properties"] == {"maxmemory-policy": "allkeys-lru"}
    assert parameters["CacheParameterGroupFamily"] == "valkey8"


@per_stage
def test_one_user_may_read_and_write_and_the_default_one_nothing(templates: Templates, stage: Stage) -> None:
    data = templates[stage.name]["data"]
    users = {user["UserName"]: user for user in properties(data, "AWS::ElastiCache::User")}
    assert set(users) == {"rag", "default"}
    assert users["default"]["AccessString"] == "off -@all"
    assert users["rag"]["AccessString"].startswith("on ")
    assert {"-@admin", "-@dangerous"} <= set(users["rag"]["AccessString"].split())
    assert not any(user.get("NoPasswordRequired") for user in users.values())
    group = only(data, "AWS::ElastiCache::UserGroup")
    assert group["UserIds"] == [user["UserId"] for user in users.values()]


@per_stage
def test_the_password_is_generated_and_in_no_template(templates: Templates, stage: Stage) -> None:
    data = templates[stage.name]["data"]
    for user in properties(data, "AWS::ElastiCache::User"):
        assert ["{{resolve:secretsmanager:" in text(password) for password in user["Passwords"]] == [True]
    secret = starting(data, "AWS::SecretsManager::Secret", "cachepassword")["Properties"]
    assert secret["GenerateSecretString"]["PasswordLength"] == 64
    assert "SecretString" not in secret
    assert ("KmsKeyId" in secret) == stage.own_keys


@per_stage
def test_no_other_account_ever_reads_a_secret_of_ours(templates: Templates, stage: Stage) -> None:
    data = templates[stage.name]["data"]
    policies = properties(data, "AWS::SecretsManager::ResourcePolicy")
    assert len(policies) == len(properties(data, "AWS::SecretsManager::Secret"))
    for policy in policies:
        [refusal] = [s for s in policy["ResourcePolicy"]["Statement"] if s.get("Sid") == "OtherAccounts"]
        assert refusal["Effect"] == "Deny"
        assert refusal["Condition"]["StringNotEquals"] == {"aws:PrincipalAccount": {"Ref": "AWS::AccountId"}}


@per_stage
def test_only_functions_reach_the_cache(templates: Templates, stage: Stage) -> None:
    rules = [
        rule
        for rule in properties(templates[stage.name]["data"], "AWS::EC2::SecurityGroupIngress")
        if "networkcache" in text(rule["GroupId"])
    ]
    [rule] = rules
    assert (rule["FromPort"], rule["ToPort"]) == (6379, 6379)
    assert "networkfunctions" in text(rule["SourceSecurityGroupId"])
