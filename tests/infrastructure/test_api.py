"""The HTTP API: the application's routes and no others, who may call them, and what it answers by itself."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts

from cdk.gateway_responses import quoted
from cdk.routes import routes
from cdk.stages import PROD, STAGES
from cdk.templates import Templates
from functions.query.api import app
from functions.table import ANSWER, PUBLIC
from rag.answer_headers import ON_EVERY_ANSWER
from tests.infrastructure.reading import only, properties, resources, template_of, text

NAMES = [stage.name for stage in STAGES]
ORIGIN = "https://app.example.org"


@pytest.fixture(scope="module")
def personal() -> dict[str, Any]:
    """A stage with everything that is a company's own."""
    row = replace(
        PROD,
        domain="rag.example.org",
        hosted_zone_id="Z0123456789ABC",
        cors_origins=(ORIGIN,),
        allowed_cidrs=("192.0.2.0/24", "2001:db8::/32"),
    )
    return template_of(row, "service")


def methods(template: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """(method, path) → properties."""
    folders = resources(template, "AWS::ApiGateway::Resource")

    def path(reference: Any) -> str:
        if "Ref" not in reference:
            return ""
        own = folders[reference["Ref"]]["Properties"]
        return f"{path(own['ParentId'])}/{own['PathPart']}"

    found = properties(template, "AWS::ApiGateway::Method")
    return {(method["HttpMethod"], path(method["ResourceId"])): method for method in found}


def answered() -> set[tuple[str, str]]:
    """What the application itself routes, described or not."""
    every = iter_route_contexts(app.routes)
    return {(method, str(each.path)) for each in every for method in each.methods or ()}


@pytest.mark.parametrize("stage", NAMES)
def test_the_api_has_the_routes_of_the_application(templates: Templates, stage: str) -> None:
    deployed = set(methods(templates[stage]["service"]))
    assert deployed == set(routes())
    assert answered() <= deployed
    # Documentation has no HEAD; whoever asks gets the application's 405, as on a laptop.
    assert deployed - answered() == {("HEAD", "/docs")}


@pytest.mark.parametrize("stage", NAMES)
def test_only_what_is_public_is_called_without_asking_who_it_is(templates: Templates, stage: str) -> None:
    found = methods(templates[stage]["service"])
    unasked = {path for (_, path), method in found.items() if method["AuthorizationType"] == "NONE"}
    assert unasked == PUBLIC
    asked = [method for (_, path), method in found.items() if path not in PUBLIC]
    assert {(method["AuthorizationType"], "AuthorizerId" in method) for method in asked} == {("CUSTOM", True)}


@pytest.mark.parametrize("stage", NAMES)
def test_nobodys_verdict_is_given_to_another(templates: Templates, stage: str) -> None:
    authorizer = only(templates[stage]["service"], "AWS::ApiGateway::Authorizer")
    assert authorizer["Type"] == "REQUEST"
    assert authorizer["AuthorizerResultTtlInSeconds"] == 0
    assert "IdentitySource" not in authorizer


@pytest.mark.parametrize("stage", NAMES)
def test_what_streams_is_integrated_as_a_stream_and_nothing_else_is(templates: Templates, stage: str) -> None:
    found = methods(templates[stage]["service"])
    streamed = {
        f"{verb} {path}": method["Integration"]
        for (verb, path), method in found.items()
        if method["Integration"].get("ResponseTransferMode") == "STREAM"
    }
    assert set(streamed) == set(ANSWER.streams)
    for integration in streamed.values():
        assert "AnswerLive" in text(integration["Uri"])
        assert "response-streaming-invocations" in text(integration["Uri"])
        assert integration["TimeoutInMillis"] > ANSWER.timeout_seconds * 1000
    others = [method for (verb, path), method in found.items() if f"{verb} {path}" not in streamed]
    assert all("QueryLive" in text(method["Integration"]["Uri"]) for method in others)


@pytest.mark.parametrize("stage", NAMES)
def test_questions_have_a_rate_of_their_own_and_are_logged_like_the_rest(templates: Templates, stage: str) -> None:
    settings = only(templates[stage]["service"], "AWS::ApiGateway::Stage")["MethodSettings"]
    every, asking_ = (next(row for row in settings if row["HttpMethod"] == verb) for verb in ("*", "POST"))
    assert asking_["ResourcePath"] == "/~1v1~1query"
    assert asking_["ThrottlingRateLimit"] < every["ThrottlingRateLimit"]
    for row in (every, asking_):
        assert (row["LoggingLevel"], row["MetricsEnabled"], row["DataTraceEnabled"]) == ("ERROR", True, False)


@pytest.mark.parametrize("stage", NAMES)
def test_what_the_gateway_answers_itself_is_a_problem_with_the_requests_id(templates: Templates, stage: str) -> None:
    found = {
        each["ResponseType"]: each
        for each in properties(templates[stage]["service"], "AWS::ApiGateway::GatewayResponse")
    }
    assert {"DEFAULT_4XX", "DEFAULT_5XX"} < set(found)
    for kind, answer in found.items():
        headers = answer["ResponseParameters"]
        assert headers["gatewayresponse.header.Content-Type"] == "'application/problem+json'"
        assert headers["gatewayresponse.header.x-request-id"] == "context.requestId"
        body = json.loads(answer["ResponseTemplates"]["application/json"])
        assert body["request_id"] == "$context.requestId"
        assert body["type"] == "about:blank"
        assert {name: headers[f"gatewayresponse.header.{name}"] for name in ON_EVERY_ANSWER} == quoted(ON_EVERY_ANSWER)
        if not kind.startswith("DEFAULT"):
            assert str(body["status"]) == answer["StatusCode"]
    statuses = {kind: answer.get("StatusCode") for kind, answer in found.items()}
    assert statuses["MISSING_AUTHENTICATION_TOKEN"] == "404"
    assert statuses["AUTHORIZER_FAILURE"] == "503"
    assert "gatewayresponse.header.WWW-Authenticate" in found["UNAUTHORIZED"]["ResponseParameters"]
    assert "gatewayresponse.header.Retry-After" in found["THROTTLED"]["ResponseParameters"]


def test_a_domain_is_the_only_address_and_speaks_tls_1_2(personal: dict[str, Any]) -> None:
    assert only(personal, "AWS::ApiGateway::RestApi")["DisableExecuteApiEndpoint"] is True
    domain = only(personal, "AWS::ApiGateway::DomainName")
    assert (domain["DomainName"], domain["SecurityPolicy"]) == ("rag.example.org", "TLS_1_2")
    records = properties(personal, "AWS::Route53::RecordSet")
    assert {(record["Name"], record["Type"]) for record in records} == {
        ("rag.example.org.", "A"),
        ("rag.example.org.", "AAAA"),
    }
    assert only(personal, "AWS::CertificateManager::Certificate")["DomainName"] == "rag.example.org"
    assert personal["Outputs"]["ApiUrl"]["Value"] == "https://rag.example.org/"


def test_a_domain_without_a_way_to_its_certificate_is_refused() -> None:
    with pytest.raises(Exception, match=r"rag\.example\.org of prod needs a hosted_zone_id or a certificate_arn"):
        template_of(replace(PROD, domain="rag.example.org"), "service")


def test_pages_of_the_named_origin_may_ask_and_read_problems(personal: dict[str, Any]) -> None:
    found = methods(personal)
    preflights = [method for (verb, _), method in found.items() if verb == "OPTIONS"]
    assert preflights
    for preflight in preflights:
        assert ORIGIN in text(preflight)
        assert "'*'" not in text(preflight)
        [answer] = preflight["Integration"]["IntegrationResponses"]
        hardened = {f"method.response.header.{name}": value for name, value in quoted(ON_EVERY_ANSWER).items()}
        assert hardened.items() <= answer["ResponseParameters"].items()
    told = [
        each["Environment"]["Variables"].get("RAG_CORS_ORIGINS")
        for each in properties(personal, "AWS::Lambda::Function")
        if each["FunctionName"] in {"rag-prod-query", "rag-prod-answer"}
    ]
    assert told == [json.dumps([ORIGIN])] * 2
    for answer in properties(personal, "AWS::ApiGateway::GatewayResponse"):
        assert answer["ResponseParameters"]["gatewayresponse.header.Access-Control-Allow-Origin"] == f"'{ORIGIN}'"


def test_where_a_stage_names_who_may_come_nobody_else_comes_in(personal: dict[str, Any]) -> None:
    sets = {each["IPAddressVersion"]: each["Addresses"] for each in properties(personal, "AWS::WAFv2::IPSet")}
    assert sets == {"IPV4": ["192.0.2.0/24"], "IPV6": ["2001:db8::/32"]}
    first = min(only(personal, "AWS::WAFv2::WebACL")["Rules"], key=lambda rule: rule["Priority"])
    assert "Block" in first["Action"]
    assert list(first["Statement"]) == ["NotStatement"]
    assert text(first["Statement"]).count("IPSetReferenceStatement") == 2
