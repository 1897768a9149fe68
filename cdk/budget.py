"""What the stage may cost in a month, by its tag."""

from __future__ import annotations

from aws_cdk import aws_budgets as budgets
from aws_cdk import aws_sns as sns
from constructs import Construct

from cdk.stages import Stage

# Per cent of the budget, of what was spent and of what the month is going to cost.
_TOLD_AT = (("ACTUAL", 80), ("ACTUAL", 100), ("FORECASTED", 100))


def budget(scope: Construct, name: str, *, stage: Stage, topic: sns.ITopic) -> budgets.CfnBudget:
    """Told to the topic; counts what has the tag `stage`, once that is made a cost allocation tag of the account."""
    told = budgets.CfnBudget.SubscriberProperty(subscription_type="SNS", address=topic.topic_arn)
    notifications = [
        budgets.CfnBudget.NotificationWithSubscribersProperty(
            notification=budgets.CfnBudget.NotificationProperty(
                notification_type=kind,
                comparison_operator="GREATER_THAN",
                threshold=per_cent,
                threshold_type="PERCENTAGE",
            ),
            subscribers=[told],
        )
        for kind, per_cent in _TOLD_AT
    ]
    return budgets.CfnBudget(
        scope,
        name,
        budget=budgets.CfnBudget.BudgetDataProperty(
            budget_name=f"rag-{stage.name}",
            budget_type="COST",
            time_unit="MONTHLY",
            budget_limit=budgets.CfnBudget.SpendProperty(amount=stage.budget_usd, unit="USD"),
            cost_filters={"TagKeyValue": [f"user:stage${stage.name}"]},
        ),
        notifications_with_subscribers=notifications,
    )
