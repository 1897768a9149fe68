"""What stages cost idle: every type priced or named, the sums printed, dev cheap enough to leave alone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cdk.cost import idle
from cdk.templates import Templates
from local import cli

DOCUMENT = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text()
DEV_USD = 35


def stack(**resources: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    rows = {name: {"Type": kind, "Properties": properties} for name, (kind, properties) in resources.items()}
    return {"data": {"Resources": rows}}


def test_dev_is_cheap_enough_to_leave_idle(templates: Templates) -> None:
    bills = {stage: idle(stacks) for stage, stacks in templates.items()}
    for stage, bill in bills.items():
        print(f"{stage} idle: {bill.usd:.2f} USD a month in {len(bill.lines)} positions")
    assert 0 < bills["dev"].usd <= DEV_USD


def test_every_type_of_every_stage_is_in_the_table_of_prices(templates: Templates) -> None:
    assert {stage: idle(stacks).unknown for stage, stacks in templates.items()} == {stage: [] for stage in templates}


def test_the_deployment_guide_says_what_each_stage_costs(templates: Templates) -> None:
    said = dict(re.findall(r"^\| (dev|staging|prod) \| ([0-9.]+) USD", DOCUMENT, re.MULTILINE))
    assert said == {stage: f"{idle(stacks).usd:.0f}" for stage, stacks in templates.items()}


def test_a_type_that_the_table_does_not_know_is_named_and_never_free() -> None:
    bill = idle(stack(Search=("AWS::OpenSearchService::Domain", {})))
    assert (bill.lines, bill.unknown) == ([], ["AWS::OpenSearchService::Domain"])


def test_a_class_that_the_table_does_not_know_is_an_error() -> None:
    with pytest.raises(KeyError, match=r"db\.x2g\.large"):
        idle(stack(Database=("AWS::RDS::DBInstance", {"DBInstanceClass": "db.x2g.large", "AllocatedStorage": "20"})))


def test_a_second_zone_doubles_a_database_and_a_replica_has_the_storage_of_its_source() -> None:
    one = {"DBInstanceClass": "db.t4g.micro", "AllocatedStorage": "20"}
    replica = {
        "DBInstanceClass": "db.t4g.micro",
        "SourceDBInstanceIdentifier": {"Fn::GetAtt": ["Database", "DBInstanceArn"]},
    }
    alone = idle(stack(Database=("AWS::RDS::DBInstance", one))).usd
    assert alone == pytest.approx(11.68 + 20 * 0.115)
    assert idle(stack(Database=("AWS::RDS::DBInstance", one | {"MultiAZ": True}))).usd == pytest.approx(2 * alone)
    both = stack(Database=("AWS::RDS::DBInstance", one), Replica=("AWS::RDS::DBInstance", replica))
    assert idle(both).usd == pytest.approx(2 * alone)


def test_an_interface_endpoint_is_paid_in_each_zone_and_a_gateway_endpoint_is_not() -> None:
    zones = {"VpcEndpointType": "Interface", "SubnetIds": [1, 2, 3]}
    assert idle(stack(Secrets=("AWS::EC2::VPCEndpoint", zones))).usd == pytest.approx(3 * 7.30)
    assert idle(stack(Files=("AWS::EC2::VPCEndpoint", {"VpcEndpointType": "Gateway"}))).usd == 0


def test_a_snap_start_version_is_paid_by_memory_and_another_version_is_not() -> None:
    version = "AWS::Lambda::Version", {"FunctionName": {"Ref": "Query"}}
    slow = {"MemorySize": 1024}
    fast = slow | {"SnapStart": {"ApplyOn": "PublishedVersions"}}
    assert idle(stack(Query=("AWS::Lambda::Function", slow), Version=version)).usd == 0
    assert idle(stack(Query=("AWS::Lambda::Function", fast), Version=version)).usd == pytest.approx(3.95, abs=0.01)


def test_outside_a_clone_the_command_says_where_it_works() -> None:
    program = (
        "import sys; sys.modules['cdk'] = None; from local import cli; sys.exit(cli.run(['cost', '--stage', 'dev']))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "Run it in a clone of the repository" in ran.stderr


def test_a_stage_that_does_not_exist_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["cost", "--stage", "production"]) == 2
    assert "dev, staging, prod" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_prints_what_the_templates_cost(templates: Templates, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["cost", "--stage", "prod", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["usd"] == round(idle(templates["prod"]).usd, 2)
    example = json.loads(
        re.findall(r"```json cost\n(.*?)```", (Path(__file__).parents[2] / "docs" / "cli.md").read_text(), re.DOTALL)[0]
    )
    assert (set(printed), set(printed["lines"][0])) == (set(example), set(example["lines"][0]))
    assert cli.run(["cost", "--stage", "prod"]) == 0
    assert f"prod idle: {printed['usd']:.2f} USD a month" in capsys.readouterr().out
