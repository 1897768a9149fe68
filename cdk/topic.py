"""Where alarms, budgets and the database's events are told: one topic, encrypted, and the people who read it."""

from __future__ import annotations

import aws_cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from cdk.acknowledging import SERVERLESS, accept
from cdk.stages import Stage

_TELLERS = ("cloudwatch.amazonaws.com", "budgets.amazonaws.com", "events.rds.amazonaws.com")
_SAME_ACCOUNT = {"StringEquals": {"aws:SourceAccount": aws_cdk.Aws.ACCOUNT_ID}}


class Topic(sns.Topic):
    """Under a key of ours in every stage: CloudWatch may not use the one that AWS manages for SNS."""

    def __init__(self, scope: Construct, name: str, *, stage: Stage, key: kms.Key | None) -> None:
        super().__init__(scope, name, topic_name=f"rag-{stage.name}-alarms", enforce_ssl=True, master_key=key)
        self.add_to_resource_policy(
            iam.PolicyStatement(
                principals=[iam.ServicePrincipal(teller) for teller in _TELLERS],
                actions=["sns:Publish"],
                resources=[self.topic_arn],
                conditions=_SAME_ACCOUNT,
            )
        )
        if stage.alarm_email:
            self.add_subscription(subscriptions.EmailSubscription(stage.alarm_email))
            accept(
                self,
                "A letter that cannot be delivered is retried by SNS, and the alarm stays red until somebody looks.",
                f"{SERVERLESS}SNSRedrivePolicy",
            )


def own_key(scope: Construct, name: str) -> kms.Key:
    """For a stage that has no keys of its own otherwise."""
    key = kms.Key(
        scope,
        name,
        description="The topic of alarms",
        enable_key_rotation=True,
        removal_policy=aws_cdk.RemovalPolicy.DESTROY,
    )
    key.add_to_resource_policy(
        iam.PolicyStatement(
            principals=[iam.ServicePrincipal(teller) for teller in _TELLERS],
            actions=["kms:Decrypt", "kms:GenerateDataKey"],
            resources=["*"],
            conditions=_SAME_ACCOUNT,
        )
    )
    return key
