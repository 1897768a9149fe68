from __future__ import annotations

import pytest

from cdk.network import ENDPOINTS
from cdk.stages import DEV, PROD, STAGES, Stage
from tests.infrastructure.conftest import Templates
from tests.infrastructure.reading import only, properties, resources, starting, text

per_stage = pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
BOTH = pytest.mark.parametrize("direction", ["Egress", "Ingress"])


@per_stage
def test_every_zone_has_a_public_a_private_and_an_isolated_subnet_and_none_gives_out_addresses(
    templates: Templates, stage: Stage
) -> None:
    subnets = properties(templates[stage.name]["data"], "AWS::EC2::Subnet")
    assert len(subnets) == 3 * stage.zones
    assert not any(subnet.get("MapPublicIpOnLaunch") for subnet in subnets)


@per_stage
def test_isolated_subnets_have_no_way_out(templates: Templates, stage: Stage) -> None:
    routes = resources(templates[stage.name]["data"], "AWS::EC2::Route")
    assert {kind for kind in ("public", "private", "isolated") if any(kind in route for route in routes)} == {
        "public",
        "private",
    }


def test_dev_goes_out_by_one_small_instance_and_the_others_by_a_gateway_in_every_zone(templates: Templates) -> None:
    [router] = properties(templates["dev"]["data"], "AWS::EC2::Instance")
    assert (router["InstanceType"], router["SourceDestCheck"]) == ("t4g.nano", False)
    assert router["MetadataOptions"] == {"HttpTokens": "required"}
    assert router["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
    for stage in STAGES[1:]:
        assert len(properties(templates[stage.name]["data"], "AWS::EC2::NatGateway")) == stage.zones
        assert not properties(templates[stage.name]["data"], "AWS::EC2::Instance")


@per_stage
def test_functions_send_to_the_database_the_cache_and_https_and_receive_nothing(
    templates: Templates, stage: Stage
) -> None:
    data = templates[stage.name]["data"]
    group = starting(data, "AWS::EC2::SecurityGroup", "networkfunctions")["Properties"]
    assert [(rule["CidrIp"], rule["FromPort"], rule["ToPort"]) for rule in group["SecurityGroupEgress"]] == [
        ("0.0.0.0/0", 443, 443)
    ]
    assert "SecurityGroupIngress" not in group
    to_groups = [
        rule
        for rule in properties(data, "AWS::EC2::SecurityGroupEgress")
        if "networkfunctions" in text(rule["GroupId"])
    ]
    assert {rule["FromPort"] for rule in to_groups} == {5432, 6379}
    assert all("DestinationSecurityGroupId" in rule for rule in to_groups)
    assert not any("networkfunctions" in text(r["GroupId"]) for r in properties(data, "AWS::EC2::SecurityGroupIngress"))


@per_stage
def test_nobody_from_outside_is_let_in_anywhere(templates: Templates, stage: Stage) -> None:
    data = templates[stage.name]["data"]
    rules = properties(data, "AWS::EC2::SecurityGroupIngress")
    rules += [r for g in properties(data, "AWS::EC2::SecurityGroup") for r in g.get("SecurityGroupIngress", [])]
    assert rules
    assert [rule for rule in rules if "CidrIp" in rule or "CidrIpv6" in rule] == []


@BOTH
@per_stage
def test_no_rule_of_a_group_is_written_twice_which_ec2_refuses(
    templates: Templates, stage: Stage, direction: str
) -> None:
    rules = [
        text({name: value for name, value in rule.items() if name != "Description"})
        for rule in properties(templates[stage.name]["data"], f"AWS::EC2::SecurityGroup{direction}")
    ]
    assert len(rules) == len(set(rules)) > 0


@per_stage
def test_the_default_group_is_emptied(templates: Templates, stage: Stage) -> None:
    only(templates[stage.name]["data"], "Custom::VpcRestrictDefaultSG")


@per_stage
def test_s3_is_reached_without_the_way_out_and_only_the_stages_own_buckets(templates: Templates, stage: Stage) -> None:
    data = templates[stage.name]["data"]
    [gateway] = [e for e in properties(data, "AWS::EC2::VPCEndpoint") if e["VpcEndpointType"] == "Gateway"]
    assert len(gateway["RouteTableIds"]) == 2 * stage.zones
    for statement in gateway["PolicyDocument"]["Statement"]:
        assert statement["Condition"] == {"StringEquals": {"aws:PrincipalAccount": {"Ref": "AWS::AccountId"}}}
        assert len(statement["Resource"]) == 2
        assert all("bucketsdocuments" in text(r) or "bucketsbackups" in text(r) for r in statement["Resource"])


@per_stage
def test_aws_is_called_through_interface_endpoints_where_the_stage_pays_for_them(
    templates: Templates, stage: Stage
) -> None:
    data = templates[stage.name]["data"]
    endpoints = [e for e in properties(data, "AWS::EC2::VPCEndpoint") if e["VpcEndpointType"] == "Interface"]
    assert len(endpoints) == (len(ENDPOINTS) if stage.interface_endpoints else 0)
    for endpoint in endpoints:
        assert endpoint["PrivateDnsEnabled"] is True
        assert "networkendpoints" in text(endpoint["SecurityGroupIds"])
        [statement] = endpoint["PolicyDocument"]["Statement"]
        assert statement["Condition"] == {"StringEquals": {"aws:PrincipalAccount": {"Ref": "AWS::AccountId"}}}


@per_stage
def test_all_flows_are_logged_as_long_as_the_stage_says(templates: Templates, stage: Stage) -> None:
    data = templates[stage.name]["data"]
    assert only(data, "AWS::EC2::FlowLog")["TrafficType"] == "ALL"
    group = starting(data, "AWS::Logs::LogGroup", "networkflows")["Properties"]
    assert group["RetentionInDays"] == stage.flow_log_days
    assert ("KmsKeyId" in group) == stage.own_keys


def test_a_zone_more_in_prod_than_in_dev() -> None:
    assert (DEV.zones, PROD.zones) == (2, 3)
