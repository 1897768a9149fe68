"""The Delivery stack: who may deploy."""

from __future__ import annotations

from aws_cdk import Aws, DefaultStackSynthesizer, Duration
from aws_cdk import aws_iam as iam
from constructs import Construct

from cdk.stack import StageStack
from cdk.stages import Stage

ISSUER = "token.actions.githubusercontent.com"
AUDIENCE = "sts.amazonaws.com"
# What `cdk bootstrap` made: this policy's owner deploys by taking one of them, and may do nothing by itself.
BOOTSTRAP_ROLES = ("deploy", "file-publishing", "lookup")


class DeliveryStack(StageStack):
    """A policy to deploy with and, where the stage names a repository, the role that its workflow takes.

    Without a repository a person who may deploy is given the policy.
    """

    def __init__(self, scope: Construct, name: str, *, stage: Stage) -> None:
        super().__init__(scope, name, stage=stage, description="RAG: the role that deploys")
        self.policy = self._policy()
        self.role = self._role() if stage.github_repository else None

    def _policy(self) -> iam.ManagedPolicy:
        qualifier = DefaultStackSynthesizer.DEFAULT_QUALIFIER
        roles = [
            self.format_arn(
                service="iam",
                region="",
                resource="role",
                resource_name=f"cdk-{qualifier}-{role}-role-{Aws.ACCOUNT_ID}-{Aws.REGION}",
            )
            for role in BOOTSTRAP_ROLES
        ]
        return iam.ManagedPolicy(
            self,
            "policy",
            managed_policy_name=f"rag-{self.stage_row.name}-deploy",
            description="Deploys by the roles that cdk bootstrap made, and by nothing else",
            statements=[iam.PolicyStatement(actions=["sts:AssumeRole"], resources=roles)],
        )

    def _role(self) -> iam.Role:
        stage = self.stage_row
        claims = {
            f"{ISSUER}:aud": AUDIENCE,
            f"{ISSUER}:sub": f"repo:{stage.github_repository}:environment:{stage.name}",
        }
        return iam.Role(
            self,
            "role",
            role_name=f"rag-{stage.name}-deploy",
            description=f"Workflows of {stage.github_repository} in the environment {stage.name}",
            assumed_by=iam.OpenIdConnectPrincipal(self._provider(), {"StringEquals": claims}),
            managed_policies=[self.policy],
            # The policy bounds the role too: what is added to it later adds nothing.
            permissions_boundary=self.policy,
            max_session_duration=Duration.hours(1),
        )

    def _provider(self) -> iam.IOidcProvider:
        if self.stage_row.github_provider:
            return iam.OidcProviderNative(self, "provider", url=f"https://{ISSUER}", client_ids=[AUDIENCE])
        arn = self.format_arn(service="iam", region="", resource="oidc-provider", resource_name=ISSUER)
        return iam.OidcProviderNative.from_oidc_provider_arn(self, "provider", arn)
