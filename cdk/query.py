"""The HTTP API's function."""

from __future__ import annotations

from constructs import Construct

from cdk.function import Function
from cdk.given import Given, allow
from functions.table import QUERY


class Query(Function):
    """It signs uploads in its role's name and deletes documents, so its role may do both."""

    def __init__(self, scope: Construct, *, given: Given) -> None:
        writing = allow(["s3:PutObject", "s3:DeleteObject"], f"{given.bucket_arn}/*")
        super().__init__(scope, row=QUERY, given=given, statements=[writing])
