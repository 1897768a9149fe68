"""What RDS itself has to tell about the database, beside what its metrics show."""

from __future__ import annotations

from aws_cdk import aws_rds as rds
from constructs import Construct

from cdk.database import Database
from cdk.topic import Topic


class DatabaseEvents(Construct):
    """Failovers, failures, maintenance and a full disk of the instance and its replica, to the topic of alarms.

    Source: Amazon RDS user guide, "Amazon RDS event categories and event messages".
    """

    def __init__(self, scope: Construct, name: str, *, stage: str, database: Database, topic: Topic) -> None:
        super().__init__(scope, name)
        instances = [database.instance, *([database.replica] if database.replica else [])]
        subscription = rds.CfnEventSubscription(
            self,
            "Subscription",
            subscription_name=f"rag-{stage}-database",
            sns_topic_arn=topic.topic_arn,
            source_type="db-instance",
            source_ids=[instance.instance_identifier for instance in instances],
            event_categories=["failover", "failure", "low storage", "maintenance"],
        )
        # RDS publishes to the topic when it is subscribed, which the topic's policy has to let it by then.
        subscription.node.add_dependency(topic)
