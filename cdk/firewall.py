"""AWS WAF before the API: who may come at all, how often, with what."""

from __future__ import annotations

from typing import TypeAlias

import aws_cdk
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_logs as logs
from aws_cdk import aws_wafv2 as waf
from constructs import Construct

from cdk.keys import Keys
from cdk.logs import log_group
from cdk.stages import Stage

# Of one address in five minutes.
REQUESTS_PER_ADDRESS = 2_000
BODY_BYTES = 8_192
# What people write: 4000 characters may have 16 000 bytes, and the description of an upload as many.
WRITTEN_BODY_BYTES = 32_768
WRITTEN = ("/v1/query", "/v1/search", "/v1/documents")
# A question about markup or paths is no attack: bodies are JSON that is bound as parameters and never run or rendered.
_TOLD_OF_ONLY = (
    "SizeRestrictions_BODY",
    "CrossSiteScripting_BODY",
    "GenericLFI_BODY",
    "GenericRFI_BODY",
    "EC2MetaDataSSRF_BODY",
)
_NOTHING: dict[str, object] = {}

Statement: TypeAlias = waf.CfnWebACL.StatementProperty


class Firewall(Construct):
    """Rules are tried in this order; the first that blocks is the answer."""

    def __init__(self, scope: Construct, name: str, *, stage: Stage, api: apigateway.RestApi, keys: Keys) -> None:
        super().__init__(scope, name)
        self._stage = stage
        rules = [
            *self._addresses(),
            self._rule("Rate", _rate(), 10),
            self._rule("Size", _larger(BODY_BYTES, written=False), 20),
            self._rule("WrittenSize", _larger(WRITTEN_BODY_BYTES, written=True), 21),
            self._managed("AWSManagedRulesCommonRuleSet", 30, told_of_only=_TOLD_OF_ONLY),
            self._managed("AWSManagedRulesKnownBadInputsRuleSet", 40),
        ]
        acl = waf.CfnWebACL(
            self,
            "Acl",
            name=f"rag-{stage.name}",
            scope="REGIONAL",
            default_action=waf.CfnWebACL.DefaultActionProperty(allow=_NOTHING),
            visibility_config=self._visible("All"),
            association_config=waf.CfnWebACL.AssociationConfigProperty(
                request_body={
                    "API_GATEWAY": waf.CfnWebACL.RequestBodyAssociatedResourceTypeConfigProperty(
                        default_size_inspection_limit="KB_48"
                    )
                }
            ),
            rules=rules,
        )
        waf.CfnWebACLAssociation(
            self, "Association", resource_arn=api.deployment_stage.stage_arn, web_acl_arn=acl.attr_arn
        )
        # Where WAF may write is known by this beginning of the name.
        log = log_group(self, "Log", stage=stage, keys=keys, log_group_name=f"aws-waf-logs-rag-{stage.name}")
        waf.CfnLoggingConfiguration(
            self,
            "Logging",
            resource_arn=acl.attr_arn,
            log_destination_configs=[_arn(log)],
            redacted_fields=[
                waf.CfnLoggingConfiguration.FieldToMatchProperty(single_header={"Name": header})
                for header in ("authorization", "x-api-key")
            ],
        )

    def _addresses(self) -> list[waf.CfnWebACL.RuleProperty]:
        """Nobody else comes in where a stage names who may; IPv4 and IPv6 are lists of their own."""
        sets = []
        for version in ("IPV4", "IPV6"):
            ranges = [one for one in self._stage.allowed_cidrs if (":" in one) == (version == "IPV6")]
            if ranges:
                sets.append(
                    waf.CfnIPSet(
                        self,
                        f"Allowed{version}",
                        name=f"rag-{self._stage.name}-{version.lower()}",
                        scope="REGIONAL",
                        ip_address_version=version,
                        addresses=ranges,
                    )
                )
        if not sets:
            return []
        listed = [
            Statement(ip_set_reference_statement=waf.CfnWebACL.IPSetReferenceStatementProperty(arn=one.attr_arn))
            for one in sets
        ]
        return [self._rule("Addresses", _not(_any(listed)), 0)]

    def _rule(self, name: str, statement: Statement, priority: int) -> waf.CfnWebACL.RuleProperty:
        return waf.CfnWebACL.RuleProperty(
            name=name,
            priority=priority,
            statement=statement,
            action=waf.CfnWebACL.RuleActionProperty(block=_NOTHING),
            visibility_config=self._visible(name),
        )

    def _managed(self, name: str, priority: int, *, told_of_only: tuple[str, ...] = ()) -> waf.CfnWebACL.RuleProperty:
        count = waf.CfnWebACL.RuleActionProperty(count=_NOTHING)
        overrides = [waf.CfnWebACL.RuleActionOverrideProperty(name=rule, action_to_use=count) for rule in told_of_only]
        group = waf.CfnWebACL.ManagedRuleGroupStatementProperty(
            vendor_name="AWS", name=name, rule_action_overrides=overrides or None
        )
        return waf.CfnWebACL.RuleProperty(
            name=name,
            priority=priority,
            statement=Statement(managed_rule_group_statement=group),
            override_action=waf.CfnWebACL.OverrideActionProperty(none=_NOTHING),
            visibility_config=self._visible(name),
        )

    def _visible(self, name: str) -> waf.CfnWebACL.VisibilityConfigProperty:
        return waf.CfnWebACL.VisibilityConfigProperty(
            cloud_watch_metrics_enabled=True,
            metric_name=f"rag-{self._stage.name}-{name}",
            sampled_requests_enabled=False,
        )


