"""The rules of others: cdk-nag's packs and the CDK's own validation, over every resource of every stage."""

from __future__ import annotations

from collections import Counter
from typing import Any

PACKS = "AwsSolutions", "Serverless", "NIST.800.53.R5"
VALIDATION = "CloudFormation Validate"


def findings(part: dict[str, Any], *, severities: tuple[str, ...]) -> list[str]:
    return sorted(
        f"{violation['ruleName']} {construct['constructPath']}: {violation['description'][:120]}"
        for violation in part["violations"]
        if violation["severity"] in severities
        for construct in violation["violatingConstructs"]
    )


def test_no_rule_of_three_packs_is_broken_without_a_reason(report: dict[str, Any]) -> None:
    assert set(report) == {*PACKS, VALIDATION}
    found = [line for pack in PACKS for line in findings(report[pack], severities=("error", "warning"))]
    assert not found, "\n".join(found)


def test_each_acknowledgement_has_a_reason_that_says_something(report: dict[str, Any]) -> None:
    accepted = [each for pack in PACKS for each in report[pack].get("suppressedViolations", [])]
    findings_of_rule = Counter(each["ruleName"] for each in accepted for _ in each["violatingConstructs"])
    acknowledgements = {(each["acknowledgedId"], each["acknowledgedAt"], each["reason"]) for each in accepted}
    print(f"cdk-nag: 0 findings, {findings_of_rule.total()} accepted by {len(acknowledgements)} acknowledgements:")
    for rule, number in sorted(findings_of_rule.items()):
        print(f"{number:6} {rule}")
    assert [given for given in acknowledgements if len(given[2].split()) < 5] == []


def test_the_built_in_validation_has_no_error(report: dict[str, Any]) -> None:
    part = report[VALIDATION]
    warnings = findings(part, severities=("warning", "info"))
    accepted = part.get("suppressedViolations", [])
    print(f"built-in validation: 0 errors, {len(warnings)} warnings, {len(accepted)} accepted")
    errors = findings(part, severities=("error", "fatal"))
    assert not errors, "\n".join(errors)
