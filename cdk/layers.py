"""Packaged assets as the CDK takes them: known by their fingerprint, and built on this machine when needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aws_cdk
import jsii
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from cdk.packaging import LAYERS, Asset, Platform, layers_of
from functions.table import FunctionRow

_SOURCES = Path(__file__).parent


@jsii.implements(aws_cdk.ILocalBundling)
class _Build:
    def __init__(self, asset: Asset) -> None:
        self._asset = asset

    def try_bundle(self, output_dir: str, *, image: Any, **_: Any) -> bool:  # noqa: ARG002 (jsii wants exactly these)
        self._asset.build(Path(output_dir), Platform.ARM)
        return True


def code_of(asset: Asset) -> lambda_.Code:
    """Where nothing is to be bundled (tests) nothing is built, and the hash is the same."""
    bundling = aws_cdk.BundlingOptions(
        image=aws_cdk.DockerImage.from_registry("none-is-used"),
        local=_Build(asset),
        output_type=aws_cdk.BundlingOutput.NOT_ARCHIVED,
    )
    return lambda_.Code.from_asset(
        str(_SOURCES),
        bundling=bundling,
        asset_hash_type=aws_cdk.AssetHashType.CUSTOM,
        asset_hash=asset.fingerprint(Platform.ARM),
    )


class Layers(Construct):
    """One version of each layer; those that a new deployment replaces are deleted."""

    def __init__(self, scope: Construct, name: str, *, stage: str) -> None:
        super().__init__(scope, name)
        self._versions = {
            layer.name: lambda_.LayerVersion(
                self,
                layer.name.capitalize(),
                code=code_of(layer),
                layer_version_name=f"rag-{stage}-{layer.name}",
                compatible_architectures=[lambda_.Architecture.ARM_64],
                compatible_runtimes=[lambda_.Runtime.PYTHON_3_13],
            )
            for layer in LAYERS
        }

    def of(self, row: FunctionRow) -> list[lambda_.LayerVersion]:
        return [self._versions[layer.name] for layer in layers_of(row.folder)]
