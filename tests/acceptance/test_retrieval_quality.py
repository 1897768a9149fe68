"""Test collections by the product's own pipelines: ingested and searched as the functions do.

Here are the largest set and the one whose language the embedding model does not know; `rag eval` measures any other.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from local.environment import local_model
from local.evaluation import metrics
from local.evaluation.collection import TestCollection, read
from local.model_service import ModelServer
from rag import ingestion, searching, tokens
from rag.cache import Cache
from rag.deadline import Deadline
from rag.llm import LLM
from rag.metering import Metered
from rag.migrations import ensure_space
from rag.parser import Parser
from rag.settings import Settings
from rag.store.access import TenantStore
from rag.store.catalog import Catalog
from rag.store.database import Database
from rag.store.index import IndexStore
from rag.store.search import SearchStore
from rag.store.staged import StagingStore
from rag.store.usage import UsageStore
from rag.types import Delivery, EmbeddingSpace, Location, Mode, ObjectVersion, Scope

MODES: tuple[Mode, ...] = ("lexical", "dense", "hybrid")
PROMISED = {"lexical": 0.67, "dense": 0.64, "hybrid": 0.72}
COLLECTION = "measured"
WORKERS = 3


@dataclass(frozen=True)
class Record:
    version: ObjectVersion
    body: bytes

    def fetch(self, path: Path, *, limit_bytes: int) -> bytes:
        assert len(self.body) <= limit_bytes
        path.write_bytes(self.body)
        return b"\0" * 32

    def close(self) -> None:
        """There is nothing to let go of."""


@dataclass
class Folder:
    """The bucket's edge over records in memory: what is measured here is ranking, not S3."""

    objects: dict[str, bytes]

    def head(self, object_key: str, *, hurried: bool = False) -> ObjectVersion | None:
        body = self.objects.get(object_key)
        return ObjectVersion("1", "etag", len(body)) if body is not None else None

    def open(self, object_key: str) -> Record | None:
        version = self.head(object_key)
        return Record(version, self.objects[object_key]) if version else None

    def read(self, object_key: str, *, limit_bytes: int) -> bytes | None:
        body = self.objects.get(object_key)
        assert body is None or len(body) <= limit_bytes
        return body


@pytest.fixture
def models(tmp_path: Path) -> Iterator[ModelServer]:
    server = ModelServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "language"), [("xquad-es", "spanish"), pytest.param("scifact", "english", marks=pytest.mark.corpora)]
)
def test_both_legs_together_are_no_worse_than_each_and_than_the_baseline(
    database: Any, models: ModelServer, shared_data: Path, name: str, language: str
) -> None:
    folder = shared_data / "retrieval" / name
    given = read(folder)
    model = local_model(models.url)
    space = EmbeddingSpace(model.embedding_model, model.embedding_dimensions)
    ensure_space(database.dsn("rag_owner"), space)
    tenant = made(database, space, language)
    llm = LLM(
        model.url,
        lambda: "",
        embedding_model=model.embedding_model,
        dimensions=model.embedding_dimensions,
        chat_model=model.chat_model,
        answer_tokens=100,
    )
    chunk_count = fill(database, space, llm, tenant, given.documents, tokens.tokenizer(model.tokenizer))
    ranked = rank(database, space, llm, tenant, given)
    figures = {mode: metrics.summary(ranked[mode], given.judgements)["ndcg@10"] for mode in MODES}
    print(f"{name}: {len(given.documents)} documents, {chunk_count} chunks, {len(given.queries)} questions: {figures}")
    least = baseline(folder.parent / "MANIFEST.md", name)
    assert figures["lexical"] >= least["lexical"] - 0.01
    assert figures["hybrid"] >= max(figures["lexical"], figures["dense"], least["weighted"] - 0.005)
    assert name != "scifact" or all(figures[mode] >= PROMISED[mode] for mode in MODES)


def made(database: Any, space: EmbeddingSpace, language: str) -> uuid.UUID:
    """A tenant whose collection `measured` is of this language."""
    admin = Database(database.dsn("rag_admin"), lambda: "")
    tenant, _ = TenantStore(admin, space).create("measured")
    admin.close()
    query = Database(database.dsn("rag_query"), lambda: "")
    Catalog(query, space).create_collection(Scope(tenant), COLLECTION, language)
    query.close()
    return tenant


def baseline(manifest: Path, name: str) -> dict[str, float]:
    """nDCG@10 of BM25 and of the weighted fusion, by the reference numbers that come with the sets."""
    table = manifest.read_text().partition("## Reference numbers")[2]
    [row] = [line for line in table.splitlines() if line.startswith(f"| {name} |")]
    _, _, lexical, _, _, weighted, *_ = (cell.strip() for cell in row.split("|"))
    return {"lexical": float(lexical.split(" / ")[0]), "weighted": float(weighted.split(" / ")[0])}


def fill(
    database: Any, space: EmbeddingSpace, llm: LLM, tenant: uuid.UUID, documents: Mapping[str, bytes], count_tokens: Any
) -> int:
    bucket = Folder({f"{tenant}/{COLLECTION}/{key}": body for key, body in documents.items()})
    settings = Settings()
    limits = ingestion.Limits(
        settings.max_document_bytes, settings.chunk_tokens, settings.chunk_max_tokens, settings.batch_size
    )

    def work(names: Sequence[str]) -> int:
        connection = Database(database.dsn("rag_ingest"), lambda: "")
        store, parser, count = IndexStore(connection, space), Parser(), 0
        for name in names:
            location = Location(tenant, COLLECTION, name)
            outcome = ingestion.ingest(
                location,
                bucket=bucket,
                parser=parser,
                embedder=Metered(llm, UsageStore(connection), tenant, "ingest"),
                store=store,
                staging=StagingStore(store),
                count_tokens=count_tokens,
                limits=limits,
                deadline=Deadline.after(60),
                delivery=Delivery(name),
            )
            assert outcome.result == "ready", (name, outcome)
            count += outcome.chunk_count
        parser.close()
        connection.close()
        return count

    names = list(documents)
    with ThreadPoolExecutor(WORKERS) as pool:
        return sum(pool.map(work, [names[number::WORKERS] for number in range(WORKERS)]))


def rank(
    database: Any, space: EmbeddingSpace, llm: LLM, tenant: uuid.UUID, given: TestCollection
) -> dict[Mode, dict[str, list[str]]]:
    """Mode → question → documents by their best chunk; a question is embedded once for all modes."""
    connection = Database(database.dsn("rag_query"), lambda: "")
    store, cache = SearchStore(connection, space), Cache("", lambda: "", signing=lambda: "", ttl_seconds=600)
    ranked: dict[Mode, dict[str, list[str]]] = {mode: {} for mode in MODES}
    for identity, mode in itertools.product(given.queries, MODES):
        found = searching.search(
            searching.Question(Scope(tenant), given.queries[identity], collection=COLLECTION, mode=mode, top_k=50),
            llm=llm,
            store=store,
            cache=cache,
            deadline=Deadline.after(30),
        )
        ranked[mode][identity] = list(dict.fromkeys(given.identities[hit.key] for hit in found.hits))
    connection.close()
    return ranked
