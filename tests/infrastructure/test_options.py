"""What no stage has by default: a bastion, copies elsewhere, uploads from a web page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cdk.stages import DEV, STAGING
from functions.table import ASKING
from tests.infrastructure.reading import only, properties, resources, starting, template_of, text

VAULT = "arn:aws:backup:eu-west-1:111122223333:backup-vault:elsewhere"
ORIGIN = "https://app.example.org"


@pytest.fixture(scope="module")
def optional() -> dict[str, Any]:
    row = replace(STAGING, bastion=True, copy_backups_to=VAULT, cors_origins=(ORIGIN,))
    return template_of(row, "data")


def test_budgets_of_the_stage_reach_those_who_ask_the_models() -> None:
    template = template_of(replace(DEV, tenant_tokens_per_day=2_000_000), "service")
    told = {
        each["FunctionName"].removeprefix("rag-dev-"): each.get("Environment", {})
        .get("Variables", {})
        .get("RAG_TENANT_TOKENS_PER_DAY")
        for each in properties(template, "AWS::Lambda::Function")
        if str(each.get("FunctionName", "")).startswith("rag-dev-")
    }
    assert {name for name, value in told.items() if value == "2000000"} == {row.name for row in ASKING}


def test_limits_of_documents_reach_who_reads_them_and_who_lets_them_in() -> None:
    template = template_of(replace(DEV, max_document_bytes=200_000_000, parse_seconds=120), "service")
    told = {
        each["FunctionName"].removeprefix("rag-dev-"): {
            name: value
            for name, value in each.get("Environment", {}).get("Variables", {}).items()
            if name in {"RAG_MAX_DOCUMENT_BYTES", "RAG_PARSE_SECONDS"}
        }
        for each in properties(template, "AWS::Lambda::Function")
        if str(each.get("FunctionName", "")).startswith("rag-dev-")
    }
    let_in = {"RAG_MAX_DOCUMENT_BYTES": "200000000"}
    assert {name: values for name, values in told.items() if values} == {
        "query": let_in,
        "answer": let_in,
        "ingest": let_in | {"RAG_PARSE_SECONDS": "120"},
    }


def test_the_bastion_has_no_address_no_key_and_reaches_database_and_cache(optional: dict[str, Any]) -> None:
    host = only(optional, "AWS::EC2::Instance")
    assert "KeyName" not in host
    assert "private" in text(host["SubnetId"])
    assert host["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
    rules = [
        (rule["FromPort"], text(rule["GroupId"]))
        for rule in properties(optional, "AWS::EC2::SecurityGroupIngress")
        if "networkbastion" in text(rule["SourceSecurityGroupId"])
    ]
    assert {port for port, _ in rules} == {443, 5432, 6379}
    assert not [rule for rule in properties(optional, "AWS::EC2::SecurityGroupIngress") if "CidrIp" in rule]


def test_copies_go_to_the_vault_that_the_stage_names(optional: dict[str, Any]) -> None:
    [rule] = only(optional, "AWS::Backup::BackupPlan")["BackupPlan"]["BackupPlanRule"]
    [copy] = rule["CopyActions"]
    assert copy == {"DestinationBackupVaultArn": VAULT, "Lifecycle": {"DeleteAfterDays": STAGING.recovery_days}}
    assert VAULT in text(starting(optional, "AWS::IAM::ManagedPolicy", "backupsrolepolicy"))


def test_a_web_page_of_the_named_origins_may_upload(optional: dict[str, Any]) -> None:
    documents = starting(optional, "AWS::S3::Bucket", "bucketsdocuments")["Properties"]
    [rule] = documents["CorsConfiguration"]["CorsRules"]
    assert (rule["AllowedOrigins"], rule["AllowedMethods"]) == ([ORIGIN], ["POST"])


def test_a_webhooks_requests_are_signed_by_one_function_alone() -> None:
    service = template_of(replace(STAGING, webhook_url="https://hooks.example.org/rag"), "service")
    secret = starting(service, "AWS::SecretsManager::Secret", "WebhookKey")["Properties"]
    assert (secret["Name"], "SecretString" in secret) == ("rag/staging/webhook", False)
    policies = {
        name
        for name, policy in resources(service, "AWS::IAM::ManagedPolicy").items()
        if "WebhookKey" in text(policy["Properties"]["PolicyDocument"])
    }
    assert {name.partition("Policy")[0] for name in policies} == {"Notify"}
    told = starting(service, "AWS::Lambda::Function", "Notify")["Properties"]["Environment"]["Variables"]
    assert told["RAG_WEBHOOK_URL"] == "https://hooks.example.org/rag"
    assert "WebhookKey" in text(told["RAG_WEBHOOK_SECRET"])


def test_pages_without_text_are_sent_to_textract_by_ingest_alone_and_only_where_that_is_asked_for() -> None:
    service = template_of(replace(STAGING, text_recognition=True), "service")
    allowed = {
        name.partition("Policy")[0]: policy["Properties"]["PolicyDocument"]["Statement"]
        for name, policy in resources(service, "AWS::IAM::ManagedPolicy").items()
        if "textract" in text(policy["Properties"]["PolicyDocument"])
    }
    assert set(allowed) == {"Ingest"}
    [statement] = [each for each in allowed["Ingest"] if "textract" in text(each)]
    # The CDK makes one statement of all that have no resource to name.
    assert [action for action in statement["Action"] if "textract" in action] == ["textract:DetectDocumentText"]
    assert (statement["Effect"], statement["Resource"]) == ("Allow", "*")
    told = {
        name.partition("Function")[0]
        for name, function in resources(service, "AWS::Lambda::Function").items()
        if function["Properties"].get("Environment", {}).get("Variables", {}).get("RAG_OCR") == "textract"
    }
    assert told == {"Ingest"}
    assert "textract" not in text(template_of(STAGING, "service"))
