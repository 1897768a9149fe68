"""The composition root: builds each edge from the settings, once per execution environment and when first needed."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

from rag.types import EmbeddingSpace

if TYPE_CHECKING:
    import uuid
    from concurrent.futures import ThreadPoolExecutor

    from rag.access_tokens import AccessTokens
    from rag.bucket import Bucket
    from rag.bus import Bus
    from rag.cache import Cache
    from rag.deadline import Deadline
    from rag.llm import LLM
    from rag.metering import Ledger, Metered, Places
    from rag.parser import Parser
    from rag.queue import Queue
    from rag.recognition import Recognizer
    from rag.reranking import Listwise
    from rag.settings import Settings
    from rag.store.access import KeyStore, TenantStore
    from rag.store.audit import AuditRetention, AuditStore
    from rag.store.catalog import Catalog
    from rag.store.conversations import ConversationStore
    from rag.store.database import Database
    from rag.store.erasures import ErasureRequests, ErasureStore
    from rag.store.export import ExportStore
    from rag.store.idempotency import IdempotencyStore
    from rag.store.index import IndexStore
    from rag.store.keyring import Keyring
    from rag.store.maintenance import IndexMaintenance
    from rag.store.outbox import OutboxStore
    from rag.store.recall import RecallMaintenance
    from rag.store.reconciliation import ReconciliationStore
    from rag.store.search import SearchStore
    from rag.store.staged import StagingStore
    from rag.store.statistics import StatisticsMaintenance
    from rag.store.usage import UsageStore
    from rag.store.weights import WeightMaintenance
    from rag.throttling import Throttle
    from rag.webhook import Webhook

# Whom the tenant's documents are counted to.
INGEST = "ingest"
DATABASE_PORT = 5432  # where the URL names none
# In which an invocation says that it could not do its work.
LAST_SECONDS = 1.0


def preload(*, clients: bool) -> None:
    """Import what a question needs, with `clients` also those of cache and model; nothing is read or connected."""
    import rag.cache  # noqa: PLC0415
    import rag.llm  # noqa: PLC0415
    import rag.store.search  # noqa: PLC0415

    if clients:
        rag.cache.preload()
        rag.llm.preload()


def preload_settings() -> None:
    """Import what every event of a function needs for which somebody waits; nothing is read, built or connected."""
    import rag.settings  # noqa: F401, PLC0415


@cache
def settings() -> Settings:
    from rag.settings import Settings  # noqa: PLC0415 (pydantic: half of the initialisation of who waits for nobody)

    return Settings.from_environment(os.environ)


def secret(name: str) -> str:
    """Return the string of a secret, or nothing where none is named."""
    from rag.secrets import Secrets  # noqa: PLC0415 (every edge below is imported where it is built)

    return Secrets.from_environment().get(name) if name else ""


def password(name: str) -> str:
    """Return the password that a secret holds, or nothing where none is named."""
    from rag.secrets import Secrets  # noqa: PLC0415

    return Secrets.from_environment().password(name) if name else ""


def database_password() -> str:
    """Return what this function's role connects with now: its secret's password, or a token of AWS's own."""
    if settings().database_auth == "password":
        return password(settings().database_secret)
    from rag import identity, signing  # noqa: PLC0415

    url = urlsplit(settings().database_url)
    return signing.connect_token(
        url.hostname or "",
        url.port or DATABASE_PORT,
        unquote(url.username or ""),
        region=os.environ["AWS_REGION"],
        credentials=identity.credentials(os.environ),
        at=datetime.now(UTC),
    )


def embedding_space() -> EmbeddingSpace:
    return EmbeddingSpace(settings().embedding_model, settings().embedding_dimensions)


@cache
def database() -> Database:
    from rag.store.database import Database  # noqa: PLC0415

    return Database(settings().database_url, database_password)


class Invocation(Protocol):
    def get_remaining_time_in_millis(self) -> int: ...


def until_the_end(invocation: Invocation, *, margin_seconds: float, most_seconds: float = math.inf) -> Deadline:
    """Return when this invocation's work must have ended, so long before Lambda ends it, and at most so much later.

    Nobody waits for the database beyond that, but for what is to be written of work that took all its time.
    """
    from rag import deadline  # noqa: PLC0415

    left = invocation.get_remaining_time_in_millis() / 1000
    database().deadline = deadline.Deadline.after(min(left - LAST_SECONDS, most_seconds))
    return deadline.Deadline.after(min(left - margin_seconds, most_seconds))


