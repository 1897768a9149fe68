"""The application while others' rules look on: cdk-nag's packs and the CDK's own validation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import aws_cdk
import cdk_nag

from cdk.platform import app
from cdk.stages import STAGES, Stage
from cdk.templates import WITHOUT_BUNDLING

_PACKS = cdk_nag.AwsSolutionsChecks, cdk_nag.ServerlessChecks, cdk_nag.NIST80053R5Checks


def audited_app(folder: Path, *, audited: bool = True, stages: Sequence[Stage] = STAGES) -> aws_cdk.App:
    """An application that synthesises into a folder and only writes down what rules find."""
    platforms = app(
        stages,
        outdir=str(folder),
        tree_metadata=False,
        builtin_cloud_formation_validation=audited,
        context=WITHOUT_BUNDLING | {"@aws-cdk/core:failSynthOnValidationErrors": False},
    )
    if audited:
        aws_cdk.Validations.of(platforms).add_plugins(*(pack(platforms) for pack in _PACKS))
    return platforms
