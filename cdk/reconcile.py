"""Bucket and index are compared by the clock; what waits in vain ends, and a canary proves the chain."""

from __future__ import annotations

from constructs import Construct

from cdk.function import Function
from cdk.given import Given
from functions.table import RECONCILE


class Reconcile(Function):
    """Sees which versions are where, of every tenant, and no document."""

    def __init__(self, scope: Construct, *, given: Given) -> None:
        super().__init__(scope, row=RECONCILE, given=given)
