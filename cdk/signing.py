"""Code signing: CloudWatch and CloudTrail tell of code that nobody signed."""

from __future__ import annotations

from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_signer as signer
from constructs import Construct


def code_signing(scope: Construct, *, stage: str) -> lambda_.CodeSigningConfig:
    """The stage's signing profile, and that its functions look for it.

    Unsigned code is told of and not refused: the CDK uploads assets as they are, so that refusing them would refuse
    every deployment that does not sign them on its way.
    """
    profile = signer.SigningProfile(
        scope,
        "SigningProfile",
        platform=signer.Platform.AWS_LAMBDA_SHA384_ECDSA,
        signing_profile_name=f"rag_{stage}",
    )
    return lambda_.CodeSigningConfig(
        scope,
        "CodeSigning",
        signing_profiles=[profile],
        untrusted_artifact_on_deployment=lambda_.UntrustedArtifactOnDeployment.WARN,
    )
