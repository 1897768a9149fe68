"""What can be set: one frozen model over the environment variables `RAG_*`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rag.oidc import Issuer, check_together
from rag.types import Fusion, KeptQuestions, Rerank

PREFIX = "RAG_"


class Settings(BaseModel):
    """Read once by `rag.wiring`; secrets are named here, never held."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str = Field("local", description="Name of the deployment: local, dev, staging or prod.")
    database_url: str = Field("", description="PostgreSQL URL of this function's own role, without a password.")
    database_auth: Literal["password", "iam"] = Field(
        "password", description="What that role logs in with: password (of a secret), or iam (a token of AWS's)."
    )
    database_secret: str = Field("", description="Secret (name or ARN) that holds the password of that role.")
    redis_url: str = Field("", description="Redis or Valkey URL without a password; empty: only the in-process cache.")
    redis_secret: str = Field("", description="Secret that holds the cache's password; empty: none is sent.")
    role_secrets: dict[str, str] = Field(
        default_factory=dict, description="JSON of database role to the secret with its password; for migrate only."
    )
    iam_roles: list[str] = Field(
        default_factory=list, description="JSON list of the database roles that log in by IAM; for migrate only."
    )
    bucket: str = Field("", description="Bucket of the documents; objects are named <tenant>/<collection>/<key>.")
    queue_url: str = Field("", description="Queue of the bucket's events; for ingest only.")
    retry_queue_url: str = Field("", description="The same queue, to send documents to that are tried again.")
    maintenance_queue_url: str = Field("", description="Queue that wakes maintain; for ingest only.")
    erasure_queue_url: str = Field("", description="Queue of what is to be erased; for query, tenants and erase.")
    backup_days: int = Field(0, ge=0, description="How long backups keep what was erased; 0: there are none.")
    dead_letter_queue_url: str = Field("", description="Queue of messages that were given up; for notify only.")
    event_bus: str = Field("", description="EventBridge bus that is told when a document is ready or failed.")
    webhook_url: str = Field("", description="HTTPS address that is told the same, in signed requests; empty: none.")
    webhook_secret: str = Field("", description="Secret whose string signs these requests.")
    model_url: str = Field("https://api.openai.com/v1", description="Base URL of an OpenAI-compatible model server.")
    model_secret: str = Field("", description="Secret whose string is the model server's API key; empty: none needed.")
    embedding_model: str = Field("text-embedding-3-small", description="Model that embeds documents and questions.")
    embedding_dimensions: int = Field(1536, ge=1, le=4000, description="Width of its vectors.")
    chat_model: str = Field("gpt-4.1-mini", description="Model that answers from the passages.")
    tokenizer_path: str = Field("", description="tokenizer.json of the embedding model; empty: tokens are estimated.")
    embedding_usd_per_million_tokens: float | None = Field(
        None, ge=0, description="What embedding a million tokens costs; unset: it is told nowhere."
    )
    prompt_usd_per_million_tokens: float | None = Field(
        None, ge=0, description="What a million tokens cost that the chat model is sent; unset: it is told nowhere."
    )
    completion_usd_per_million_tokens: float | None = Field(
        None, ge=0, description="What a million tokens cost that the chat model writes; unset: it is told nowhere."
    )
    # A whole batch of messages is a whole number of rounds.
    ingest_threads: int = Field(
        5,
        ge=1,
        le=10,
        description="Documents that ingest works on at once, and batches of texts that it embeds at once.",
    )
    batch_size: int = Field(100, ge=1, le=2048, description="Texts per embedding request.")
    chunk_tokens: int = Field(150, ge=20, le=4000, description="Tokens that a chunk aims at.")
    chunk_max_tokens: int = Field(250, ge=30, le=8000, description="Tokens that no chunk exceeds, with its context.")
    max_document_bytes: int = Field(100_000_000, ge=1, description="A larger file is refused as TOO_LARGE.")
    max_document_pages: int = Field(20_000, ge=1, description="A longer PDF or deck is refused as TOO_MANY_PAGES.")
    max_document_characters: int = Field(
        64_000_000, ge=1, description="A document with more text is refused as TOO_MUCH_TEXT."
    )
    max_unpacked_mib: int = Field(
        400, ge=1, description="What is larger when unpacked, in MiB, is refused as UNPACKS_TOO_LARGE."
    )
    max_compression_ratio: int = Field(
        200, ge=2, description="A large part compressed further is refused as COMPRESSED_TOO_FAR."
    )
    max_archive_entries: int = Field(
        20_000, ge=1, description="An office file or book of more parts is refused as TOO_MANY_PARTS."
    )
    max_nesting_depth: int = Field(
        200, ge=10, le=300, description="XML, JSON or e-mail nested deeper is refused as TOO_DEEP."
    )
    parse_seconds: float = Field(
        60, gt=0, description="Wall-clock limit of parsing one document; beyond it PARSE_TIMEOUT."
    )
    parse_memory_mib: int = Field(
        1024, ge=64, description="Address space of the parsing child, in MiB; beyond it PARSE_MEMORY."
    )
    max_document_chunks: int = Field(2_000_000, ge=1, description="More passages are refused as TOO_MANY_CHUNKS.")
    held_chunks: int = Field(2000, ge=1, description="A document of more is staged in the database, not in memory.")
    max_continuations: int = Field(200, ge=0, description="Runs that a large document may go on in after its first.")
    ocr: Literal["off", "textract", "tesseract"] = Field(
        "off", description="Who reads pages without text: off (nobody), textract (AWS), tesseract (where installed)."
    )
    ocr_pages: int = Field(300, ge=1, le=3000, description="Pages of a document that are read so, at most.")
    ocr_seconds: float = Field(240, gt=0, le=400, description="Time to read them in; the rest is named in a warning.")
    ocr_languages: str = Field("eng", pattern=r"^\w+(\+\w+)*$", description="Tesseract's languages, such as eng+deu.")
    max_receives: int = Field(5, ge=1, description="Deliveries of a queue message, as its redrive policy says.")
    visibility_seconds: int = Field(
        3660, ge=1, description="How long the queue of the bucket's events hides a message; for reconcile only."
    )
    reconcile_keys: int = Field(
        200_000, ge=1, description="Keys that one run compares between bucket and index; for reconcile only."
    )
    reconcile_settled_seconds: int = Field(
        900, ge=0, description="How old a change must be to count as drift; for reconcile only."
    )
    reconcile_rest_seconds: int = Field(
        3600, ge=0, description="Time between two comparisons of bucket and index; for reconcile only."
    )
    canary_seconds: int = Field(
        600, ge=0, description="How soon the canary must be ready or gone; 0: there is none; for reconcile only."
    )
    top_k: int = Field(20, ge=1, le=300, description="Candidates that diversity and reranking choose from.")
    rerank_top_k: int = Field(
        10,
        ge=1,
        le=100,
        description="Passages retrieved for an answer, unless its request says how many; the model is shown no more.",
    )
    fusion: Fusion = Field("weighted", description="How both legs become one order: weighted or rrf.")
    mmr_lambda: float = Field(1, ge=0, le=1, description="Weight of relevance against diversity; 1: no diversity.")
    per_document: int | None = Field(None, ge=1, le=300, description="Passages of one document at most; unset: all.")
    rerank: Rerank = Field("none", description="Second look at the order of passages: none, or llm (the chat model).")
    min_score: float | None = Field(None, ge=0, le=1, description="Relevance that an answer needs; unset: calibrated.")
    context_tokens: int = Field(3000, ge=100, description="Tokens of passages in a prompt.")
    answer_tokens: int = Field(500, ge=16, description="Tokens that an answer may have.")
    rate_limit_requests: int = Field(
        100, ge=0, le=1_000_000, description="Requests that a key may make in a window; 0: any number."
    )
    rate_limit_window: int = Field(60, ge=1, le=86_400, description="Seconds in which these come back, one by one.")
    tenant_rate_limit_requests: int = Field(
        1000, ge=0, le=1_000_000, description="Requests that all of a tenant may make in a window; 0: any number."
    )
    tenant_requests_per_day: int = Field(
        0, ge=0, description="Requests to models that a tenant may cause on a day of UTC; 0: any number."
    )
    tenant_tokens_per_day: int = Field(
        0, ge=0, description="Tokens, in and out, that a tenant may cause on a day of UTC; 0: any number."
    )
    tenant_tokens_per_month: int = Field(
        0, ge=0, description="Tokens, in and out, that a tenant may cause in a month of UTC; 0: any number."
    )
    tenant_usd_per_day: float = Field(
        0, ge=0, description="What a tenant's tokens may cost on a day of UTC, by the prices above; 0: any amount."
    )
    tenant_usd_per_month: float = Field(
        0, ge=0, description="What a tenant's tokens may cost in a month of UTC; 0: any amount."
    )
    index_chunks: int = Field(
        2_000, ge=1, description="A collection with more chunks gets indexes; for maintain and ingest."
    )
    index_memory_mib: int = Field(
        256, ge=16, description="Memory of the database to build an index in; for maintain only."
    )
    conversation_ttl_seconds: int = Field(
        86_400, ge=60, description="How long a conversation is kept after its last question."
    )
    cache_ttl_seconds: int = Field(1800, ge=1, description="How long an answer or embedding stays in the cache.")
    request_seconds: float = Field(25, gt=0, description="Time for one request when the platform gives more.")
    stream_seconds: float = Field(110, gt=0, description="Time for one streamed answer when the platform gives more.")
    audit_questions: KeptQuestions = Field(
        "off", description="What the audit log keeps of questions: off (nothing), hash (a digest), or text."
    )
    audit_failure: Literal["open", "closed"] = Field(
        "open",
        description="What becomes of a request whose row of the audit log fails: open (answered), or closed (503).",
    )
    audit_days: int = Field(400, ge=30, description="How many days rows of the audit log are kept; for maintain only.")
    cors_origins: list[str] = Field(
        default_factory=list, description="JSON list of the origins of web pages that may call the API."
    )
    oidc: list[Issuer] = Field(
        default_factory=list,
        description="JSON list of the issuers whose access tokens are accepted; for authorize only.",
    )
    upload_seconds: int = Field(900, ge=60, le=3600, description="How long a presigned upload is valid.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least severe log line.")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Take every `RAG_*` variable; an unknown or malformed one is a pydantic.ValidationError that names it."""
        taken = {name[len(PREFIX) :].lower(): value for name, value in environment.items() if name.startswith(PREFIX)}
        return cls.model_validate({name: value for name, value in taken.items() if value != ""})

    @model_validator(mode="after")
    def _webhook_is_secure(self) -> Settings:
        url = urlsplit(self.webhook_url)
        if self.webhook_url and not (url.hostname and url.scheme in self._webhook_schemes):
            msg = "RAG_WEBHOOK_URL must begin with https:// and name a host"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _issuers_are_secure(self) -> Settings:
        check_together(self.oidc)
        insecure = [] if self.stage == "local" else [each.issuer for each in self.oidc if not each.is_secure()]
        if insecure:
            msg = f"RAG_OIDC: {insecure[0]} and its jwks_uri must begin with https:// and name a host"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _budgets_have_prices(self) -> Settings:
        if (self.tenant_usd_per_day or self.tenant_usd_per_month) and not self.priced:
            msg = "a budget in USD needs RAG_{EMBEDDING,PROMPT,COMPLETION}_USD_PER_MILLION_TOKENS"
            raise ValueError(msg)
        return self

    @property
    def priced(self) -> bool:
        """Whether it is known what every call to a model costs."""
        prices = (
            self.embedding_usd_per_million_tokens,
            self.prompt_usd_per_million_tokens,
            self.completion_usd_per_million_tokens,
        )
        return None not in prices

    @property
    def _webhook_schemes(self) -> set[str]:
        return {"https", "http"} if self.stage == "local" else {"https"}

    @field_validator("role_secrets", "iam_roles", "cors_origins", "oidc", mode="before")
    @classmethod
    def _from_json(cls, value: object) -> object:
        return json.loads(value) if isinstance(value, str) else value
