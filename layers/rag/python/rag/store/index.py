"""What ingest writes: a document's state, and all its chunks at once."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pgvector import HalfVector

from rag.errors import FailureCode
from rag.store.collections import DEFAULT_LANGUAGE, create_collection, existing_collection, find_collection
from rag.store.database import Database, Transaction
from rag.store.search import sparse
from rag.types import (
    Collection,
    Description,
    DocumentContent,
    EmbeddingSpace,
    IndexedChunk,
    Ingestion,
    Location,
    ObjectVersion,
    Vector,
)

# Rows of statistics a collection may gather before they are added up.
ROLL_UP_AFTER = 64

# Of a document that is not itself to blame: a later delivery may still make it ready.
GIVEN_UP: FailureCode = "INTERNAL"


@dataclass(frozen=True, slots=True)
class IndexStore:
    """Writes as the role rag_ingest."""

    database: Database
    space: EmbeddingSpace

    def collection(self, location: Location, *, create: bool) -> Collection | None:
        """Return the collection of a document; made for its first document if so wished.

        NotFoundError when there is no such tenant to make it for.
        """

        def work(transaction: Transaction) -> Collection | None:
            found = find_collection(transaction, self.space, location.collection)
            if found is None and create:
                create_collection(transaction, self.space, location.collection, DEFAULT_LANGUAGE)
                found = existing_collection(transaction, self.space, location.collection)
            return found

        return self.database.write(location.tenant_id, work)

    def announce(self, location: Location, collection: Collection) -> None:
        """Make a document visible that waits for its turn."""
        self.database.write(
            location.tenant_id,
            lambda transaction: transaction.run(
                "announce", document=location.document_id, collection=collection.id, key=location.key
            ),
        )

    def begin(
        self, location: Location, collection: Collection, version: ObjectVersion, *, failure: str | None = None
    ) -> bool:
        """Mark the document as being processed, or as given up with this reason; chunks of the version before stay.

        False, and nothing changes, when this very version is ready, or failed for a reason of its own.
        """

        def work(transaction: Transaction) -> bool:
            rows = transaction.rows(
                "begin_document",
                document=location.document_id,
                collection=collection.id,
                key=location.key,
                status="failed" if failure else "processing",
                error_code=GIVEN_UP if failure else None,
                error_message=failure,
                version=version.version_id,
                size=version.size,
            )
            return bool(rows)

        return self.database.write(location.tenant_id, work)

    def known_embeddings(self, location: Location, collection: Collection) -> dict[bytes, Vector]:
        """Content hash → vector, of the version before and of an attempt that was cut short."""

        def work(transaction: Transaction) -> dict[bytes, Vector]:
            rows = transaction.rows("known_embeddings", document=location.document_id, space=collection.space_id)
            return {content_hash: _vector(text) for content_hash, text in rows}

        return self.database.read(location.tenant_id, work)

    def keep_embeddings(self, location: Location, collection: Collection, vectors: Mapping[bytes, Vector]) -> None:
        """Checkpoint vectors of a document that is not complete yet."""
        rows: list[dict[str, object]] = [
            {
                "document": location.document_id,
                "space": collection.space_id,
                "content_hash": content_hash,
                "embedding": HalfVector(vector.tolist()),
            }
            for content_hash, vector in vectors.items()
        ]
        self.database.write(location.tenant_id, lambda transaction: transaction.run_many("keep_embedding", rows))

    def replace(
        self,
        location: Location,
        collection: Collection,
        content: DocumentContent,
        ingestion: Ingestion,
        *,
        unchanged: Callable[[], bool],
        describe: Callable[[], Description] = Description,
    ) -> bool:
        """Put the document's chunks, or its failure, in the place of whatever was there, in one transaction.

        `unchanged` is asked under the document's lock whether the bucket still holds this version; False when it does
        not, and nothing is written then. `describe` reads the document's metadata, under the lock as well.
        """

        def work(transaction: Transaction) -> bool:
            transaction.run("lock_document", document=location.document_id)
            if not unchanged():
                return False
            description = describe()
            _count(transaction, location, collection, content.chunks)
            transaction.run("delete_chunks", document=location.document_id)
            _finish(transaction, location, collection, content, ingestion, description)
            _insert(transaction, location, collection, self.space, content.chunks)
            _record(transaction, location, collection, ingestion)
            return True

        return self._changed(location, collection, work)

    def describe(
        self,
        location: Location,
        collection: Collection,
        version: ObjectVersion,
        describe: Callable[[], Description],
    ) -> bool:
        """Replace the metadata of a document whose ingest has ended with this version; its chunks stay as they are.

        `describe` reads the metadata under the document's lock. False when nothing was to be changed, or the ingest of
        this version has not ended: it reads the metadata itself.
        """
        document = location.document_id

        def work(transaction: Transaction) -> bool:
            transaction.run("lock_document", document=document)
            if not transaction.rows("is_settled", document=document, version=version.version_id):
                return False
            described = transaction.rows("describe_document", document=document, **_metadata(describe()))
            if described:
                transaction.run("next_generation", collection=collection.id)
            return bool(described)

        return self.database.write(location.tenant_id, work)

    def forget(
        self, location: Location, collection: Collection, ingestion: Ingestion, *, unchanged: Callable[[], bool]
    ) -> bool:
        """Remove all that is held of a document; False when `unchanged` says that the bucket has it again."""

        def work(transaction: Transaction) -> bool:
            transaction.run("lock_document", document=location.document_id)
            if not unchanged():
                return False
            if transaction.rows("document_exists", document=location.document_id):
                _count(transaction, location, collection, ())
                transaction.run("delete_document", document=location.document_id)
                _record(transaction, location, collection, ingestion)
            return True

        return self._changed(location, collection, work)

    def _changed(self, location: Location, collection: Collection, work: Callable[[Transaction], bool]) -> bool:
        """Do the work; after the commit add up the statistics' rows when there are many, which changes no sum."""

        def counted(transaction: Transaction) -> tuple[bool, int]:
            done = work(transaction)
            return done, transaction.rows("unrolled_statistics", collection=collection.id)[0][0]

        done, waiting = self.database.write(location.tenant_id, counted)
        if waiting > ROLL_UP_AFTER:
            self.database.write(location.tenant_id, lambda transaction: _roll_up(transaction, collection))
        return done


