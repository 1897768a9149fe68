"""The HTTP API's function."""

from __future__ import annotations

from constructs import Construct

from cdk.function import Function
from cdk.given import Given, allow
from functions.table import QUERY


class Query(Function):
    """It signs uploads in its role's name, so its role may put objects."""

    def __init__(self, scope: Construct, *, given: Given) -> None:
        writing = allow(["s3:PutObject"], f"{given.bucket_arn}/*")
        super().__init__(scope, row=QUERY, given=given, statements=[writing])
