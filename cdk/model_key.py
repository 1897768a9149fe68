"""Secrets that are shared with somebody outside: the model server's API key, and what signs the webhook."""

from __future__ import annotations

import aws_cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from cdk.acknowledging import NIST, SOLUTIONS, accept


class RandomSecret(secretsmanager.Secret):
    """Made with a random string, so that no template ever has a value."""

    def __init__(
        self, scope: Construct, name: str, *, secret_name: str, description: str, key: kms.Key | None, unrotated: str
    ) -> None:
        super().__init__(
            scope,
            name,
            secret_name=secret_name,
            description=description,
            encryption_key=key,
            generate_secret_string=secretsmanager.SecretStringGenerator(exclude_punctuation=True),
        )
        self.add_to_resource_policy(
            iam.PolicyStatement(
                effect=iam.Effect.DENY,
                principals=[iam.AnyPrincipal()],
                actions=["secretsmanager:*"],
                resources=["*"],
                conditions={"StringNotEquals": {"aws:PrincipalAccount": aws_cdk.Aws.ACCOUNT_ID}},
            )
        )
        accept(
            self,
            unrotated,
            f"{SOLUTIONS}SMG4",
            f"{NIST}SecretsManagerRotationEnabled",
        )
        if key is None:
            accept(
                self,
                "Secrets Manager encrypts it with a key of its own; the stage pays for none of ours.",
                f"{NIST}SecretsManagerUsingKMSKey",
            )


class ModelKey(RandomSecret):
    """The model refuses the random string until it is replaced."""

    def __init__(self, scope: Construct, name: str, *, stage: str, key: kms.Key | None) -> None:
        super().__init__(
            scope,
            name,
            secret_name=f"rag/{stage}/model",
            description="API key of the model server; put yours in: aws secretsmanager put-secret-value",
            key=key,
            unrotated="Whoever runs the model server issues its keys: AWS cannot rotate them.",
        )


class WebhookKey(RandomSecret):
    """The receiver of the webhook verifies signatures with the same string."""

    def __init__(self, scope: Construct, name: str, *, stage: str, key: kms.Key | None) -> None:
        super().__init__(
            scope,
            name,
            secret_name=f"rag/{stage}/webhook",
            description="Signs the requests of the webhook; give it to the receiver",
            key=key,
            unrotated="The receiver has to learn a new one at the same moment: AWS cannot rotate it.",
        )