@cache
def search_store() -> SearchStore:
    from rag.store.search import SearchStore  # noqa: PLC0415

    return SearchStore(database(), embedding_space())


@cache
def conversation_store() -> ConversationStore:
    from rag.store.conversations import ConversationStore  # noqa: PLC0415

    return ConversationStore(database(), settings().conversation_ttl_seconds)


@cache
def idempotency_store() -> IdempotencyStore:
    from rag.store.idempotency import IdempotencyStore  # noqa: PLC0415

    return IdempotencyStore(database())


@cache
def audit_store() -> AuditStore:
    from rag.store.audit import AuditStore  # noqa: PLC0415

    return AuditStore(database())


@cache
def export_store() -> ExportStore:
    from rag.store.export import ExportStore  # noqa: PLC0415

    return ExportStore(database())


@cache
def audit_retention() -> AuditRetention:
    from rag.store.audit import AuditRetention  # noqa: PLC0415

    return AuditRetention(database(), settings().audit_days)


def reranker(model: Metered) -> Listwise:
    from rag.reranking import Listwise  # noqa: PLC0415
    from rag.tokens import tokenizer  # noqa: PLC0415

    return Listwise(model, answer_cache(), tokenizer(None))


@cache
def index_store() -> IndexStore:
    from rag.store.index import IndexStore  # noqa: PLC0415

    return IndexStore(database(), embedding_space())


@cache
def staging_store() -> StagingStore:
    from rag.store.staged import StagingStore  # noqa: PLC0415

    return StagingStore(index_store())


@cache
def index_maintenance() -> IndexMaintenance:
    from rag.store.maintenance import IndexMaintenance  # noqa: PLC0415

    return IndexMaintenance(
        settings().database_url,
        database_password,
        threshold=settings().index_chunks,
        memory_mib=settings().index_memory_mib,
    )


@cache
def recall_maintenance() -> RecallMaintenance:
    from rag.store.recall import RecallMaintenance  # noqa: PLC0415

    return RecallMaintenance(index_maintenance())


@cache
def weight_maintenance() -> WeightMaintenance:
    from rag.store.weights import WeightMaintenance  # noqa: PLC0415

    return WeightMaintenance(database())


@cache
def statistics_maintenance() -> StatisticsMaintenance:
    from rag.store.statistics import StatisticsMaintenance  # noqa: PLC0415

    return StatisticsMaintenance(database())


@cache
def reconciliation_store() -> ReconciliationStore:
    from rag.store.reconciliation import ReconciliationStore  # noqa: PLC0415

    return ReconciliationStore(database())


@cache
def catalog() -> Catalog:
    from rag.store.catalog import Catalog  # noqa: PLC0415

    return Catalog(database(), embedding_space())


@cache
def key_store() -> KeyStore:
    from rag.store.access import KeyStore  # noqa: PLC0415

    return KeyStore(database())


@cache
def access_tokens() -> AccessTokens:
    from rag.access_tokens import AccessTokens  # noqa: PLC0415 (cryptography: 0.2 s, for who was sent a token)

    return AccessTokens(settings().oidc)


@cache
def keyring() -> Keyring:
    from rag.store.keyring import Keyring  # noqa: PLC0415

    return Keyring(database())


@cache
def tenant_store() -> TenantStore:
    from rag.store.access import TenantStore  # noqa: PLC0415

    return TenantStore(database(), embedding_space())


@cache
def llm() -> LLM:
    from rag.llm import LLM  # noqa: PLC0415

    return LLM(
        settings().model_url,
        lambda: secret(settings().model_secret),
        embedding_model=settings().embedding_model,
        dimensions=settings().embedding_dimensions,
        chat_model=settings().chat_model,
        answer_tokens=settings().answer_tokens,
    )


@cache
def usage_store() -> UsageStore:
    from rag.spending import Budgets, Price  # noqa: PLC0415
    from rag.store.usage import UsageStore  # noqa: PLC0415

    given = settings()
    return UsageStore(
        database(),
        Budgets(
            requests_per_day=given.tenant_requests_per_day,
            tokens_per_day=given.tenant_tokens_per_day,
            tokens_per_month=given.tenant_tokens_per_month,
            usd_per_day=given.tenant_usd_per_day,
            usd_per_month=given.tenant_usd_per_month,
        ),
        {
            given.embedding_model: Price(given.embedding_usd_per_million_tokens or 0),
            given.chat_model: Price(
                given.prompt_usd_per_million_tokens or 0, given.completion_usd_per_million_tokens or 0
            ),
        },
    )


