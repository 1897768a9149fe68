"""Which collections and documents there are, and in what state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag.errors import ConflictError, NotFoundError
from rag.store.collections import create_collection, existing_collection, only_collection
from rag.store.database import Database, Transaction
from rag.types import Attempt, CollectionSummary, Document, DocumentQuery, EmbeddingSpace, Scope

if TYPE_CHECKING:
    import uuid


@dataclass(frozen=True, slots=True)
class Catalog:
    """Reads (and makes collections) as the role rag_query."""

    database: Database
    space: EmbeddingSpace

    def documents(self, scope: Scope, query: DocumentQuery) -> list[Document]:
        """Return a page of documents, ordered by collection and key, after the one that the query names."""

        def work(transaction: Transaction) -> list[Document]:
            rows = transaction.rows(
                "documents",
                collection=query.collection,
                status=query.status,
                key=query.key,
                prefix=query.prefix,
                after_collection=query.after[0] if query.after else None,
                after_key=query.after[1] if query.after else None,
                limit=query.limit,
            )
            return [Document(*row) for row in rows]

        return self.database.read(scope, work)

    def document(self, scope: Scope, document_id: uuid.UUID) -> Document:
        """Return one document; NotFoundError for an absent and for a foreign one alike."""
        return self.database.read(scope, lambda transaction: _document(transaction, document_id))

    def retry(self, scope: Scope, document_id: uuid.UUID, send: Callable[[Document], None]) -> None:
        """Have a document that failed ingested again, whatever it failed for: `send` tells ingest of it.

        It is told before the commit: a document that is not told of stays failed, and who is told waits for the row.
        NotFoundError as `document`; ConflictError when the document has not failed.
        """

        def work(transaction: Transaction) -> None:
            document = _document(transaction, document_id)
            [(failed,)] = transaction.rows("retry_document", document=document_id)
            if not failed:
                msg = f"the document is {document.status}: only one that has failed can be tried again"
                raise ConflictError(msg)
            send(document)

        self.database.write(scope, work)

    def attempts(self, scope: Scope, document_id: uuid.UUID, *, most: int) -> list[Attempt]:
        """Return what was done for a document, the newest first; nothing when there is no such document of theirs."""
        rows = self.database.read(
            scope,
            lambda transaction: transaction.rows("ingestions_of_document", document=document_id, most=most),
        )
        return [Attempt(*row) for row in rows]

    def collections(self, scope: Scope) -> list[CollectionSummary]:
        rows = self.database.read(scope, lambda transaction: transaction.rows("list_collections", name=None))
        return [CollectionSummary(*row) for row in rows]

    def collection(self, scope: Scope, name: str) -> CollectionSummary:
        """Return one collection; NotFoundError when there is none of that name."""
        rows = self.database.read(scope, lambda transaction: transaction.rows("list_collections", name=name))
        if not rows:
            msg = f"there is no collection {name!r}"
            raise NotFoundError(msg)
        return CollectionSummary(*rows[0])

    def require_collection(self, scope: Scope, name: str, language: str) -> None:
        """Make the collection where there is none of that name, in that language.

        One that is there is not summed up, nor written to: that took an upload five round trips instead of one, and
        the longer the more documents were waiting.
        """
        if self.database.read(scope, lambda transaction: only_collection(transaction, self.space, name)) is None:
            self.create_collection(scope, name, language)

    def create_collection(self, scope: Scope, name: str, language: str) -> tuple[CollectionSummary, bool]:
        """Return the collection of that name, and whether it is new; its language is the one it was made with."""

        def work(transaction: Transaction) -> tuple[CollectionSummary, bool]:
            new = create_collection(transaction, self.space, name, language)
            existing_collection(transaction, self.space, name)  # of this deployment's model, or it says so
            [row] = transaction.rows("list_collections", name=name)
            return CollectionSummary(*row), new

        return self.database.write(scope, work)


def _document(transaction: Transaction, document_id: uuid.UUID) -> Document:
    rows = transaction.rows("document", document=document_id)
    if not rows:
        msg = f"there is no document {document_id}"
        raise NotFoundError(msg)
    return Document(*rows[0])
