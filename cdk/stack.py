"""What every stack has: its name, tags, protection, and zones that need no lookup."""

from __future__ import annotations

import aws_cdk
from constructs import Construct

from cdk.stages import Stage


def removal(stage: Stage) -> aws_cdk.RemovalPolicy:
    """What becomes of data whose resource leaves its stack; a failed first deployment leaves nothing behind."""
    kept, gone = aws_cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE, aws_cdk.RemovalPolicy.DESTROY
    return kept if stage.protected else gone


class StageStack(aws_cdk.Stack):
    """A stack `rag-<stage>-<name>` with the stage in its tags."""

    def __init__(self, scope: Construct, name: str, *, stage: Stage, description: str) -> None:
        super().__init__(
            scope,
            name,
            stack_name=f"rag-{stage.name}-{name}",
            description=description,
            termination_protection=stage.protected,
            tags={"application": "rag", "stage": stage.name, "data-classification": "confidential"},
        )
        self.stage_row = stage

    @property
    def availability_zones(self) -> list[str]:
        """Of the account's zones the first ones: asking which there are would need credentials while synthesising."""
        return [aws_cdk.Fn.select(number, aws_cdk.Fn.get_azs()) for number in range(self.stage_row.zones)]
