"""The firewall before the API: what it blocks, what it only tells of, what its log leaves out."""

from __future__ import annotations

import pytest

from cdk.templates import Templates
from tests.infrastructure.reading import only, properties, text

STAGES = ("staging", "prod")


def test_a_stage_to_try_things_in_pays_for_none(templates: Templates) -> None:
    assert not properties(templates["dev"]["service"], "AWS::WAFv2::WebACL")


@pytest.mark.parametrize("stage", STAGES)
def test_a_long_question_passes_and_nothing_larger_does(templates: Templates, stage: str) -> None:
    acl = only(templates[stage]["service"], "AWS::WAFv2::WebACL")
    limits = {
        rule["Name"]: rule["Statement"]["AndStatement"]["Statements"][0]["SizeConstraintStatement"]
        for rule in acl["Rules"]
        if "Size" in rule["Name"]
    }
    assert {name: limit["Size"] for name, limit in limits.items()} == {"Size": 8192, "WrittenSize": 32768}
    # 4000 characters of the longest, escaped as JSON may be, and what stands around them.
    assert limits["WrittenSize"]["Size"] > 4000 * len("\\u3042") + 2000
    assert {limit["FieldToMatch"]["Body"]["OversizeHandling"] for limit in limits.values()} == {"MATCH"}
    inspected = acl["AssociationConfig"]["RequestBody"]["API_GATEWAY"]["DefaultSizeInspectionLimit"]
    assert int(inspected.removeprefix("KB_")) * 1024 > limits["WrittenSize"]["Size"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_question_about_markup_is_no_attack(templates: Templates, stage: str) -> None:
    rules = only(templates[stage]["service"], "AWS::WAFv2::WebACL")["Rules"]
    [common] = [rule for rule in rules if rule["Name"] == "AWSManagedRulesCommonRuleSet"]
    counted = common["Statement"]["ManagedRuleGroupStatement"]["RuleActionOverrides"]
    assert all(rule["Name"].endswith("_BODY") and list(rule["ActionToUse"]) == ["Count"] for rule in counted)


@pytest.mark.parametrize("stage", STAGES)
def test_its_log_holds_no_credential(templates: Templates, stage: str) -> None:
    logging = only(templates[stage]["service"], "AWS::WAFv2::LoggingConfiguration")
    redacted = text(logging["RedactedFields"])
    assert "authorization" in redacted
    assert "x-api-key" in redacted
    names = [group["LogGroupName"] for group in properties(templates[stage]["service"], "AWS::Logs::LogGroup")]
    assert f"aws-waf-logs-rag-{stage}" in names
