"""People: a Cognito user pool, its roles, and how a web page signs them in."""

from __future__ import annotations

import json
from typing import Any

import aws_cdk
from aws_cdk import aws_cognito as cognito
from constructs import Construct

from cdk.acknowledging import SOLUTIONS, accept
from cdk.stages import Stage
from rag.oidc import check_together

# As an API key's roles: each may what the ones before it may.
ROLES = {"reader": "Search and ask", "writer": "Also upload and delete", "admin": "Also keys and collections"}
# A user is of the tenant whose id follows: access tokens hold groups, and no attributes (decision 25).
TENANT_GROUP = "tenant:"
_LAPTOP = "http://localhost:8000"


class Users(Construct):
    """Administrators make accounts; nobody signs up by himself."""

    def __init__(self, scope: Construct, name: str, *, stage: Stage) -> None:
        super().__init__(scope, name)
        self.pool = cognito.UserPool(
            self,
            "Pool",
            user_pool_name=f"rag-{stage.name}",
            self_sign_up_enabled=False,
            sign_in_aliases=cognito.SignInAliases(email=True),
            sign_in_case_sensitive=False,
            standard_attributes=cognito.StandardAttributes(
                email=cognito.StandardAttribute(required=True, mutable=True)
            ),
            account_recovery=cognito.AccountRecovery.EMAIL_ONLY,
            mfa=cognito.Mfa.REQUIRED,
            mfa_second_factor=cognito.MfaSecondFactor(otp=True, sms=False),
            password_policy=cognito.PasswordPolicy(
                min_length=14,
                require_digits=True,
                require_lowercase=True,
                require_uppercase=True,
                require_symbols=True,
                temp_password_validity=aws_cdk.Duration.days(3),
            ),
            feature_plan=cognito.FeaturePlan.PLUS if stage.threat_protection else cognito.FeaturePlan.ESSENTIALS,
            standard_threat_protection_mode=(
                cognito.StandardThreatProtectionMode.FULL_FUNCTION if stage.threat_protection else None
            ),
            deletion_protection=stage.protected,
            removal_policy=aws_cdk.RemovalPolicy.RETAIN if stage.protected else aws_cdk.RemovalPolicy.DESTROY,
        )
        if not stage.threat_protection:
            accept(
                self.pool,
                "Threat protection is paid by the user; the stage has testers, whose second factor is required.",
                f"{SOLUTIONS}COG8",
            )
        for role, description in ROLES.items():
            self.pool.add_group(role.capitalize(), group_name=role, description=description)
        scopes = [
            cognito.ResourceServerScope(scope_name=role, scope_description=description)
            for role, description in ROLES.items()
        ]
        server = self.pool.add_resource_server("Api", identifier="rag", scopes=scopes)
        self.pool.add_domain(
            "Domain",
            # Unique in the region among all accounts.
            cognito_domain=cognito.CognitoDomainOptions(domain_prefix=f"rag-{stage.name}-{aws_cdk.Aws.ACCOUNT_ID}"),
        )
        self.client = self._client(stage, [cognito.OAuthScope.resource_server(server, one) for one in scopes])
        check_together(stage.issuers)
        self._others = [each.model_dump(mode="json", exclude_defaults=True) for each in stage.issuers]

    @property
    def issuers(self) -> str:
        """The setting RAG_OIDC: this pool, whose access tokens name a client and no audience, and the stage's others.

        Source: Cognito developer guide, "Verifying JSON web tokens".
        """
        region, suffix = aws_cdk.Aws.REGION, aws_cdk.Aws.URL_SUFFIX
        own: dict[str, Any] = {
            "issuer": f"https://cognito-idp.{region}.{suffix}/{self.pool.user_pool_id}",
            "client_ids": [self.client.user_pool_client_id],
            "groups_claim": "cognito:groups",
            "tenant_group_prefix": TENANT_GROUP,
            "require": {"token_use": "access"},
        }
        return json.dumps([own, *self._others])

    def _client(self, stage: Stage, scopes: list[cognito.OAuthScope]) -> cognito.UserPoolClient:
        """A page in a browser, which can keep no secret: authorization code with PKCE."""
        origins = stage.cors_origins or (_LAPTOP,)
        return self.pool.add_client(
            "Page",
            user_pool_client_name=f"rag-{stage.name}-page",
            generate_secret=False,
            auth_flows=cognito.AuthFlow(user_srp=True),
            o_auth=cognito.OAuthSettings(
                flows=cognito.OAuthFlows(authorization_code_grant=True),
                scopes=[cognito.OAuthScope.OPENID, cognito.OAuthScope.EMAIL, *scopes],
                callback_urls=[f"{origin}/" for origin in origins],
                logout_urls=[f"{origin}/" for origin in origins],
            ),
            supported_identity_providers=[cognito.UserPoolClientIdentityProvider.COGNITO],
            read_attributes=cognito.ClientAttributes().with_standard_attributes(email=True),
            write_attributes=cognito.ClientAttributes().with_standard_attributes(email=True),
            prevent_user_existence_errors=True,
            enable_token_revocation=True,
            access_token_validity=aws_cdk.Duration.minutes(15),
            id_token_validity=aws_cdk.Duration.minutes(15),
            refresh_token_validity=aws_cdk.Duration.days(1),
        )
