"""Alarms as each of ours is: told to the topic, with a sentence on what it means and where to read on."""

from __future__ import annotations

from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_sns as sns
from constructs import Construct

RUNBOOKS = "docs/runbooks.md"


class Alarms(Construct):
    """The name of an alarm is its runbook's heading, with what it is about before it where there are several."""

    def __init__(self, scope: Construct, name: str, *, stage: str, topic: sns.ITopic) -> None:
        super().__init__(scope, name)
        self._stage = stage
        self._action = actions.SnsAction(topic)

    def add(
        self,
        runbook: str,
        metric: cloudwatch.IMetric,
        meaning: str,
        *,
        of: str = "",
        above: float | None = None,
        below: float | None = None,
        periods: int = 1,
        missing: cloudwatch.TreatMissingData = cloudwatch.TreatMissingData.NOT_BREACHING,
    ) -> None:
        """Alarm when the metric is above or below the threshold for so many of its periods; mostly no value is none."""
        name = "-".join(filter(None, [of, runbook]))
        comparison = cloudwatch.ComparisonOperator
        alarm = cloudwatch.Alarm(
            self,
            name,
            alarm_name=f"rag-{self._stage}-{name}",
            alarm_description=f"{meaning} What to do: {RUNBOOKS}#{runbook}",
            metric=metric,
            threshold=below if above is None else above,
            comparison_operator=(
                comparison.LESS_THAN_THRESHOLD if above is None else comparison.GREATER_THAN_THRESHOLD
            ),
            evaluation_periods=periods,
            datapoints_to_alarm=periods,
            treat_missing_data=missing,
        )
        alarm.add_alarm_action(self._action)
        alarm.add_ok_action(self._action)
