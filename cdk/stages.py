"""The environments: three frozen rows, and the only place where they differ."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from rag.oidc import Issuer
from rag.settings import Settings


def _default(setting: str) -> Any:
    return Settings.model_fields[setting].default


@dataclass(frozen=True, slots=True)
class Stage:
    """One environment. Sizes in GiB, retention in days, money in US dollars a month.

    What is a person's or a company's own (domain, addresses, repository) is empty unless its row gives it.
    """

    name: Literal["dev", "staging", "prod"]

    # Network: isolated subnets for data, private ones for functions, in so many zones.
    zones: int = 2
    nat: Literal["instance", "gateways"] = "instance"
    interface_endpoints: bool = False
    flow_log_days: int = 7

    # Data
    database_class: str = "t4g.micro"
    database_gib: int = 20
    database_max_gib: int = 100
    database_multi_az: bool = False
    database_connections: int = 80
    database_proxy: bool = False
    database_replica: bool = False
    enhanced_monitoring: bool = False
    recovery_days: int = 7
    cache: Literal["serverless", "nodes"] = "serverless"
    cache_class: str = "cache.t4g.micro"
    cache_nodes: int = 1
    own_keys: bool = False
    protected: bool = False
    access_logs: bool = False
    noncurrent_days: int = 7
    lock_backups: bool = False

    # Service
    log_days: int = 7
    audit_days: int = 30
    audit_questions: str = _default("audit_questions")
    audit_failure: str = _default("audit_failure")
    snap_start: bool = False
    reserve_concurrency: bool = False
    # Sandboxes at once; all of them together stay below 80 % of `database_connections`.
    query_concurrency: int = 10
    answer_concurrency: int = 10
    authorize_concurrency: int = 10
    ingest_concurrency: int = 2
    permissions_boundary: bool = False
    code_signing: bool = False
    canary: bool = False
    waf: bool = False
    threat_protection: bool = False
    requests_per_second: int = 20
    burst: int = 40
    domain: str = ""
    hosted_zone_id: str = ""
    certificate_arn: str = ""
    cors_origins: tuple[str, ...] = ()
    # Amazon Textract reads pages without text, which costs money for each.
    text_recognition: bool = False
    # Beyond these a document is refused; its file and text have to fit into the temporary storage of ingest as well.
    max_document_bytes: int = _default("max_document_bytes")
    max_document_pages: int = _default("max_document_pages")
    max_document_characters: int = _default("max_document_characters")
    max_document_chunks: int = _default("max_document_chunks")
    max_unpacked_mib: int = _default("max_unpacked_mib")
    parse_seconds: float = _default("parse_seconds")
    allowed_cidrs: tuple[str, ...] = ()
    model_url: str = _default("model_url")
    embedding_model: str = _default("embedding_model")
    embedding_dimensions: int = _default("embedding_dimensions")
    chat_model: str = _default("chat_model")
    # What any one tenant may use of the models on a day, or in a month, of UTC; 0: any number. A tenant may have limits
    # of its own.
    tenant_requests_per_day: int = _default("tenant_requests_per_day")
    tenant_tokens_per_day: int = _default("tenant_tokens_per_day")
    tenant_tokens_per_month: int = _default("tenant_tokens_per_month")
    tenant_usd_per_day: float = _default("tenant_usd_per_day")
    tenant_usd_per_month: float = _default("tenant_usd_per_month")
    # What these models cost, in US dollars for a million tokens.
    embedding_usd_per_million_tokens: float | None = _default("embedding_usd_per_million_tokens")
    prompt_usd_per_million_tokens: float | None = _default("prompt_usd_per_million_tokens")
    completion_usd_per_million_tokens: float | None = _default("completion_usd_per_million_tokens")
    # Requests to the API in a minute, unless a key or a tenant has a number of its own; 0: any number.
    rate_limit_requests: int = _default("rate_limit_requests")
    tenant_rate_limit_requests: int = _default("tenant_rate_limit_requests")
    webhook_url: str = ""
    # Whose access tokens are accepted besides those of the stage's own user pool; each needs a subject_prefix.
    issuers: tuple[Issuer, ...] = ()

    # Watching and paying
    alarm_email: str = ""
    watch_closely: bool = False
    budget_usd: int = 50

    # Delivery: owner/name of the repository whose workflow may deploy; empty: nobody by OpenID Connect.
    github_repository: str = ""

    # What an account may have already, or not want. The copies go to a vault elsewhere, given by its ARN.
    github_provider: bool = True
    bastion: bool = False
    copy_backups_to: str = ""
    account_guards: bool = False


DEV = Stage("dev")
STAGING = Stage(
    "staging",
    nat="gateways",
    interface_endpoints=True,
    flow_log_days=30,
    database_class="t4g.medium",
    database_gib=50,
    database_max_gib=500,
    database_connections=300,
    database_proxy=True,
    enhanced_monitoring=True,
    recovery_days=14,
    cache="nodes",
    cache_nodes=2,
    own_keys=True,
    protected=True,
    access_logs=True,
    noncurrent_days=30,
    log_days=30,
    audit_days=90,
    snap_start=True,
    reserve_concurrency=True,
    query_concurrency=50,
    answer_concurrency=50,
    authorize_concurrency=30,
    ingest_concurrency=5,
    permissions_boundary=True,
    waf=True,
    requests_per_second=50,
    burst=100,
    watch_closely=True,
    budget_usd=400,
)
PROD = replace(
    STAGING,
    name="prod",
    zones=3,
    flow_log_days=365,
    database_class="m7g.large",
    database_gib=100,
    database_max_gib=2000,
    database_multi_az=True,
    database_connections=800,
    database_replica=True,
    recovery_days=35,
    cache_class="cache.m7g.large",
    noncurrent_days=35,
    lock_backups=True,
    log_days=365,
    audit_days=400,
    query_concurrency=200,
    answer_concurrency=200,
    authorize_concurrency=100,
    ingest_concurrency=20,
    code_signing=True,
    canary=True,
    threat_protection=True,
    requests_per_second=200,
    burst=400,
    budget_usd=1200,
    account_guards=True,
)
STAGES = (DEV, STAGING, PROD)
