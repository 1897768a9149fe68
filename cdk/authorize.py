"""Who is calling: asked by the API before anything else."""

from __future__ import annotations

from constructs import Construct

from cdk.function import Function
from cdk.given import Given
from functions.table import AUTHORIZE


class Authorize(Function):
    """Reads keys and nothing else."""

    def __init__(self, scope: Construct, *, given: Given) -> None:
        super().__init__(scope, row=AUTHORIZE, given=given)
