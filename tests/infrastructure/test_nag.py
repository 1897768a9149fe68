"""The rules of others: cdk-nag's packs and the CDK's own validation, over every resource of every stage."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.infrastructure.auditing import PLANTED

PACKS = "AwsSolutions", "Serverless", "NIST.800.53.R5"
VALIDATION = "CloudFormation Validate"


def findings(part: dict[str, Any], *, severities: tuple[str, ...], planted: bool = False) -> list[str]:
    return sorted(
        f"{violation['ruleName']} {construct['constructPath']}: {violation['description'][:120]}"
        for violation in part["violations"]
        if violation["severity"] in severities
        for construct in violation["violatingConstructs"]
        if construct["constructPath"].startswith(f"{PLANTED}/") == planted
    )


def ours(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [report[pack] for pack in PACKS]


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
    part = report[VALIDATION]
    warnings = findings(part, severities=("warning", "info"))
    accepted = part.get("suppressedViolations", [])
    print(f"built-in validation: 0 errors, {len(warnings)} warnings, {len(accepted)} accepted")
    errors = findings(part, severities=("error", "fatal"))
    assert not errors, "\n".join(errors)


def test_each_of_them_sees_the_fault_that_was_planted_in_the_same_run(report: dict[str, Any]) -> None:
    seen = {name: findings(part, severities=("error",), planted=True) for name, part in report.items()}
    assert any("Colour" in line for line in seen[VALIDATION])
    for rule in ("AwsSolutions-SQS4", "Serverless-SQSRedrivePolicy", "NIST.800.53.R5-SNSEncryptedKMS"):
        assert any(line.startswith(f"{rule} {PLANTED}/") for part in seen.values() for line in part), rule
