"""The buckets: documents, backups, and where the stage wants them, the log of who read either."""

from __future__ import annotations

from typing import Any

import aws_cdk
from aws_cdk import aws_s3 as s3
from constructs import Construct

from cdk.acknowledging import NIST, SOLUTIONS, accept
from cdk.keys import Keys
from cdk.stack import removal
from cdk.stages import Stage


class Buckets(Construct):
    """`documents`, `backups` and `logs`, the last None where accesses are not logged.

    Their names are fixed, so that the documents' queue may name the bucket that names the queue.
    """

    def __init__(self, scope: Construct, name: str, *, stage: Stage, keys: Keys) -> None:
        super().__init__(scope, name)
        self._stage, self._keys = stage, keys
        self.logs = self._logs() if stage.access_logs else None
        self.documents = self._documents()
        self.backups = self._backups()
        if self.logs is None:
            accept(
                self,
                "A stage to try things in: who reads its objects is not written down.",
                f"{SOLUTIONS}S1",
                f"{NIST}S3BucketLoggingEnabled",
            )
        if keys.data is None:
            accept(
                self,
                "S3 encrypts them with its own key; the stage pays for none of ours.",
                f"{NIST}S3DefaultEncryptionKMS",
            )
        accept(
            self,
            "What is lost with a region is restored from the copies of the backup plan; objects have versions.",
            f"{NIST}S3BucketReplicationEnabled",
        )

    def _documents(self) -> s3.Bucket:
        origins = list(self._stage.cors_origins)
        return self._bucket(
            "documents",
            **self._encryption(self._keys.data),
            **self._logging("documents"),
            cors=[
                s3.CorsRule(
                    allowed_methods=[s3.HttpMethods.POST],
                    allowed_origins=origins,
                    allowed_headers=["*"],
                    exposed_headers=["ETag"],
                    max_age=3000,
                )
            ]
            if origins
            else None,
            lifecycle_rules=[
                self._tidying(
                    transitions=[
                        s3.Transition(
                            storage_class=s3.StorageClass.INFREQUENT_ACCESS,
                            transition_after=aws_cdk.Duration.days(30),
                        )
                    ]
                )
            ],
        )

    def _backups(self) -> s3.Bucket:
        kept = aws_cdk.Duration.days(self._stage.recovery_days)
        locked = self._stage.lock_backups
        return self._bucket(
            "backups",
            **self._encryption(self._keys.backup),
            **self._logging("backups"),
            object_lock_enabled=locked or None,
            object_lock_default_retention=s3.ObjectLockRetention.governance(kept) if locked else None,
            # Whoever writes backups may not delete them: time does.
            lifecycle_rules=[self._tidying(expiration=kept)],
        )

    def _logs(self) -> s3.Bucket:
        bucket = self._bucket(
            "logs",
            encryption=s3.BucketEncryption.S3_MANAGED,
            lifecycle_rules=[self._tidying(expiration=aws_cdk.Duration.days(self._stage.log_days))],
        )
        accept(
            bucket,
            "A log of reading the log would be written into the log; the trail of the account sees who opens it.",
            f"{SOLUTIONS}S1",
            f"{NIST}S3BucketLoggingEnabled",
        )
        accept(
            bucket,
            "S3 delivers access logs only into buckets that are encrypted with its own key.",
            f"{NIST}S3DefaultEncryptionKMS",
        )
        return bucket

    def _bucket(self, name: str, **options: Any) -> s3.Bucket:
        return s3.Bucket(
            self,
            name,
            bucket_name=f"rag-{self._stage.name}-{name}-{aws_cdk.Aws.ACCOUNT_ID}-{aws_cdk.Aws.REGION}",
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            versioned=True,
            removal_policy=removal(self._stage),
            **options,
        )

    def _tidying(self, **more: Any) -> s3.LifecycleRule:
        # A delete marker cannot be tidied by a rule that expires objects too: S3 then removes it by itself.
        markers = {} if "expiration" in more else {"expired_object_delete_marker": True}
        return s3.LifecycleRule(
            id="tidy",
            abort_incomplete_multipart_upload_after=aws_cdk.Duration.days(1),
            noncurrent_version_expiration=aws_cdk.Duration.days(self._stage.noncurrent_days),
            **markers,
            **more,
        )

    def _encryption(self, key: Any) -> dict[str, Any]:
        if key is None:
            return {"encryption": s3.BucketEncryption.S3_MANAGED}
        return {"encryption": s3.BucketEncryption.KMS, "encryption_key": key, "bucket_key_enabled": True}

    def _logging(self, name: str) -> dict[str, Any]:
        if self.logs is None:
            return {}
        return {"server_access_logs_bucket": self.logs, "server_access_logs_prefix": f"{name}/"}
