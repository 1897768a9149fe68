"""The answers to questions, streamed."""

from __future__ import annotations

from constructs import Construct

from cdk.function import Function
from cdk.given import Given
from functions.table import ANSWER


class Answer(Function):
    """The code of `query` under a runtime of its own; unlike `query` it reaches no document's file."""

    def __init__(self, scope: Construct, *, given: Given) -> None:
        super().__init__(scope, row=ANSWER, given=given)
