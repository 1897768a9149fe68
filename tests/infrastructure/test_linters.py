"""Two programs that know CloudFormation find nothing but what is accepted with a reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.infrastructure import linters
from tests.infrastructure.measuring import measured


@pytest.mark.slow
def test_cfn_lint_finds_nothing(assembly: Path, lint_environment: Path) -> None:
    with measured(f"cfn-lint over {len(linters.templates_of(assembly))} templates"):
        found = linters.cfn_lint(assembly)
    assert not found, "\n".join(found)


@pytest.mark.slow
def test_checkov_finds_only_what_is_accepted_and_all_of_that(assembly: Path, lint_environment: Path) -> None:
    with measured("checkov"):
        findings, passed = linters.checkov(assembly)
    rows = linters.accepted()
    print(f"checkov: {passed} checks passed, {len(findings)} findings accepted by {len(rows)} rows with a reason")
    found = linters.unaccepted(findings)
    assert not found, "\n".join(found)
    assert [row["rule"] for row in rows if not any(each.accepted_by(row) for each in findings)] == []
    assert passed > 100


@pytest.mark.slow
def test_the_linters_see_a_fault(lint_environment: Path, tmp_path: Path) -> None:
    template = tmp_path / "assembly-dev" / "bad.template.json"
    template.parent.mkdir()
    key = '{"Type": "AWS::KMS::Key", "Properties": {"KeyPolicy": {}, "EnableKeyRotation": false, "Colour": "red"}}'
    template.write_text(f'{{"Resources": {{"Key": {key}}}}}')
    assert "Colour" in "".join(linters.cfn_lint(tmp_path))
    assert "CKV_AWS_7" in {found.rule for found in linters.checkov(tmp_path)[0]}


def test_each_skip_of_cfn_lint_stands_under_its_reason() -> None:
    lines = (linters.ROOT / "cdk" / "cfnlint.yaml").read_text().splitlines()
    skips = [place for place, line in enumerate(lines) if re.match(r"\s+- [EWI]\d{4}$", line)]
    assert skips
    assert [lines[place] for place in skips if not re.match(r"\s+# \S+ \S+ \S+", lines[place - 1])] == []


def test_each_accepted_finding_has_a_reason_that_says_something() -> None:
    assert [row["rule"] for row in linters.accepted() if len(row["reason"].split()) < 5] == []
