"""The statements by which a document's rows are written, inside a transaction of its ingest."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pgvector import HalfVector, SparseVector
from pydantic_core import to_json

from rag import lexical
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

# So that a row stays in its page.
LEXEMES_PER_ROW = 900
# What is held in memory twice, and sent in one statement.
CHUNKS_AT_ONCE = 200


def vector(text: str) -> Vector:
    return array("f", HalfVector.from_text(text).to_list())


class WeighedAnewError(Exception):
    """The collection has got another average length since the chunks were weighed."""


def count(transaction: Transaction, location: Location, collection: Collection, chunks: Sequence[IndexedChunk]) -> int:
    """Put these chunks in the place of the document's own in the statistics; return how many more there are by it."""
    place: dict[str, Any] = {"document": location.document_id, "collection": collection.id}
    changes: Counter[int] = Counter()
    for chunk in chunks:
        changes.update(chunk.lexemes)
    changes.subtract(dict(transaction.rows("lexemes_of_document", document=location.document_id)))
    changed = sorted((lexeme, change) for lexeme, change in changes.items() if change)
    for start in range(0, len(changed), LEXEMES_PER_ROW):
        row = dict(changed[start : start + LEXEMES_PER_ROW])
        transaction.run("change_lexemes", collection=collection.id, changes=sparse(row))
    [(added,)] = transaction.rows(
        "count_chunks", **place, chunk_count=len(chunks), lexeme_count=sum(chunk.lexeme_count for chunk in chunks)
    )
    return int(added)


def add_up(transaction: Transaction, collection: Collection) -> None:
    """Add what has been appended to the sums, which changes none of them."""
    changes: Counter[int] = Counter()
    for (text,) in transaction.rows("take_lexeme_changes", collection=collection.id):
        stored = SparseVector.from_text(text)
        changes.update(dict(zip(stored.indices(), map(int, stored.values()), strict=True)))
    changed = sorted((index + 1, change) for index, change in changes.items() if change)
    lexemes, counts = (_array(map(str, column)) for column in zip(*changed, strict=True)) if changed else ("{}", "{}")
    transaction.run("add_lexemes", collection=collection.id, lexemes=lexemes, changes=counts)


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
    for start in range(0, len(chunks), CHUNKS_AT_ONCE):
        some = chunks[start : start + CHUNKS_AT_ONCE]
        ids = [chunk.id for chunk in some]
        transaction.run(
            "insert_chunks", **place, ids=ids, average_length=collection.average_length, **_chunk_columns(some)
        )
        transaction.run(
            "insert_embeddings",
            **place,
            ids=ids,
            space=collection.space_id,
            dimensions=space.dimensions,
            embeddings=vector_array(chunk.embedding for chunk in some),
        )


def vector_array(vectors: Iterable[Vector]) -> str:
    """PostgreSQL's array of texts, each a vector as pgvector reads it."""
    return _array(f'"{to_json(vector.tolist()).decode()}"' for vector in vectors)


def _chunk_columns(indexed: Sequence[IndexedChunk]) -> dict[str, Any]:
    chunks = [one.chunk for one in indexed]
    return {
        "positions": [chunk.position for chunk in chunks],
        "pages": [chunk.page for chunk in chunks],
        "headings": [chunk.heading for chunk in chunks],
        "contents": [chunk.content for chunk in chunks],
        "content_hashes": [chunk.content_hash for chunk in chunks],
        "tokens": [chunk.tokens for chunk in chunks],
        "lexicals": _array(f'"{_weights(one.lexical)}"' for one in indexed),
        "lexemes": _array(f'"{_array(map(str, one.lexemes))}"' for one in indexed),
        "lexeme_counts": [one.lexeme_count for one in indexed],
    }


def _weights(weights: Mapping[int, float]) -> str:
    """As pgvector reads a sparse vector; a chunk's lexemes have few weights, which are each written once."""
    written = {weight: repr(weight) for weight in set(weights.values())}
    pairs = ",".join(f"{lexeme}:{written[weight]}" for lexeme, weight in sorted(weights.items()))
    return f"{{{pairs}}}/{lexical.DIMENSIONS}"


def _array(items: Iterable[str]) -> str:
    """Written here, because psycopg looks at each item for what would have to be escaped, and there is nothing."""
    return f"{{{','.join(items)}}}"
