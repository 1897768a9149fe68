"""Promises of the HTTP API, its firewall and its plans."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.infrastructure.checks.estate import Estate, Resource, text
from tests.infrastructure.checks.table import PROTECTED, Spoil, check

# Who asks these has no key yet: monitors, and people who read the documentation.
OPEN = {"/health", "/ready", "/docs", "/openapi.json"}
_PREFLIGHT = "OPTIONS"


def path(estate: Estate, method: Resource) -> str:
    """The path of a method, from the root."""
    parts: list[str] = []
    [here] = estate.targets(method.stack, method.get("ResourceId"))
    while here.kind == "AWS::ApiGateway::Resource":
        parts.insert(0, here.get("PathPart"))
        [here] = estate.targets(here.stack, here.get("ParentId"))
    return "/" + "/".join(parts)


@check("API", Spoil("ApiGateway::Stage", "AccessLogSetting.Format", '{"authorization": "$context.authorizer"}'))
def access_log(estate: Estate) -> Iterator[str]:
    """Every request is logged as JSON with its id and who asked, and never with a key."""
    stages = estate.of("ApiGateway::Stage")
    if not stages:
        yield "there is no API"
    for stage in stages:
        said = stage.get("AccessLogSetting.Format", "{}")
        values = json.loads(said).values()
        if "$context.requestId" not in values or not any(each.startswith("$context.authorizer.") for each in values):
            yield f"{stage}: {said}"
        if "authorization" in said.lower().replace("authorizer", "") or "api-key" in said.lower():
            yield f"{stage}: logs a key"


@check("API", Spoil("ApiGateway::Stage", "MethodSettings", []))
def throttled(estate: Estate) -> Iterator[str]:
    """The stage and its costly method have rates of their own; what was asked is never traced."""
    for stage in estate.of("ApiGateway::Stage"):
        rows = stage.get("MethodSettings", [])
        limited = [row for row in rows if row.get("ThrottlingRateLimit") and row.get("ThrottlingBurstLimit")]
        if {row["HttpMethod"] for row in limited} < {"*", "POST"} or any(row.get("DataTraceEnabled") for row in rows):
            yield f"{stage}: {rows}"
        if stage.get("TracingEnabled") is not True:
            yield f"{stage}: not traced"


@check("API", Spoil("ApiGateway::Method", "RequestValidatorId"))
def validated(estate: Estate) -> Iterator[str]:
    """Every method has a request validator."""
    for method in estate.of("ApiGateway::Method"):
        if method.get("HttpMethod") != _PREFLIGHT and not method.get("RequestValidatorId"):
            yield f"{method.get('HttpMethod')} {path(estate, method)}"


@check("API", Spoil("ApiGateway::Method", "AuthorizationType", "NONE"))
def authorized(estate: Estate) -> Iterator[str]:
    """Every method asks the authorizer, except the pages that are for everybody."""
    for method in estate.of("ApiGateway::Method"):
        where = path(estate, method)
        everybody = where in OPEN or method.get("HttpMethod") == _PREFLIGHT
        if not everybody and (method.get("AuthorizationType") != "CUSTOM" or not method.get("AuthorizerId")):
            yield f"{method.get('HttpMethod')} {where}"


@check("API", Spoil("ApiGateway::Authorizer", "AuthorizerResultTtlInSeconds", 3600))
def decisions_are_fresh(estate: Estate) -> Iterator[str]:
    """A decision on who is asking is kept for a minute at most, and where it is kept, by the key it was about."""
    authorizers = estate.of("ApiGateway::Authorizer")
    if not authorizers:
        yield "nobody asks who is calling"
    for authorizer in authorizers:
        kept = authorizer.get("AuthorizerResultTtlInSeconds", 300)
        if kept > 60 or (kept and "method.request.header." not in authorizer.get("IdentitySource", "")):
            yield f"{authorizer}: {kept} s by {authorizer.get('IdentitySource')!r}"


def rules(acl: Resource) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = acl.get("Rules", [])
    return found


@check("Firewall", Spoil("WAFv2::WebACL", "Rules", []), stages=PROTECTED)
def firewall(estate: Estate) -> Iterator[str]:
    """The API is behind a firewall: rules against common attacks and known bad inputs, a rate, a size; and it logs."""
    acls = estate.of("WAFv2::WebACL")
    if not acls or not estate.of("WAFv2::WebACLAssociation") or not estate.of("WAFv2::LoggingConfiguration"):
        yield "no firewall, or it is not before the API, or it does not log"
    for acl in acls:
        said = json.dumps(rules(acl))
        wanted = (
            "AWSManagedRulesCommonRuleSet",
            "AWSManagedRulesKnownBadInputsRuleSet",
            "RateBasedStatement",
            "SizeConstraint",
        )
        yield from (f"{acl}: no {word}" for word in wanted if word not in said)
        for rule in rules(acl):
            if "Count" in rule.get("Action", {}) or "Count" in rule.get("OverrideAction", {}):
                yield f"{acl}: {rule['Name']} only counts"


@check("API", Spoil("ApiGateway::RestApi", "DisableExecuteApiEndpoint", "unsaid"))
def one_address(estate: Estate) -> Iterator[str]:
    """With a domain of its own, which wants TLS 1.2, the API has no other address."""
    for api in estate.of("ApiGateway::RestApi"):
        if api.get("DisableExecuteApiEndpoint", False) is not bool(estate.stage.domain):
            yield str(api)
    for domain in estate.of("ApiGateway::DomainName", "ApiGateway::DomainNameV2"):
        if not str(domain.get("SecurityPolicy")).startswith(("TLS_1_2", "SecurityPolicy_TLS13")):
            yield str(domain)


@check(
    "API",
    Spoil(
        "ApiGateway::GatewayResponse",
        "ResponseParameters",
        {"gatewayresponse.header.Access-Control-Allow-Origin": "'*'"},
    ),
)
def origins_are_named(estate: Estate) -> Iterator[str]:
    """No answer is for pages of every origin."""
    for each in estate.of("ApiGateway::GatewayResponse", "ApiGateway::Method"):
        said = json.dumps(each.properties)
        if "Allow-Origin\": \"'*'" in said:
            yield str(each)


@check("Usage", Spoil("ApiGateway::UsagePlan", "Quota"))
def plans(estate: Estate) -> Iterator[str]:
    """Keys of the API's own have a quota and a rate."""
    found = estate.of("ApiGateway::UsagePlan")
    if not found:
        yield "there is no plan"
    for plan in found:
        if not plan.get("Quota.Limit") or not plan.get("Throttle.RateLimit"):
            yield str(plan)


@check("Usage", Spoil("Budgets::Budget", "Budget.BudgetLimit.Amount", 1_000_000), stages=PROTECTED)
def budget(estate: Estate) -> Iterator[str]:
    """Somebody is told before the stage has cost its month."""
    limits = [float(each.get("Budget.BudgetLimit.Amount")) for each in estate.of("Budgets::Budget")]
    if limits != [estate.stage.budget_usd]:
        yield f"budgets: {limits}"
    for each in estate.of("Budgets::Budget"):
        if not each.get("NotificationsWithSubscribers"):
            yield f"{each}: tells nobody ({text(each.name)})"