def _roll_up(transaction: Transaction, collection: Collection) -> None:
    [(alone,)] = transaction.rows("lock_roll_up", collection=collection.id)
    if alone:
        transaction.run("roll_up_lexemes", collection=collection.id)
        transaction.run("roll_up_chunks", collection=collection.id)


def _vector(text: str) -> Vector:
    return array("f", HalfVector.from_text(text).to_list())


def _count(
    transaction: Transaction, location: Location, collection: Collection, chunks: Sequence[IndexedChunk]
) -> None:
    frequencies: dict[int, int] = {}
    for chunk in chunks:
        for lexeme in chunk.lexemes:
            frequencies[lexeme] = frequencies.get(lexeme, 0) + 1
    place = {"document": location.document_id, "collection": collection.id}
    transaction.run("count_lexemes", **place, lexemes=list(frequencies), frequencies=list(frequencies.values()))
    transaction.run(
        "count_chunks", **place, chunk_count=len(chunks), lexeme_count=sum(chunk.lexeme_count for chunk in chunks)
    )


def _finish(
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
        **_metadata(description),
    )


def _metadata(description: Description) -> dict[str, Any]:
    """No metadata, which leaves what there is, when it cannot be used."""
    return {
        "metadata": None if description.error else json.dumps(description.metadata),
        "metadata_error": description.error,
    }


def _record(transaction: Transaction, location: Location, collection: Collection, ingestion: Ingestion) -> None:
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
    transaction.run("next_generation", collection=collection.id)


def _insert(
    transaction: Transaction,
    location: Location,
    collection: Collection,
    space: EmbeddingSpace,
    chunks: Sequence[IndexedChunk],
) -> None:
    place = {"collection": collection.id, "document": location.document_id}
    transaction.run_many("insert_chunk", [{**place, **_chunk_row(chunk)} for chunk in chunks])
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
