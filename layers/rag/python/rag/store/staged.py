"""Chunks of a document too large to hold in memory: kept out of sight until they are whole, then seen all at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rag.deadline import Deadline
from rag.store import binary, writing
from rag.store.database import Transaction
from rag.store.index import IndexStore
from rag.types import (
    Collection,
    Description,
    DocumentContent,
    Growth,
    IndexedChunk,
    Ingestion,
    Location,
    ObjectVersion,
    Scope,
    Staged,
    Vector,
)

# For the commit, and to say what came of it.
MARGIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class StagingStore:
    """Writes as the role rag_ingest; what says False has done nothing, because another version is being staged."""

    index: IndexStore

    def find(self, location: Location, version: ObjectVersion) -> Staged | None:
        """Return how far this version has come, if it was begun."""
        rows = self.index.database.read(
            Scope(location.tenant_id),
            lambda within: within.last_rows(
                "pending_document", document=location.document_id, version=version.version_id
            ),
        )
        return Staged(*rows[0]) if rows else None

    def pages(self, location: Location, content_hash: bytes) -> dict[int, str]:
        """Page → text, of those that were recognised of this file."""
        rows = self.index.database.read(
            Scope(location.tenant_id),
            lambda within: within.last_rows(
                "recognised_pages", document=location.document_id, content_hash=content_hash
            ),
        )
        return dict(rows)

    def keep_page(self, location: Location, content_hash: bytes, page: int, content: str) -> None:
        """Keep what was recognised, nothing too, until the document is ready, failed or gone."""

        def work(transaction: Transaction) -> None:
            transaction.run(
                "keep_page", document=location.document_id, content_hash=content_hash, page=page, content=content
            )

        self.index.database.write(Scope(location.tenant_id), work)

    def begin(self, location: Location, version: ObjectVersion) -> None:
        """Start with nothing, whatever there was of this version or another one.

        Not at all where the document has gone or ended meanwhile, or another version has begun.
        """

        def work(transaction: Transaction) -> None:
            named = {"document": location.document_id, "version": version.version_id}
            if transaction.first_rows("lock_unsettled", **named):
                transaction.run("drop_pending", document=location.document_id)
                transaction.run("begin_pending", **named)

        self.index.database.write(Scope(location.tenant_id), work)

    def add(
        self, location: Location, collection: Collection, version: ObjectVersion, chunks: Sequence[IndexedChunk]
    ) -> bool:
        """Keep the next chunks, without their vectors."""

        def work(transaction: Transaction) -> None:
            for some in writing.parts(chunks, writing.CHUNKS_AT_ONCE):
                _, sparsevec = transaction.vector_types()
                transaction.run(
                    "stage_chunks",
                    document=location.document_id,
                    average_length=collection.average_length,
                    chunk_count=some[-1].chunk.position + 1,
                    contexts=binary.texts(one.chunk.context for one in some),
                    **writing.columns(some, sparsevec),
                )

        return self._while_staged(location, version, work)

    def complete(
        self, location: Location, collection: Collection, content: DocumentContent, *, deadline: Deadline
    ) -> bool:
        """Say that every chunk is there, and take over the vectors that the version before has of them."""

        def work(transaction: Transaction) -> None:
            _allow(transaction, deadline)
            transaction.run(
                "complete_pending",
                document=location.document_id,
                space=collection.space_id,
                content_hash=content.content_hash,
                media_type=content.media_type,
                title=content.title,
                warnings=list(content.warnings),
            )

        return self._while_staged(location, content.version, work)

    def unembedded(
        self, location: Location, collection: Collection, *, first: int, most: int
    ) -> list[tuple[int, bytes, str]]:
        """Return position, content hash and text of the next chunks from `first` on that have no vector."""
        rows = self.index.database.read(
            Scope(location.tenant_id),
            lambda within: within.last_rows(
                "unembedded_chunks",
                document=location.document_id,
                space=collection.space_id,
                first=first,
                most=most,
            ),
        )
        return [
            (position, content_hash, f"{context}\n{content}" if context else content)
            for position, content_hash, context, content in rows
        ]

    def keep(
        self,
        location: Location,
        collection: Collection,
        version: ObjectVersion,
        vectors: Mapping[bytes, Vector],
        *,
        embedded_through: int,
    ) -> bool:
        """Keep vectors, by which so many first chunks have theirs."""

        def work(transaction: Transaction) -> None:
            writing.keep_embeddings(transaction, location, collection, vectors)
            transaction.run(
                "count_embedded",
                document=location.document_id,
                embedded_through=embedded_through,
                embedded_count=len(vectors),
            )

        return self._while_staged(location, version, work)

    def publish(
        self,
        location: Location,
        collection: Collection,
        content: DocumentContent,
        ingestion: Ingestion,
        *,
        unchanged: Callable[[], bool],
        describe: Callable[[], Description],
        deadline: Deadline,
    ) -> Growth | None:
        """Put the staged chunks in the place of whatever was there, as `IndexStore.replace` does with chunks at hand.

        Rows are moved by the database. None when `unchanged` says that the
        bucket holds another version, or that is being staged.
        """
        document = location.document_id

        def work(transaction: Transaction) -> int | None:
            transaction.first_rows("lock_document", document=document)
            _allow(transaction, deadline)
            if not unchanged() or not _is_staged(transaction, location, content.version):
                return None
            description = describe()
            before = writing.Counts(*transaction.rows("count_chunks", document=document)[0])
            after = writing.Counts(*transaction.rows("count_pending_chunks", document=document)[0])
            transaction.run(
                "change_lexemes",
                document=document,
                collection=collection.id,
                lexemes_per_row=writing.LEXEMES_PER_ROW,
            )
            transaction.run("drop_chunks", document=document)
            writing.finish(transaction, location, collection, content, ingestion, description)
            transaction.run(
                "publish_chunks",
                document=document,
                collection=collection.id,
                space=collection.space_id,
                dimensions=self.index.space.dimensions,
            )
            transaction.run("reweigh_document", document=document, collection=collection.id)
            writing.record(
                transaction,
                location,
                collection,
                ingestion,
                content.version.modified_at,
                before=before,
                after=after,
                reweighed=True,
            )
            return after.chunk_count - before.chunk_count

        try:
            return self.index.changed(location, collection, work)
        except writing.OvertakenError:
            return None

    def _while_staged(self, location: Location, version: ObjectVersion, work: Callable[[Transaction], None]) -> bool:
        def guarded(transaction: Transaction) -> bool:
            staged = _is_staged(transaction, location, version)
            if staged:
                work(transaction)
            return staged

        return self.index.database.write(Scope(location.tenant_id), guarded)


def _is_staged(transaction: Transaction, location: Location, version: ObjectVersion) -> bool:
    return bool(transaction.first_rows("lock_pending", document=location.document_id, version=version.version_id))


def _allow(transaction: Transaction, deadline: Deadline) -> None:
    milliseconds = int(1000 * max(deadline.remaining() - MARGIN_SECONDS, 1))
    transaction.rows("allow_seconds", milliseconds=milliseconds)
