"""Log groups: kept as long as the stage says, under its key, gone with a stage that is not protected."""

from __future__ import annotations

from aws_cdk import aws_logs as logs
from constructs import Construct

from cdk.acknowledging import NIST, accept
from cdk.keys import Keys
from cdk.stack import removal
from cdk.stages import Stage


def log_group(
    scope: Construct, name: str, *, stage: Stage, keys: Keys, log_group_name: str, days: int | None = None
) -> logs.LogGroup:
    """A log group of this name for so many days, by default the stage's `log_days`."""
    group = logs.LogGroup(
        scope,
        name,
        log_group_name=log_group_name,
        encryption_key=keys.logs,
        removal_policy=removal(stage),
    )
    # The number itself: the library's enumeration of the days that CloudWatch allows would be a second list.
    group.node.default_child.retention_in_days = days or stage.log_days
    if keys.logs is None:
        accept(
            group,
            "CloudWatch encrypts it with a key of its own; the stage keeps nothing that needs one of ours.",
            f"{NIST}CloudWatchLogGroupEncrypted",
        )
    return group
