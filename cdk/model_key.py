"""The API key of the model server: a secret that the operator fills, and nothing else ever holds."""

from __future__ import annotations

import aws_cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from cdk.acknowledging import NIST, SOLUTIONS, accept


class ModelKey(secretsmanager.Secret):
    """Made with a random string, so that no template ever has a value; the model refuses that until it is replaced."""

    def __init__(self, scope: Construct, name: str, *, stage: str, key: kms.Key | None) -> None:
        super().__init__(
            scope,
            name,
            secret_name=f"rag/{stage}/model",
            description="API key of the model server; put yours in: aws secretsmanager put-secret-value",
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
            "Whoever runs the model server issues its keys: AWS cannot rotate them.",
            f"{SOLUTIONS}SMG4",
            f"{NIST}SecretsManagerRotationEnabled",
        )
        if key is None:
            accept(
                self,
                "Secrets Manager encrypts it with a key of its own; the stage pays for none of ours.",
                f"{NIST}SecretsManagerUsingKMSKey",
            )
