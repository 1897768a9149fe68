"""Findings of cdk-nag that are accepted, each beside the construct that it is about."""

from __future__ import annotations

import aws_cdk
from constructs import IConstruct

SOLUTIONS = "AwsSolutions::AwsSolutions-"
NIST = "NIST.800.53.R5::NIST.800.53.R5-"
SERVERLESS = "Serverless::Serverless-"


def accept(construct: IConstruct, reason: str, *findings: str) -> None:
    """Acknowledge these findings, by their full ids, on the construct and all that is below it."""
    given = [aws_cdk.Acknowledgment(id=finding, reason=reason) for finding in findings]
    aws_cdk.Validations.of(construct).acknowledge(*given)
