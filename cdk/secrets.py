"""Secrets: who may read them, said by identities; who never may, by the secret."""

from __future__ import annotations

import aws_cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_secretsmanager as secretsmanager

from cdk.keys import Keys


def reading(secret_arn: str, keys: Keys) -> list[iam.PolicyStatement]:
    """Lets an identity read this secret, and have it decrypted by Secrets Manager alone."""
    read = iam.PolicyStatement(actions=["secretsmanager:GetSecretValue"], resources=[secret_arn])
    if keys.data is None:
        return [read]
    decrypt = iam.PolicyStatement(
        actions=["kms:Decrypt"],
        resources=[keys.data.key_arn],
        conditions={"StringEquals": {"kms:ViaService": f"secretsmanager.{aws_cdk.Aws.REGION}.amazonaws.com"}},
    )
    return [read, decrypt]


def keep_in_account(secret: secretsmanager.Secret) -> None:
    """Refuse every identity of another account, whatever it was granted."""
    secret.add_to_resource_policy(
        iam.PolicyStatement(
            sid="OtherAccounts",
            effect=iam.Effect.DENY,
            principals=[iam.AnyPrincipal()],
            actions=["secretsmanager:GetSecretValue", "secretsmanager:PutSecretValue"],
            resources=["*"],
            conditions={
                "StringNotEquals": {"aws:PrincipalAccount": aws_cdk.Aws.ACCOUNT_ID},
                # A service has no account.
                "Bool": {"aws:PrincipalIsAWSService": "false"},
            },
        )
    )
