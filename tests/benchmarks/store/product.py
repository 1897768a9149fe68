"""The product's own stores, driven as its pipelines do: row-level security, its roles, its maintenance, its fusion.

Left out is what is no part of a store: parsing, chunking, the bucket and the embedding model.
"""

from __future__ import annotations

import hashlib
import uuid
from array import array
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from rag import ingestion, searching
from rag.deadline import Deadline
from rag.migrations import ensure_space
from rag.settings import Settings
from rag.store.access import TenantStore
from rag.store.collections import DEFAULT_COLLECTION
from rag.store.database import Database
from rag.store.index import IndexStore
from rag.store.maintenance import IndexMaintenance
from rag.store.search import SearchStore
from rag.store.statistics import StatisticsMaintenance
from rag.types import (
    Chunk,
    Condition,
    Delivery,
    Description,
    DocumentContent,
    EmbeddingSpace,
    Filters,
    IndexedChunk,
    Ingestion,
    Location,
    Mode,
    ObjectVersion,
    Scope,
    Vector,
)
from tests.benchmarks.store.contestant import KINDS, Kind, Place
from tests.benchmarks.store.corpus import CHUNKS_PER_DOCUMENT, FIELD, TAG, Corpus, Question, document_of, tagged
from tests.benchmarks.store.server import OWNER, PRODUCT, Server

MODEL = "benchmark"
_MODES: dict[Kind, Mode] = {"dense": "dense", "hybrid": "hybrid", "dense 1 %": "dense", "hybrid 1 %": "hybrid"}
_FILTERS = Filters((Condition(FIELD, "eq", TAG),))


class Product:
    """One function's connection, made on first use."""

    kinds: tuple[Kind, ...] = KINDS

    def __init__(self, place: Place) -> None:
        self._space = EmbeddingSpace(MODEL, place.dimensions)
        self._place = place
        self._tenant = uuid.UUID(place.tenant)
        self._ingesting = Database(place.urls["rag_ingest"], str)
        self._asking = Database(place.urls["rag_query"], str)
        self._index = IndexStore(self._ingesting, self._space)
        self._search = SearchStore(self._asking, self._space)

    def add(self, corpus: Corpus, chunks: range) -> None:
        """As many documents at once as the function ingest works on by default."""
        starts = range(chunks.start, chunks.stop, CHUNKS_PER_DOCUMENT)
        documents = [range(start, min(start + CHUNKS_PER_DOCUMENT, chunks.stop)) for start in starts]
        with ThreadPoolExecutor(Settings().ingest_threads) as threads:
            for _ in threads.map(lambda document: self._ingest(corpus, document), documents):
                pass

    def index(self) -> None:
        made = IndexMaintenance(
            self._place.urls[OWNER],
            str,
            threshold=self._place.index_chunks,
            memory_mib=Settings.from_environment({}).index_memory_mib,
        )
        made.run(Deadline.after(3600))
        # The function maintain does both.
        owner = Database(self._place.urls[OWNER], str)
        StatisticsMaintenance(owner).run(Deadline.after(3600))
        owner.close()

    def ask(self, kind: Kind, question: Question) -> Any:
        """As `searching.search` does once it has the vector."""
        filters = _FILTERS if kind.endswith("%") else Filters()
        wanted = searching.Question(Scope(self._tenant), question.text, mode=_MODES[kind], filters=filters)
        asked, selection = searching.Asked(question.text), searching.Selection(wanted, wanted.mode)
        return self._search.search(
            wanted.scope,
            wanted.collection,
            embedding=array("f", question.vector.tobytes()),
            lexemes=asked.lexemes,
            rank=selection.rank,
            mode=wanted.mode,
            filters=filters,
            depth=selection.depth,
            shown=selection.shown,
            reads_more=selection.reads_more,
        ).hits

    def numbers(self, answer: Any) -> Sequence[int]:
        return [int(hit.key) * CHUNKS_PER_DOCUMENT + hit.position for hit in answer]

    def close(self) -> None:
        self._ingesting.close()
        self._asking.close()

    def _ingest(self, corpus: Corpus, numbers: range) -> None:
        """As `ingestion.ingest` does with a document that was read, cut and embedded."""
        started_at = datetime.now(UTC)
        document = document_of(numbers.start)
        location = Location(self._tenant, DEFAULT_COLLECTION, f"{document}")
        size = sum(len(corpus.texts[number]) for number in numbers)
        version = ObjectVersion("1", "etag", size)
        collection = self._index.collection(location, create=True)
        assert collection is not None
        begun = self._index.begin(location, collection, version, Delivery(location.key))
        document_id = location.document_id
        chunks = [
            ingestion.indexed(document_id, collection, _chunk(corpus, number, position))
            for position, number in enumerate(numbers)
        ]
        hashes = [chunk.content_hash for chunk in chunks]
        known = {} if begun == "new" else self._index.known_embeddings(location, collection, hashes)
        vectors = {
            content_hash: array("f", corpus.vectors[number].tobytes())
            for content_hash, number in zip(hashes, numbers, strict=True)
        }
        content = _content(location, version, chunks, known | vectors)
        done = Ingestion("ready", started_at, "1", chunk_count=len(chunks), embedded_count=len(chunks))
        description = Description({FIELD: TAG} if tagged(numbers.start) else {FIELD: "other"})
        self._index.replace(location, collection, content, done, unchanged=lambda: True, describe=lambda: description)


def _chunk(corpus: Corpus, number: int, position: int) -> Chunk:
    text = corpus.texts[number]
    return Chunk(position, text, tokens=len(text) // 4)


def _content(
    location: Location, version: ObjectVersion, chunks: Sequence[IndexedChunk], vectors: dict[bytes, Vector]
) -> DocumentContent:
    return DocumentContent(
        version,
        hashlib.sha256(location.key.encode()).digest(),
        "text/plain",
        None,
        [replace(chunk, embedding=vectors[chunk.content_hash]) for chunk in chunks],
    )


def made(place: Place) -> Product:
    return Product(place)


def prepared(server: Server, dimensions: int, index_chunks: int) -> Place:
    """A migrated database with one tenant."""
    server.product()
    urls = {role: server.url(role, PRODUCT) for role in (OWNER, "rag_ingest", "rag_query", "rag_admin")}
    space = EmbeddingSpace(MODEL, dimensions)
    ensure_space(urls[OWNER], space)
    admin = Database(urls["rag_admin"], str)
    tenant, _ = TenantStore(admin, space).create("benchmark")
    admin.close()
    return Place(urls, dimensions, index_chunks, str(tenant))
