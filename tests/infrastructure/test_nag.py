"""The rules of others: cdk-nag's packs and the CDK's own validation, over every resource of every stage."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import aws_cdk
from aws_cdk import aws_sqs

from tests.infrastructure.auditing import audited_app

PACKS = "AwsSolutions", "Serverless", "NIST.800.53.R5"
VALIDATION = "CloudFormation Validate"


def findings(part: dict[str, Any], *, severities: tuple[str, ...]) -> list[str]:
    return sorted(
        f"{violation['ruleName']} {construct['constructPath']}: {violation['description'][:120]}"
        for violation in part["violations"]
        if violation["severity"] in severities
        for construct in violation["violatingConstructs"]
    )


def ours(report: dict[str, Any]) -> list[dict[str, Any]]:
    # A pack has no part in the report where it has nothing to say.
    return [report[pack] for pack in PACKS if pack in report]


def test_no_rule_of_three_packs_is_broken_without_a_reason(report: dict[str, Any]) -> None:
    found = [line for part in ours(report) for line in findings(part, severities=("error", "warning"))]
    assert not found, "\n".join(found)


def test_each_acknowledgement_has_a_reason_that_says_something(report: dict[str, Any]) -> None:
    accepted = [each for part in ours(report) for each in part.get("suppressedViolations", [])]
    findings_of_rule = Counter(each["ruleName"] for each in accepted for _ in each["violatingConstructs"])
    acknowledgements = {(each["acknowledgedId"], each["acknowledgedAt"], each["reason"]) for each in accepted}
    print(f"cdk-nag: 0 findings, {findings_of_rule.total()} accepted by {len(acknowledgements)} acknowledgements:")
    for rule, number in sorted(findings_of_rule.items()):
        print(f"{number:6} {rule}")
    assert [given for given in acknowledgements if len(given[2].split()) < 4] == []


def test_the_built_in_validation_has_no_error(report: dict[str, Any]) -> None:
    # It has no part in the report where it has nothing to say.
    part = report.get(VALIDATION, {"violations": []})
    warnings = findings(part, severities=("warning", "info"))
    accepted = part.get("suppressedViolations", [])
    print(f"built-in validation: 0 errors, {len(warnings)} warnings, {len(accepted)} accepted")
    errors = findings(part, severities=("error", "fatal"))
    assert not errors, "\n".join(errors)


def test_the_built_in_validation_and_the_packs_see_a_fault(tmp_path: Path) -> None:
    platforms = audited_app(tmp_path, stages=())
    stack = aws_cdk.Stack(platforms, "faulty")
    aws_cdk.CfnResource(stack, "Painted", type="AWS::SQS::Queue", properties={"Colour": "red"})
    aws_sqs.CfnQueue(stack, "Open")
    platforms.synth()
    parts = json.loads((tmp_path / "validation-report.json").read_text())["pluginReports"]
    found = {part["pluginName"]: part for part in parts}
    assert any("Colour" in line for line in findings(found[VALIDATION], severities=("error",)))
    assert any(line.startswith("AwsSolutions-SQS4 ") for line in findings(found["AwsSolutions"], severities=("error",)))
