"""What ingest writes: a document's state, and all its chunks at once."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from rag.errors import FailureCode
from rag.store import binary, statistics, writing
from rag.store.collections import DEFAULT_LANGUAGE, create_collection, existing_collection, only_collection
from rag.store.database import Database, Transaction
from rag.types import (
    Begun,
    Collection,
    Delivery,
    Description,
    DocumentContent,
    EmbeddingSpace,
    Growth,
    Ingestion,
    Location,
    ObjectVersion,
    Principals,
    Scope,
    Vector,
)

# Rows of statistics a collection may gather before they are added up: a question looks into each.
ROLL_UP_ROWS = 64
ROLL_UP_BYTES = 1_000_000

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

        def made(transaction: Transaction) -> Collection:
            create_collection(transaction, self.space, location.collection, DEFAULT_LANGUAGE)
            return existing_collection(transaction, self.space, location.collection)

        found = self.database.read(
            Scope(location.tenant_id), lambda transaction: only_collection(transaction, self.space, location.collection)
        )
        return self.database.write(Scope(location.tenant_id), made) if found is None and create else found

    def announce(self, collection: Collection, locations: Sequence[Location]) -> None:
        """Make documents of a collection visible that wait for their turn."""
        self.database.write(
            Scope(locations[0].tenant_id),
            lambda transaction: transaction.last_rows(
                "announce",
                collection=collection.id,
                documents=[location.document_id for location in locations],
                keys=[location.key for location in locations],
            ),
        )

    def begin(
        self,
        location: Location,
        collection: Collection,
        version: ObjectVersion,
        delivery: Delivery,
        *,
        lease_seconds: float | None = None,
        failure: str | None = None,
        code: FailureCode = GIVEN_UP,
        allowed: Principals | None = (),
    ) -> Begun:
        """Mark the document as being processed, or as given up with this reason; chunks of the version before stay.

        `new` is one of which no version was begun before, so that none of its chunks can be known. Who is `allowed` may
        see a new one; of others that is said when they are described. Nothing changes when this very version is
        `settled` (ready, failed for a reason of its own, or erased), or when another run has it for so many seconds:
        `duplicate` of another message, `busy` with the same one.
        """

        def work(transaction: Transaction) -> Begun:
            [(begun,)] = transaction.last_rows(
                "begin_document",
                document=location.document_id,
                collection=collection.id,
                key=location.key,
                status="failed" if failure else "processing",
                error_code=code if failure else None,
                error_message=failure,
                version=version.version_id,
                size=version.size,
                allowed_principals=None if allowed is None else list(allowed),
                lease_seconds=lease_seconds,
                run=delivery.run,
                message=delivery.message_id,
                delivery=delivery.number,
                place=location.collection,
                modified_at=version.modified_at,
            )
            return cast("Begun", begun)

        return self.database.write(Scope(location.tenant_id), work)

    def leave(self, location: Location, collection: Collection, ingestion: Ingestion, delivery: Delivery) -> None:
        """Record an attempt that wrote nothing, and let go of the document."""
        self.database.write(
            Scope(location.tenant_id),
            lambda transaction: transaction.last_rows(
                "leave_document", run=delivery.run, **writing.attempt(location, collection, ingestion)
            ),
        )

    def known_embeddings(
        self, location: Location, collection: Collection, content_hashes: Sequence[bytes]
    ) -> dict[bytes, Vector]:
        """Content hash → vector, where the version before or an attempt that was cut short has it."""

        def work(transaction: Transaction) -> dict[bytes, Vector]:
            rows = transaction.last_rows(
                "known_embeddings",
                document=location.document_id,
                space=collection.space_id,
                content_hashes=binary.bytes_as_text(content_hashes),
            )
            return {content_hash: binary.vector(halves) for content_hash, halves in rows}

        return self.database.read(Scope(location.tenant_id), work)

    def keep_embeddings(self, location: Location, collection: Collection, vectors: Mapping[bytes, Vector]) -> None:
        """Checkpoint vectors of a document that is not complete yet."""

        def work(transaction: Transaction) -> None:
            writing.keep_embeddings(transaction, location, collection, vectors)

        self.database.write(Scope(location.tenant_id), work)

    def replace(
        self,
        location: Location,
        collection: Collection,
        content: DocumentContent,
        ingestion: Ingestion,
        *,
        unchanged: Callable[[], bool],
        describe: Callable[[], Description] = Description,
    ) -> Growth | None:
        """Put the document's chunks, or its failure, in the place of whatever was there, in one transaction.

        `unchanged` is asked under the document's lock whether the bucket still holds this version; None when it does
        not, or it was erased, or the chunks are weighed with an average length that is the collection's no more, and
        nothing is written then. `describe` reads what is said of the document, under the lock as well.
        """
        tried = False

        def work(transaction: Transaction) -> int | None:
            nonlocal tried
            transaction.first_rows("lock_document", document=location.document_id)
            if not unchanged():
                return None
            # When the connection was lost nobody knows whether the first try was committed, or who came in between.
            version = content.version.version_id
            if tried and transaction.rows("has_ended", document=location.document_id, version=version):
                return 0
            tried = True
            description = describe()
            before = writing.finish(transaction, location, collection, content, ingestion, description)
            after = writing.insert(transaction, location, collection, self.space, content.chunks)
            writing.record(
                transaction, location, collection, ingestion, content.version.modified_at, before=before, after=after
            )
            return after.chunk_count - before.chunk_count

        try:
            return self.changed(location, collection, work)
        except writing.OvertakenError:
            return None

    def describe(
        self,
        location: Location,
        collection: Collection,
        version: ObjectVersion,
        describe: Callable[[], Description],
    ) -> bool:
        """Replace metadata and permissions of a document whose ingest has ended with this version; its chunks stay.

        `describe` reads them under the document's lock. False when nothing was to be changed. Where the ingest of this
        version has not ended it reads them itself, and here the document is only limited to whom the sidecar names.
        """
        document = location.document_id

        def work(transaction: Transaction) -> bool:
            transaction.first_rows("lock_document", document=document)
            settled = transaction.rows("is_settled", document=document, version=version.version_id)
            description = describe()
            now = writing.described(transaction, location, description, published=False)
            if settled:
                described = transaction.rows("describe_document", document=document, **now)
            elif description.beside is not None:
                described = transaction.rows(
                    "permit_document", document=document, allowed_principals=now["allowed_principals"]
                )
            else:
                return False
            if described:
                transaction.run("next_generation", collection=collection.id)
            return bool(described)

        return self.database.write(Scope(location.tenant_id), work)

    def forget(
        self, location: Location, collection: Collection, ingestion: Ingestion, *, unchanged: Callable[[], bool]
    ) -> bool:
        """Remove all that is held of a document; False when `unchanged` says that the bucket has it again."""

        def work(transaction: Transaction) -> int | None:
            transaction.first_rows("lock_document", document=location.document_id)
            if not unchanged():
                return None
            if not transaction.rows("document_exists", document=location.document_id):
                return 0
            before = writing.delete(transaction, location)
            transaction.run("delete_document", document=location.document_id)
            writing.record(transaction, location, collection, ingestion, None, before=before, after=writing.Counts())
            return -before.chunk_count

        return self.changed(location, collection, work) is not None

    def under_way(
        self, tenant_id: uuid.UUID, documents: Sequence[uuid.UUID], messages: Sequence[str]
    ) -> dict[uuid.UUID, int]:
        """Of these documents those that one of these messages began and did not end, and how often they were begun."""
        rows = self.database.read(
            Scope(tenant_id),
            lambda transaction: transaction.last_rows("documents_under_way", documents=documents, messages=messages),
        )
        return dict(rows)

    def bury(
        self, location: Location, collection: Collection, version: ObjectVersion, *, message_id: str, reason: str
    ) -> bool:
        """Record that the message that had the document is among the dead letters; whether that was news.

        Nothing changes where the document is ready, has failed, is being worked on, or another message had it last.
        """
        rows = self.database.write(
            Scope(location.tenant_id),
            lambda transaction: transaction.last_rows(
                "bury_document",
                document=location.document_id,
                collection=collection.id,
                key=location.key,
                version=version.version_id,
                size=version.size,
                error_code=GIVEN_UP,
                message=message_id,
                reason=reason,
            ),
        )
        return bool(rows)

    def changed(
        self, location: Location, collection: Collection, work: Callable[[Transaction], int | None]
    ) -> Growth | None:
        """Do the work, which tells how many chunks it added if it did anything; return how the collection grew by it.

        After the commit the statistics' rows are added up when there are many, which changes no sum.
        """

        def counted(transaction: Transaction) -> tuple[int | None, bool, int]:
            added = work(transaction)
            [(rows, size, chunk_count)] = transaction.last_rows("unrolled_statistics", collection=collection.id)
            return added, rows > ROLL_UP_ROWS or size > ROLL_UP_BYTES, chunk_count

        added, many, chunk_count = self.database.write(Scope(location.tenant_id), counted)
        if many:
            statistics.add_up(self.database, Scope(location.tenant_id), collection.id)
        return None if added is None else Growth(chunk_count - added, chunk_count)
