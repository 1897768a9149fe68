"""What arrives in the documents' bucket becomes messages; what cannot be worked on is kept aside."""

from __future__ import annotations

from aws_cdk import Aws, Duration
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from cdk.acknowledging import SERVERLESS, SOLUTIONS, accept
from cdk.keys import Keys
from cdk.stack import removal
from cdk.stages import Stage
from functions.table import ERASE, INGEST, MAINTAIN, FunctionRow
from rag.settings import Settings

EVENTS = ("s3:ObjectCreated:*", "s3:ObjectRemoved:*")
# As often as ingest believes, which says "failed" of a document on the last delivery.
RECEIVES = int(Settings.model_fields["max_receives"].default)
# How long an event source may wait for a batch to fill.
BATCHING = Duration.seconds(60)
KEPT = Duration.days(4)
KEPT_ASIDE = Duration.days(14)


def hidden_seconds(consumer: FunctionRow) -> int:
    """How long a message stays with its consumer: at least six times as long as that may take, and the batch to fill.

    Source: AWS Lambda developer guide, "Using Lambda with Amazon SQS".
    """
    return 6 * consumer.timeout_seconds + int(BATCHING.to_seconds())


class Arrivals(Construct):
    """`queue` of the bucket's events, those that wake maintain and erase, and their dead letters.

    Every object in the bucket is a document or stands beside one, so the notification filters nothing; S3 has no
    filter that would fit keys which begin with a tenant's id.
    """

    def __init__(self, scope: Construct, name: str, *, stage: Stage, keys: Keys, documents: s3.Bucket) -> None:
        super().__init__(scope, name)
        self._stage, self._keys = stage, keys
        self.dead_letters = self._dead_letters("ingest")
        self.queue = self._queue("ingest", consumer=INGEST, dead_letters=self.dead_letters)
        self.maintenance_dead_letters = self._dead_letters("maintain")
        self.maintenance_queue = self._queue("maintain", consumer=MAINTAIN, dead_letters=self.maintenance_dead_letters)
        self.erasure_dead_letters = self._dead_letters("erase")
        self.erasure_queue = self._queue("erase", consumer=ERASE, dead_letters=self.erasure_dead_letters)
        self._announce(documents)

    def _queue(self, name: str, *, consumer: FunctionRow, dead_letters: sqs.Queue) -> sqs.Queue:
        return self._sealed(
            name,
            visibility_timeout=Duration.seconds(hidden_seconds(consumer)),
            retention_period=KEPT,
            dead_letter_queue=sqs.DeadLetterQueue(queue=dead_letters, max_receive_count=RECEIVES),
        )

    def _dead_letters(self, name: str) -> sqs.Queue:
        queue = self._sealed(f"{name}-dead-letters", retention_period=KEPT_ASIDE)
        accept(queue, "It is the queue of dead letters.", f"{SOLUTIONS}SQS3", f"{SERVERLESS}SQSRedrivePolicy")
        return queue

    def _sealed(self, name: str, **options: object) -> sqs.Queue:
        key = self._keys.data
        encryption = sqs.QueueEncryption.KMS if key else sqs.QueueEncryption.SQS_MANAGED
        return sqs.Queue(
            self,
            name,
            queue_name=f"rag-{self._stage.name}-{name}",
            enforce_ssl=True,
            encryption=encryption,
            encryption_master_key=key,
            removal_policy=removal(self._stage),
            **options,
        )

    def _announce(self, documents: s3.Bucket) -> None:
        """Tell the queue of everything created or removed, deletion markers included.

        On the bucket itself, because `add_event_notification` would deploy a function of its own to set it.
        """
        bucket = documents.node.default_child
        self.queue.add_to_resource_policy(
            iam.PolicyStatement(
                sid="BucketSends",
                principals=[iam.ServicePrincipal("s3.amazonaws.com")],
                actions=["sqs:SendMessage"],
                resources=[self.queue.queue_arn],
                conditions={
                    "StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID},
                    # Written out, not asked of the bucket, which waits for this policy.
                    "ArnEquals": {"aws:SourceArn": f"arn:{Aws.PARTITION}:s3:::{bucket.bucket_name}"},
                },
            )
        )
        bucket.notification_configuration = s3.CfnBucket.NotificationConfigurationProperty(
            queue_configurations=[
                s3.CfnBucket.QueueConfigurationProperty(event=event, queue=self.queue.queue_arn) for event in EVENTS
            ]
        )
        bucket.add_resource_dependency(self.queue.node.find_child("Policy").node.default_child)
