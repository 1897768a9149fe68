"""The statements by which a document's rows are written, inside a transaction of its ingest."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate, chain, islice
from typing import Any, TypeVar

from rag import permissions
from rag.store import binary
from rag.store.database import Row, Transaction
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

T = TypeVar("T")

# So that a row stays in its page.
LEXEMES_PER_ROW = 900
# What is held in memory twice, and sent in one statement.
CHUNKS_AT_ONCE = 200


class OvertakenError(Exception):
    """The collection has got another average length since the chunks were weighed, or the document was erased."""


@dataclass(slots=True)
class Counts:
    """How many chunks a document has, of how many lexemes, and in how many of them each lexeme stands."""

    chunk_count: int = 0
    lexeme_count: int = 0
    frequencies: Counter[int] = field(default_factory=Counter)

    def add(self, chunks: Sequence[IndexedChunk]) -> None:
        self.chunk_count += len(chunks)
        for chunk in chunks:
            self.lexeme_count += chunk.lexeme_count
            self.frequencies.update(chunk.lexemes)


def delete(transaction: Transaction, location: Location) -> Counts:
    """Remove the document's chunks and say what they counted."""
    return _counts(transaction.rows("delete_chunks", document=location.document_id))


def finish(
    transaction: Transaction,
    location: Location,
    collection: Collection,
    content: DocumentContent,
    ingestion: Ingestion,
    description: Description,
) -> Counts:
    """As `delete`, and the document says what it is now."""
    rows = transaction.rows(
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
        warnings=list(content.warnings),
        chunk_count=ingestion.chunk_count,
        error_code=ingestion.error_code,
        error_message=ingestion.error_message,
        **described(transaction, location, description, published=True),
    )
    return _counts(rows)


def _counts(rows: Sequence[Row]) -> Counts:
    [(_, chunk_count, lexeme_count), *frequencies] = rows
    return Counts(chunk_count, lexeme_count, Counter({lexeme: frequency for lexeme, frequency, _ in frequencies}))


def described(
    transaction: Transaction, location: Location, description: Description, *, published: bool
) -> dict[str, Any]:
    """No metadata, which leaves what there is, when it cannot be used; and who may see the document from now on."""
    if description.unread or description.author is not None:
        [(current,)] = transaction.rows("allowed_principals", document=location.document_id) or [(None,)]
        current = None if current is None else tuple(current)
        description = permissions.judged(description, current, published=published)
    return {
        "metadata": None if description.error else json.dumps(description.metadata),
        "metadata_error": description.error,
        "allowed_principals": None if description.allowed is None else list(description.allowed),
        "sidecar": description.sidecar,
    }


def insert(
    transaction: Transaction,
    location: Location,
    collection: Collection,
    space: EmbeddingSpace,
    chunks: Iterable[IndexedChunk],
) -> Counts:
    """Add the document's chunks, some at a time, and say what they count."""
    counts = Counts()
    given = {
        "collection": collection.id,
        "document": location.document_id,
        "average_length": collection.average_length,
        "space": collection.space_id,
        "dimensions": space.dimensions,
    }
    for some in parts(chunks, CHUNKS_AT_ONCE):
        vector, sparsevec = transaction.vector_types()
        embeddings = binary.column(vector, (binary.single_vector(one.embedding) for one in some))
        transaction.run("insert_chunks", **given, **columns(some, sparsevec), embeddings=embeddings)
        counts.add(some)
    return counts


