"""What a deployment ships: dependency layers, our package and each function's folder, built without Docker.

Needs `uv` and a Python 3.13, nothing of the CDK. An asset's `fingerprint` says what it is made of before it is built.
"""

from __future__ import annotations

from cdk.packaging.assets import LAYERS, Asset, FunctionAsset, Layer, function_asset, layers_of
from cdk.packaging.programs import PackagingError
from cdk.packaging.recipe import Platform

__all__ = ["LAYERS", "Asset", "FunctionAsset", "Layer", "PackagingError", "Platform", "function_asset", "layers_of"]