def _arn(log: logs.LogGroup) -> str:
    """A log group's own ARN ends with `:*`, which WAF does not take."""
    arn = aws_cdk.Stack.of(log).format_arn(
        service="logs",
        resource="log-group",
        resource_name=log.log_group_name,
        arn_format=aws_cdk.ArnFormat.COLON_RESOURCE_NAME,
    )
    return str(arn)


def _rate() -> Statement:
    return Statement(
        rate_based_statement=waf.CfnWebACL.RateBasedStatementProperty(
            limit=REQUESTS_PER_ADDRESS, aggregate_key_type="IP"
        )
    )


def _larger(limit: int, *, written: bool) -> Statement:
    size = Statement(
        size_constraint_statement=waf.CfnWebACL.SizeConstraintStatementProperty(
            comparison_operator="GT",
            size=limit,
            field_to_match=waf.CfnWebACL.FieldToMatchProperty(
                body=waf.CfnWebACL.BodyProperty(oversize_handling="MATCH")
            ),
            text_transformations=[_AS_IT_IS],
        )
    )
    place = _any([_ends_with(path) for path in WRITTEN])
    return _all([size, place if written else _not(place)])


def _ends_with(path: str) -> Statement:
    """The path begins with the stage's name, but under a domain of one's own."""
    return Statement(
        byte_match_statement=waf.CfnWebACL.ByteMatchStatementProperty(
            field_to_match=waf.CfnWebACL.FieldToMatchProperty(uri_path=_NOTHING),
            positional_constraint="ENDS_WITH",
            search_string=path,
            text_transformations=[_AS_IT_IS],
        )
    )


def _any(statements: list[Statement]) -> Statement:
    if len(statements) == 1:
        return statements[0]
    return Statement(or_statement=waf.CfnWebACL.OrStatementProperty(statements=statements))


def _all(statements: list[Statement]) -> Statement:
    return Statement(and_statement=waf.CfnWebACL.AndStatementProperty(statements=statements))


def _not(statement: Statement) -> Statement:
    return Statement(not_statement=waf.CfnWebACL.NotStatementProperty(statement=statement))


_AS_IT_IS = waf.CfnWebACL.TextTransformationProperty(priority=0, type="NONE")
