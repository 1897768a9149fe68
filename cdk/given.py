"""What all functions are made from, and what a function's row in the table makes of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import aws_cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk import aws_sqs as sqs

from cdk.arrivals import hidden_seconds
from cdk.data import DataStack
from cdk.layers import Layers
from cdk.stages import Stage
from cdk.users import Users
from functions.table import (
    ANSWER,
    ASKING,
    AUTHORIZE,
    ERASE,
    INGEST,
    MAINTAIN,
    MIGRATE,
    NOTIFY,
    OWNER,
    QUERY,
    RECONCILE,
    ROLES,
    TENANTS,
    FunctionRow,
    Use,
)
from rag.probing import PLACE
from rag.settings import Settings

TRACING = ("xray:PutTraceSegments", "xray:PutTelemetryRecords")
_BUDGETS = (
    "tenant_requests_per_day",
    "tenant_tokens_per_day",
    "tenant_tokens_per_month",
    "tenant_usd_per_day",
    "tenant_usd_per_month",
)
_PRICES = (
    "embedding_usd_per_million_tokens",
    "prompt_usd_per_million_tokens",
    "completion_usd_per_million_tokens",
)
_LIMITS = (
    "max_document_bytes",
    "max_document_pages",
    "max_document_characters",
    "max_document_chunks",
    "max_unpacked_mib",
    "parse_seconds",
)
_RATES = ("rate_limit_requests", "tenant_rate_limit_requests")
_CONSUME = ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes")
_LOOK = ("sqs:ReceiveMessage", "sqs:ChangeMessageVisibility")


@dataclass(frozen=True, slots=True)
class Given:
    """The stage, the data, and what the functions of the Service stack share."""

    stage: Stage
    data: DataStack
    layers: Layers
    model_key: secretsmanager.Secret
    failures: sqs.Queue
    bus: events.EventBus
    webhook_key: secretsmanager.Secret | None
    signing: lambda_.CodeSigningConfig | None
    users: Users

    def settings_of(self, row: FunctionRow) -> dict[str, str]:
        """The `RAG_*` variables of a function: the same names as on a laptop, secrets by their ARN."""
        owner = row.role == OWNER
        every = {
            "RAG_STAGE": self.stage.name,
            "RAG_DATABASE_URL": self.data.database.url(row.role, direct=owner),
            "RAG_DATABASE_AUTH": "password" if owner else "iam",
            "RAG_DATABASE_SECRET": self.data.database.master_secret_arn if owner else "",
        }
        optional: dict[Use, dict[str, str]] = {
            "bucket": {"RAG_BUCKET": self.data.documents.bucket_name},
            "queue": {
                "RAG_QUEUE_URL": self.data.arrivals.queue.queue_url,
                "RAG_MAX_RECEIVES": str(self.data.arrivals.queue.dead_letter_queue.max_receive_count),
            },
            "retry": {"RAG_RETRY_QUEUE_URL": self.data.arrivals.queue.queue_url},
            "dead_letters": {"RAG_DEAD_LETTER_QUEUE_URL": self.data.arrivals.dead_letters.queue_url},
            "bus": {
                "RAG_EVENT_BUS": self.bus.event_bus_name,
                "RAG_WEBHOOK_URL": self.stage.webhook_url,
                "RAG_WEBHOOK_SECRET": self.webhook_key.secret_arn if self.webhook_key else "",
            },
            "reconcile": {
                "RAG_BUCKET": self.data.documents.bucket_name,
                "RAG_MAX_RECEIVES": str(self.data.arrivals.queue.dead_letter_queue.max_receive_count),
                "RAG_VISIBILITY_SECONDS": str(hidden_seconds(INGEST)),
            },
            "maintenance": {"RAG_MAINTENANCE_QUEUE_URL": self.data.arrivals.maintenance_queue.queue_url},
            "erasures": {
                "RAG_ERASURE_QUEUE_URL": self.data.arrivals.erasure_queue.queue_url,
                "RAG_BACKUP_DAYS": str(self.stage.recovery_days),
            },
            "audit": {"RAG_AUDIT_DAYS": str(self.stage.audit_days)},
            "cache": {"RAG_REDIS_URL": self.data.cache.url, "RAG_REDIS_SECRET": self.data.cache.secret_arn},
            "model": {
                "RAG_MODEL_URL": self.stage.model_url,
                "RAG_MODEL_SECRET": self.model_key.secret_arn,
                "RAG_EMBEDDING_MODEL": self.stage.embedding_model,
                "RAG_EMBEDDING_DIMENSIONS": str(self.stage.embedding_dimensions),
                "RAG_CHAT_MODEL": self.stage.chat_model,
            },
            "roles": {"RAG_IAM_ROLES": json.dumps(ROLES)},
            "tokens": {"RAG_OIDC": self.users.issuers},
        }
        if self._recognises(row):
            every["RAG_OCR"] = "textract"
        if row.folder == QUERY.folder and self.stage.cors_origins:
            every["RAG_CORS_ORIGINS"] = json.dumps(self.stage.cors_origins)
        if row.folder == QUERY.folder:
            every |= {
                f"RAG_{name.upper()}": chosen
                for name in ("audit_questions", "audit_failure")
                if (chosen := getattr(self.stage, name)) != Settings.model_fields[name].default
            }
        if row == INGEST:
            every |= self._set(*_LIMITS)
        if row.folder == QUERY.folder:  # whose forms take no more
            every |= self._set("max_document_bytes")
        if row in ASKING:
            every |= self._set(*_BUDGETS, *_PRICES)
        if row == TENANTS:
            every |= self._set(*_PRICES)
        if row.folder == QUERY.folder:
            every |= self._set(*_RATES)
        return every | {name: value for use in sorted(row.uses) for name, value in optional[use].items()}

    def _set(self, *names: str) -> dict[str, str]:
        """Those settings that the stage has otherwise than by default."""
        values = {name: getattr(self.stage, name) for name in names}
        return {
            f"RAG_{name.upper()}": str(value)
            for name, value in values.items()
            if value != Settings.model_fields[name].default
        }

    def statements_of(self, row: FunctionRow) -> list[iam.PolicyStatement]:
        """What its role may do for the sake of its database role and of what it uses."""
        data = self.data
        optional: dict[Use, Sequence[iam.PolicyStatement]] = {
            # What erase deletes it need not read.
            "bucket": [] if row == ERASE else self._reading(),
            "queue": [allow([*_CONSUME, "sqs:SendMessage"], data.arrivals.queue.queue_arn)],
            "retry": [allow(["sqs:SendMessage"], data.arrivals.queue.queue_arn)],
            "dead_letters": [allow(_LOOK, data.arrivals.dead_letters.queue_arn)],
            "bus": [allow(["events:PutEvents"], self.bus.event_bus_arn)],
            "reconcile": [
                allow(["s3:ListBucketVersions"], self.bucket_arn),
                allow(["s3:PutObject", "s3:DeleteObject"], self.canary_arn),
            ],
            "maintenance": [allow(["sqs:SendMessage"], data.arrivals.maintenance_queue.queue_arn)],
            "erasures": [allow(["sqs:SendMessage"], data.arrivals.erasure_queue.queue_arn)],
            "audit": [],
            "cache": data.cache.secret_statements(),
            "model": [allow(["secretsmanager:GetSecretValue"], self.model_key.secret_arn)],
            "roles": [],
            # Keys are public.
            "tokens": [],
        }
        database = (
            allow(["secretsmanager:GetSecretValue"], data.database.master_secret_arn)
            if row.role == OWNER
            else data.database.connect_statement(row.role)
        )
        return [
            database,
            *(statement for use in sorted(row.uses) for statement in optional[use]),
            # It has no resource to name: what is read comes with the request.
            *([allow(["textract:DetectDocumentText"], "*")] if self._recognises(row) else []),
            *self.failing(),
        ]

    def _recognises(self, row: FunctionRow) -> bool:
        return self.stage.text_recognition and row == INGEST

    def reserved(self, row: FunctionRow) -> int | None:
        """Sandboxes that the function may have at once; None: what the account has left.

        An account that is new has ten in all, of which none can be reserved.
        """
        stage = self.stage
        if not stage.reserve_concurrency:
            return None
        # maintain: one by its schedule, two by its queue, of which all but one find that it is at work.
        return {
            QUERY: stage.query_concurrency,
            ANSWER: stage.answer_concurrency,
            AUTHORIZE: stage.authorize_concurrency,
            INGEST: stage.ingest_concurrency,
            MAINTAIN: 3,
            MIGRATE: 1,
            RECONCILE: 1,
            TENANTS: 1,
            ERASE: 2,
            # One run may still be at work when the next one is due.
            NOTIFY: 2,
        }[row]

    @property
    def bucket_arn(self) -> str:
        """Written out by its fixed name, so that policies can be read."""
        return f"arn:{aws_cdk.Aws.PARTITION}:s3:::{self.data.documents.node.default_child.bucket_name}"

    @property
    def canary_arn(self) -> str:
        """The one object that reconcile may write."""
        return f"{self.bucket_arn}/{PLACE.object_key}"

    def _reading(self) -> list[iam.PolicyStatement]:
        """With ListBucket S3 tells an absent object (404) from a forbidden one."""
        return [
            allow(["s3:GetObject", "s3:GetObjectVersion"], f"{self.bucket_arn}/*"),
            allow(["s3:ListBucket"], self.bucket_arn),
        ]

    def failing(self) -> list[iam.PolicyStatement]:
        """Lets what failed be put aside, and all be read that is under the stage's key: messages, secrets, objects."""
        key = self.data.keys.data
        return [
            allow(["sqs:SendMessage"], self.failures.queue_arn),
            *([allow(["kms:Decrypt", "kms:GenerateDataKey"], key.key_arn)] if key else []),
        ]


def allow(actions: Sequence[str], *resources: str, **conditions: dict[str, str]) -> iam.PolicyStatement:
    return iam.PolicyStatement(actions=[*actions], resources=[*resources], conditions=conditions or None)