def model(tenant_id: uuid.UUID, principal: str, ledger: Ledger | None = None) -> Metered:
    """Return the model for one request of a tenant's caller, or one document, whose principal is INGEST."""
    from rag.metering import Metered  # noqa: PLC0415

    return Metered(llm(), ledger or usage_store(), tenant_id, principal, _places())


@cache
def document_threads() -> ThreadPoolExecutor:
    """In which ingest works on the documents of a batch; to start them is a twentieth of the work on short ones."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    return ThreadPoolExecutor(settings().ingest_threads, thread_name_prefix="ingest")


@cache
def _places() -> Places:
    """One long document alone asks for as much at once as several short ones do."""
    from rag.metering import Places  # noqa: PLC0415

    return Places(settings().ingest_threads)


@cache
def answer_cache() -> Cache:
    from rag.cache import Cache  # noqa: PLC0415

    return Cache(
        settings().redis_url,
        lambda: password(settings().redis_secret),
        # Who can write to the cache need not know what the functions show the model server.
        signing=lambda: secret(settings().model_secret) or password(settings().redis_secret),
        ttl_seconds=settings().cache_ttl_seconds,
    )


@cache
def throttle() -> Throttle:
    from rag.throttling import Throttle  # noqa: PLC0415

    return Throttle(answer_cache())


@cache
def bucket() -> Bucket:
    from rag.bucket import Bucket  # noqa: PLC0415

    return Bucket(settings().bucket)


@cache
def queue() -> Queue:
    from rag.queue import Queue  # noqa: PLC0415

    return Queue(settings().queue_url)


@cache
def retry_queue() -> Queue:
    from rag.queue import Queue  # noqa: PLC0415

    return Queue(settings().retry_queue_url)


@cache
def dead_letters() -> Queue:
    from rag.queue import Queue  # noqa: PLC0415

    return Queue(settings().dead_letter_queue_url)


@cache
def outbox() -> OutboxStore:
    from rag.store.outbox import OutboxStore  # noqa: PLC0415

    return OutboxStore(database())


@cache
def bus() -> Bus:
    from rag.bus import Bus  # noqa: PLC0415

    return Bus(settings().event_bus)


@cache
def webhook() -> Webhook | None:
    from rag.webhook import Webhook  # noqa: PLC0415

    url, signing = settings().webhook_url, settings().webhook_secret
    return Webhook(url, lambda: secret(signing), local=settings().stage == "local") if url else None


@cache
def maintenance_queue() -> Queue:
    from rag.queue import Queue  # noqa: PLC0415

    return Queue(settings().maintenance_queue_url)


@cache
def erasure_queue() -> Queue:
    from rag.queue import Queue  # noqa: PLC0415

    return Queue(settings().erasure_queue_url)


@cache
def erasure_requests() -> ErasureRequests:
    from rag.store.erasures import ErasureRequests  # noqa: PLC0415

    return ErasureRequests(database())


@cache
def erasure_store() -> ErasureStore:
    from rag.store.erasures import ErasureStore  # noqa: PLC0415

    return ErasureStore(database())


@cache
def parser() -> Parser:
    from rag.limits import MEBIBYTE, Limits  # noqa: PLC0415
    from rag.parser import Parser  # noqa: PLC0415
    from rag.recognition import Scans  # noqa: PLC0415

    limits = Limits(
        characters=settings().max_document_characters,
        pages=settings().max_document_pages,
        archive_entries=settings().max_archive_entries,
        unpacked_bytes=settings().max_unpacked_mib * MEBIBYTE,
        compression_ratio=settings().max_compression_ratio,
        nesting_depth=settings().max_nesting_depth,
    )
    return Parser(
        wall_seconds=settings().parse_seconds,
        memory_mebibytes=settings().parse_memory_mib,
        limits=limits,
        scans=Scans(_recognizer(), settings().ocr_pages, settings().ocr_seconds),
    )


def _recognizer() -> Recognizer | None:
    """Who reads pages without text; nobody where Tesseract is asked for and not installed."""
    from rag import tesseract  # noqa: PLC0415

    if settings().ocr == "textract":
        from rag.textract import Textract  # noqa: PLC0415

        return Textract()
    program = tesseract.program() if settings().ocr == "tesseract" else None
    return tesseract.Tesseract(program, settings().ocr_languages) if program else None


@cache
def count_tokens() -> Callable[[Sequence[str]], list[int]]:
    from rag.tokens import tokenizer  # noqa: PLC0415

    return tokenizer(Path(settings().tokenizer_path) if settings().tokenizer_path else None)
