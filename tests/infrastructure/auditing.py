"""The application while others' rules look on: cdk-nag's packs and the CDK's own validation."""

from __future__ import annotations

from pathlib import Path

import aws_cdk
import cdk_nag
from aws_cdk import aws_sns, aws_sqs

from cdk.platform import app
from cdk.templates import WITHOUT_BUNDLING

# A stack of faults beside the stages: who finds none of these has not looked at all.
PLANTED = "planted"
_PACKS = cdk_nag.AwsSolutionsChecks, cdk_nag.ServerlessChecks, cdk_nag.NIST80053R5Checks


def synthesise(folder: Path, *, audited: bool) -> None:
    """Synthesise every stage into a folder; `audited`: rules only write down what they find, planted faults too."""
    platforms = app(
        outdir=str(folder),
        tree_metadata=False,
        builtin_cloud_formation_validation=audited,
        context=WITHOUT_BUNDLING | {"@aws-cdk/core:failSynthOnValidationErrors": False},
    )
    if audited:
        aws_cdk.Validations.of(platforms).add_plugins(*(pack(platforms) for pack in _PACKS))
        _plant(platforms)
    platforms.synth()
    if audited:
        # Whoever reads the folder's templates reads those of the stages.
        (folder / f"{PLANTED}.template.json").unlink()


def _plant(platforms: aws_cdk.App) -> None:
    stack = aws_cdk.Stack(platforms, PLANTED)
    aws_cdk.CfnResource(stack, "Painted", type="AWS::SQS::Queue", properties={"Colour": "red"})
    aws_sqs.CfnQueue(stack, "Open")
    aws_sns.CfnTopic(stack, "Plain")
