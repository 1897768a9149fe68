"""The statements by which a document's rows are written, inside a transaction of its ingest."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from typing import Any

from pgvector import HalfVector

from rag.store.database import Transaction
from rag.store.search import sparse
from rag.types import (
    Collection,
    Description,
    DocumentContent,
    EmbeddingSpace,
    IndexedChunk,
    Ingestion,
    Location,
    Vector,
)


def vector(text: str) -> Vector:
    return array("f", HalfVector.from_text(text).to_list())


class WeighedAnewError(Exception):
    """The collection has got another average length since the chunks were weighed."""


def count(transaction: Transaction, location: Location, collection: Collection, chunks: Sequence[IndexedChunk]) -> int:
    """Put these chunks in the place of the document's own in the statistics; return how many more there are by it."""
    frequencies: dict[int, int] = {}
    for chunk in chunks:
        for lexeme in chunk.lexemes:
            frequencies[lexeme] = frequencies.get(lexeme, 0) + 1
    place: dict[str, Any] = {"document": location.document_id, "collection": collection.id}
    transaction.run("count_lexemes", **place, lexemes=list(frequencies), frequencies=list(frequencies.values()))
    [(added,)] = transaction.rows(
        "count_chunks", **place, chunk_count=len(chunks), lexeme_count=sum(chunk.lexeme_count for chunk in chunks)
    )
    return int(added)


def finish(
    transaction: Transaction,
    location: Location,
    collection: Collection,
    content: DocumentContent,
    ingestion: Ingestion,
    description: Description,
) -> None:
    transaction.run(
        "finish_document",
        document=location.document_id,
        collection=collection.id,
        key=location.key,
        status=ingestion.outcome,
        version=content.version.version_id,
        content_hash=content.content_hash,
        size=content.version.size,
        media_type=content.media_type,
        title=content.title,
        chunk_count=len(content.chunks),
        error_code=ingestion.error_code,
        error_message=ingestion.error_message,
        **metadata(description),
    )


def metadata(description: Description) -> dict[str, Any]:
    """No metadata, which leaves what there is, when it cannot be used."""
    return {
        "metadata": None if description.error else json.dumps(description.metadata),
        "metadata_error": description.error,
    }


def record(transaction: Transaction, location: Location, collection: Collection, ingestion: Ingestion) -> None:
    transaction.run("drop_pending", document=location.document_id)
    transaction.run(
        "record_ingestion",
        document=location.document_id,
        collection=collection.id,
        key=location.key,
        version=ingestion.version_id,
        outcome=ingestion.outcome,
        error_code=ingestion.error_code,
        chunk_count=ingestion.chunk_count,
        embedded_count=ingestion.embedded_count,
        started_at=ingestion.started_at,
    )
    # Last, because every ingest of the collection waits for this row until the commit.
    [(average_length,)] = transaction.rows("next_generation", collection=collection.id)
    if average_length != collection.average_length and ingestion.chunk_count:
        raise WeighedAnewError


def insert(
    transaction: Transaction,
    location: Location,
    collection: Collection,
    space: EmbeddingSpace,
    chunks: Sequence[IndexedChunk],
) -> None:
    place = {"collection": collection.id, "document": location.document_id}
    weighed = {"average_length": collection.average_length}
    transaction.run_many("insert_chunk", [{**place, **weighed, **_chunk_row(chunk)} for chunk in chunks])
    transaction.run_many(
        "insert_embedding",
        [
            {
                **place,
                "space": collection.space_id,
                "chunk": chunk.id,
                "dimensions": space.dimensions,
                "embedding": HalfVector(chunk.embedding.tolist()),
            }
            for chunk in chunks
        ],
    )


def _chunk_row(indexed: IndexedChunk) -> dict[str, object]:
    chunk = indexed.chunk
    return {
        "id": indexed.id,
        "position": chunk.position,
        "page": chunk.page,
        "heading": chunk.heading,
        "content": chunk.content,
        "content_hash": chunk.content_hash,
        "tokens": chunk.tokens,
        "lexical": sparse(indexed.lexical),
        "lexemes": indexed.lexemes,
        "lexeme_count": indexed.lexeme_count,
    }
