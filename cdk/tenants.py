"""Administrators' work on tenants: invoked by people with rights in the account, by nothing else."""

from __future__ import annotations

from constructs import Construct

from cdk.function import Function
from cdk.given import Given
from functions.table import TENANTS


class Tenants(Function):
    """No event source: whoever may invoke it is said by IAM."""

    def __init__(self, scope: Construct, *, given: Given) -> None:
        super().__init__(scope, row=TENANTS, given=given)
