"""Where events end that a function was not able to take: for people to look at."""

from __future__ import annotations

import aws_cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from cdk.acknowledging import SERVERLESS, SOLUTIONS, accept


def failures(scope: Construct, name: str, *, stage: str, key: kms.Key | None) -> sqs.Queue:
    queue = sqs.Queue(
        scope,
        name,
        queue_name=f"rag-{stage}-failures",
        encryption=sqs.QueueEncryption.KMS if key else sqs.QueueEncryption.SQS_MANAGED,
        encryption_master_key=key,
        enforce_ssl=True,
        retention_period=aws_cdk.Duration.days(14),
    )
    accept(queue, "It is the queue of dead letters.", f"{SOLUTIONS}SQS3", f"{SERVERLESS}SQSRedrivePolicy")
    return queue
