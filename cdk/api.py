"""The HTTP API: a REST API whose routes are the application's, each with its authorizer, limits and log line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import aws_cdk
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from cdk import gateway_responses
from cdk.account_log import AccountLog
from cdk.acknowledging import NIST, SOLUTIONS, accept
from cdk.domain import Domain
from cdk.function import Function
from cdk.given import Given
from cdk.logs import log_group
from cdk.routes import routes
from cdk.stages import Stage
from functions.query import origins as pages
from functions.table import PUBLIC
from rag.answer_headers import ON_EVERY_ANSWER

# A quarter of what the stage takes: each question is a call of the model, and money.
ASKING = "/v1/query/POST"
ASKING_SHARE = 4
REQUESTS_PER_KEY_A_DAY = 100_000
# What a method with settings of its own would otherwise be without.
_SEEN: dict[str, Any] = {
    "metrics_enabled": True,
    "logging_level": apigateway.MethodLoggingLevel.ERROR,
    "data_trace_enabled": False,
}

# Who asked for what and what became of it; never a header, which may hold a credential.
_LOG_LINE = {
    "request_id": "$context.requestId",
    "time": "$context.requestTime",
    "principal": "$context.authorizer.principalId",
    "tenant_id": "$context.authorizer.tenant_id",
    "ip": "$context.identity.sourceIp",
    "method": "$context.httpMethod",
    "route": "$context.resourcePath",
    "path": "$context.path",
    "status": "$context.status",
    "bytes": "$context.responseLength",
    "milliseconds": "$context.responseLatency",
    "integration_milliseconds": "$context.integrationLatency",
    "integration_error": "$context.integrationErrorMessage",
    "authorizer_error": "$context.authorizer.error",
    "firewall": "$context.waf.status",
    "error": "$context.error.responseType",
    "trace_id": "$context.xrayTraceId",
}


class Api(Construct):
    """Everything but the public paths asks `authorize` first."""

    def __init__(
        self,
        scope: Construct,
        name: str,
        *,
        given: Given,
        query: Function,
        streaming: Sequence[Function],
        authorize: Function,
    ) -> None:
        super().__init__(scope, name)
        stage = given.stage
        self.access_log = log_group(
            self, "AccessLog", stage=stage, keys=given.data.keys, log_group_name=f"/rag/{stage.name}/access"
        )
        self.rest = apigateway.RestApi(
            self,
            "Rest",
            rest_api_name=f"rag-{stage.name}",
            description="RAG: documents, search, answers",
            endpoint_configuration=apigateway.EndpointConfiguration(types=[apigateway.EndpointType.REGIONAL]),
            disable_execute_api_endpoint=bool(stage.domain),
            deploy_options=self._deploy_options(stage),
            default_cors_preflight_options=_preflight(stage.cors_origins),
            default_method_options=apigateway.MethodOptions(
                authorization_type=apigateway.AuthorizationType.CUSTOM,
                authorizer=self._authorizer(authorize),
            ),
        )
        self.rest.deployment_stage.node.add_dependency(AccountLog(self, "AccountLog"))
        self._accept(stage)
        self._validator = self.rest.add_request_validator(
            "Validator", validate_request_body=True, validate_request_parameters=True
        )
        self._json = self.rest.add_model(
            "Json",
            content_type="application/json",
            description="Any JSON object: which, the function says more exactly",
            schema=apigateway.JsonSchema(
                schema=apigateway.JsonSchemaVersion.DRAFT4, type=apigateway.JsonSchemaType.OBJECT
            ),
        )
        self._add_routes(query, streaming)
        gateway_responses.install(self.rest, origin=stage.cors_origins[0] if len(stage.cors_origins) == 1 else None)
        self._harden_preflights()
        self._add_usage_plan(stage)
        self._only_this_account(authorize)
        self.url = self.rest.url
        if stage.domain:
            self.url = Domain(self, "Domain", stage=stage, api=self.rest).url

    def _deploy_options(self, stage: Stage) -> apigateway.StageOptions:
        asking = apigateway.MethodDeploymentOptions(
            **_SEEN,
            throttling_rate_limit=stage.requests_per_second / ASKING_SHARE,
            throttling_burst_limit=stage.burst // ASKING_SHARE,
        )
        return apigateway.StageOptions(
            stage_name=stage.name,
            throttling_rate_limit=stage.requests_per_second,
            throttling_burst_limit=stage.burst,
            method_options={ASKING: asking},
            tracing_enabled=True,
            **_SEEN,
            access_log_destination=apigateway.LogGroupLogDestination(self.access_log),
            access_log_format=apigateway.AccessLogFormat.custom(json.dumps(_LOG_LINE)),
        )

    def _accept(self, stage: Stage) -> None:
        accept(
            self.rest,
            "The authorizer is our own function, which knows API keys; the public paths tell nothing of a tenant.",
            f"{SOLUTIONS}APIG4",
            f"{SOLUTIONS}COG4",
        )
        accept(
            self.rest,
            "Answers are a tenant's own and are cached where that is known; Lambda is called by IAM, not over TLS.",
            f"{NIST}APIGWCacheEnabledAndEncrypted",
            f"{NIST}APIGWSSLEnabled",
        )
        if not stage.waf:
            accept(
                self.rest,
                "A stage to try things in pays for no firewall; it is throttled like the others.",
                f"{SOLUTIONS}APIG3",
                f"{NIST}APIGWAssociatedWithWAF",
            )

    def _authorizer(self, authorize: Function) -> apigateway.RequestAuthorizer:
        """Asked at every request: decision 16 says why nothing is kept."""
        authorizer = apigateway.RequestAuthorizer(
            self,
            "Authorizer",
            handler=authorize.alias,
            identity_sources=[],
            results_cache_ttl=aws_cdk.Duration.seconds(0),
        )
        authorizer.node.default_child.add_property_deletion_override("IdentitySource")
        return authorizer

    def _add_routes(self, query: Function, streaming: Sequence[Function]) -> None:
        whole = apigateway.LambdaIntegration(query.alias, scope_permission_to_method=False)
        streamed = {route: _streamed(function) for function in streaming for route in function.row.streams}
        for method, path in routes():
            resource = self.rest.root.resource_for_path(path)
            body = {"application/json": self._json} if method in {"POST", "PUT", "PATCH"} else None
            public = (
                {"authorization_type": apigateway.AuthorizationType.NONE, "authorizer": None} if path in PUBLIC else {}
            )
            integration = streamed.get(f"{method} {path}", whole)
            resource.add_method(method, integration, request_validator=self._validator, request_models=body, **public)

    def _harden_preflights(self) -> None:
        """The CDK lets one say which headers a preflight has that are CORS's, and no others."""
        for node in self.rest.node.find_all():
            method = node.node.default_child if isinstance(node, apigateway.Method) else None
            if not isinstance(method, apigateway.CfnMethod) or method.http_method != "OPTIONS":
                continue
            for name, value in gateway_responses.quoted(ON_EVERY_ANSWER).items():
                # A dot would lead into the property.
                header = f"ResponseParameters.method\\.response\\.header\\.{name}"
                method.add_property_override(f"Integration.IntegrationResponses.0.{header}", value)
                method.add_property_override(f"MethodResponses.0.{header}", value=True)

    def _add_usage_plan(self, stage: Stage) -> None:
        self.rest.add_usage_plan(
            "UsagePlan",
            name=f"rag-{stage.name}",
            description="For clients that are given a key of API Gateway's own",
            throttle=apigateway.ThrottleSettings(
                rate_limit=stage.requests_per_second / ASKING_SHARE, burst_limit=stage.burst // ASKING_SHARE
            ),
            quota=apigateway.QuotaSettings(limit=REQUESTS_PER_KEY_A_DAY, period=apigateway.Period.DAY),
            api_stages=[apigateway.UsagePlanPerApiStage(api=self.rest, stage=self.rest.deployment_stage)],
        )

    def _only_this_account(self, authorize: Function) -> None:
        """The CDK names the API that may invoke a function, not its account."""
        for node in (*self.node.find_all(), *authorize.alias.node.find_all()):
            if isinstance(node, lambda_.CfnPermission):
                node.source_account = aws_cdk.Aws.ACCOUNT_ID


def _streamed(function: Function) -> apigateway.LambdaIntegration:
    """A second more than the function has, which then ends its answer by itself."""
    return apigateway.LambdaIntegration(
        function.alias,
        scope_permission_to_method=False,
        response_transfer_mode=apigateway.ResponseTransferMode.STREAM,
        timeout=aws_cdk.Duration.seconds(function.row.timeout_seconds + 1),
    )


def _preflight(origins: Sequence[str]) -> apigateway.CorsOptions | None:
    if not origins:
        return None
    return apigateway.CorsOptions(
        allow_origins=[*origins],
        allow_methods=[*pages.METHODS],
        allow_headers=[*pages.HEADERS],
        expose_headers=[*pages.EXPOSED],
        max_age=aws_cdk.Duration.seconds(pages.KEPT_SECONDS),
    )