def columns(indexed: Sequence[IndexedChunk], sparsevec: int) -> dict[str, binary.Binary]:
    """All but the vectors of chunks, as the statements that add rows take it."""
    chunks = [one.chunk for one in indexed]
    lasts = list(accumulate(len(one.lexemes) for one in indexed))
    weights = (binary.sparse_vector(one.lexemes, one.weights) for one in indexed)
    return {
        "ids": binary.column(binary.UUID, (one.id.bytes for one in indexed)),
        "positions": binary.integers(chunk.position for chunk in chunks),
        "pages": binary.optional_integers(chunk.page for chunk in chunks),
        "headings": binary.texts(chunk.heading for chunk in chunks),
        "contents": binary.texts(chunk.content for chunk in chunks),
        "content_hashes": binary.column(binary.BYTES, (one.content_hash for one in indexed)),
        "tokens": binary.integers(chunk.tokens for chunk in chunks),
        "lexicals": binary.column(sparsevec, weights),
        "lexemes": binary.integers(chain.from_iterable(one.lexemes for one in indexed)),
        "firsts": binary.integers([1, *(last + 1 for last in lasts[:-1])]),
        "lasts": binary.integers(lasts),
        "lexeme_counts": binary.integers(one.lexeme_count for one in indexed),
    }


def keep_embeddings(
    transaction: Transaction, location: Location, collection: Collection, vectors: Mapping[bytes, Vector]
) -> None:
    """Checkpoint vectors of a document that is not complete yet."""
    vector, _ = transaction.vector_types()
    transaction.run(
        "keep_embeddings",
        document=location.document_id,
        space=collection.space_id,
        content_hashes=binary.column(binary.BYTES, vectors),
        embeddings=binary.column(vector, map(binary.single_vector, vectors.values())),
    )


def record(
    transaction: Transaction,
    location: Location,
    collection: Collection,
    ingestion: Ingestion,
    modified_at: datetime | None,
    *,
    before: Counts,
    after: Counts,
    reweighed: bool = False,
) -> None:
    """What the document counts now takes the place of what it did before; nothing of its checkpoint is left.

    OvertakenError when the version that was `modified_at` then must not be indexed, or not with these weights, unless
    its chunks will be `reweighed`.
    """
    lexemes, counts, ends = _changes(before.frequencies, after.frequencies)
    # Last, because every ingest of the collection waits for its row until the commit.
    [(average_length, erased)] = transaction.rows(
        "record_ingestion",
        **attempt(location, collection, ingestion),
        lexemes=binary.integers(lexemes),
        counts=binary.integers(counts),
        begins=binary.integers([1, *(end + 1 for end in ends[:-1])][: len(ends)]),
        ends=binary.integers(ends),
        document_change=(after.chunk_count > 0) - (before.chunk_count > 0),
        chunk_change=after.chunk_count - before.chunk_count,
        lexeme_change=after.lexeme_count - before.lexeme_count,
        place=location.collection,
        modified_at=modified_at,
    )
    if erased or (average_length != collection.average_length and ingestion.chunk_count and not reweighed):
        raise OvertakenError


def attempt(location: Location, collection: Collection, ingestion: Ingestion) -> dict[str, Any]:
    """What `attempt_of_document` keeps."""
    effort = ingestion.effort
    return {
        "document": location.document_id,
        "collection": collection.id,
        "key": location.key,
        "version": ingestion.version_id,
        "outcome": ingestion.outcome,
        "error_code": ingestion.error_code,
        "error_message": ingestion.error_message,
        "chunk_count": ingestion.chunk_count,
        "embedded_count": ingestion.embedded_count,
        "started_at": ingestion.started_at,
        "fetch_ms": effort.milliseconds("fetch"),
        "parse_ms": effort.milliseconds("parse"),
        "embed_ms": effort.milliseconds("embed"),
        "model_calls": effort.model_calls,
        "tokens": effort.tokens,
        "cost_usd": effort.cost_usd,
    }


def _changes(before: Counter[int], after: Counter[int]) -> tuple[list[int], list[int], list[int]]:
    """The lexemes whose frequencies change, in their order; by how much; and where each row of them ends."""
    changes = after
    if before:
        changes = Counter(after)
        changes.subtract(before)
        changes = Counter({lexeme: change for lexeme, change in changes.items() if change})
    lexemes = sorted(changes)
    ends = [*range(LEXEMES_PER_ROW, len(lexemes), LEXEMES_PER_ROW), len(lexemes)] if lexemes else []
    return lexemes, list(map(changes.__getitem__, lexemes)), ends


def parts(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items, so many at a time."""
    left = iter(items)
    while some := list(islice(left, size)):
        yield some
