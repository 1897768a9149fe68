"""What is to be erased, the rows of it, and the receipts that are left."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag.errors import NotFoundError
from rag.store import writing
from rag.store.database import Database, Transaction
from rag.types import Collection, Erasure, ErasureScope, ErasureWork, Ingestion, Location, Scope

if TYPE_CHECKING:
    from datetime import datetime

# Of one statement: ten seconds at most of deleting rows that refer to each other.
CHUNKS_AT_ONCE = 5_000
DOCUMENTS_AT_ONCE = 1_000
# Of one statement: conversations with all that was said in them; rows of the audit log, each with its documents.
ROWS_AT_ONCE = 500
AUDIT_ROWS_AT_ONCE = 5_000
# Receipts in one answer.
MOST_LISTED = 200
# Of one look for erasures that nobody is at work on.
MOST_UNFINISHED = 100


@dataclass(frozen=True, slots=True)
class ErasureRequests:
    """Asks for erasures as the role rag_query, of a whole tenant as rag_admin; reads receipts as either."""

    database: Database

    def request(
        self,
        scope: Scope,
        what: ErasureScope,
        requested_by: str,
        *,
        collection: str | None = None,
        location: Location | None = None,
        last_version: str | None = None,
        principal: str | None = None,
    ) -> Erasure:
        """Write down that this is to be erased, from when on nothing that is older is indexed; the same once only."""

        def work(transaction: Transaction) -> Erasure:
            [(erasure,)] = transaction.rows(
                "request_erasure",
                scope=what,
                collection=location.collection if location else collection,
                document=location.document_id if location else None,
                key=location.key if location else None,
                last_version=last_version,
                principal=principal,
                requested_by=requested_by,
            )
            [row] = transaction.rows("erasures", erasure=erasure, most=1)
            return Erasure(*row)

        return self.database.write(scope, work)

    def request_of_tenant(self, tenant_id: uuid.UUID, requested_by: str) -> Erasure:
        """As `request`, of all that a tenant has; its keys are refused from now on. NotFoundError without a tenant."""

        def revoke(transaction: Transaction) -> None:
            if not transaction.rows("tenant_exists"):
                msg = f"there is no tenant {tenant_id}"
                raise NotFoundError(msg)
            transaction.run("revoke_keys")

        self.database.write(Scope(tenant_id), revoke)
        return self.request(Scope(tenant_id), "tenant", requested_by)

    def receipt(self, scope: Scope, erasure_id: uuid.UUID) -> Erasure:
        """Return one; NotFoundError for an absent and for a foreign one alike."""
        found = self._read(scope, erasure_id, most=1)
        if not found:
            msg = f"there is no erasure {erasure_id}"
            raise NotFoundError(msg)
        return found[0]

    def receipts(self, scope: Scope) -> list[Erasure]:
        """Return the latest, `MOST_LISTED` at most."""
        return self._read(scope, None, most=MOST_LISTED)

    def _read(self, scope: Scope, erasure_id: uuid.UUID | None, *, most: int) -> list[Erasure]:
        rows = self.database.read(
            scope, lambda transaction: transaction.rows("erasures", erasure=erasure_id, most=most)
        )
        return [Erasure(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class ErasureStore:
    """Removes rows as the role rag_erase; what each transaction removed is counted in it."""

    database: Database

    def unfinished(self) -> list[tuple[uuid.UUID, uuid.UUID]]:
        """Tenant and id of erasures that are not done, of all tenants, the oldest first."""
        return [
            (tenant, erasure) for tenant, erasure in self.database.query("unfinished_erasures", most=MOST_UNFINISHED)
        ]

    def work(self, tenant_id: uuid.UUID, erasure_id: uuid.UUID) -> ErasureWork | None:
        """What there is to do; None when it is done."""
        rows = self.database.read(
            Scope(tenant_id), lambda transaction: transaction.rows("work_of_erasure", erasure=erasure_id)
        )
        return ErasureWork(tenant_id, erasure_id, *rows[0]) if rows else None

    def erase_document(self, work: ErasureWork, location: Location, started_at: datetime) -> None:
        """Remove the document, its chunks and its story; the statistics of its collection follow."""

        def erase(transaction: Transaction) -> None:
            transaction.first_rows("lock_document", document=location.document_id)
            found = transaction.rows("collection", name=location.collection)
            if found and transaction.rows("document_exists", document=location.document_id):
                *columns, _ = found[0]
                before = writing.delete(transaction, location)
                transaction.run("delete_document", document=location.document_id)
                forgotten = Ingestion("forgotten", started_at)
                writing.record(
                    transaction, location, Collection(*columns), forgotten, None, before=before, after=writing.Counts()
                )
                _count(transaction, work, {"documents": 1, "chunks": before.chunk_count})
            # With what was just written: what is erased is not named afterwards.
            transaction.run("erase_story", document=location.document_id)

        self.database.write(Scope(work.tenant_id), erase)

    def collections(self, work: ErasureWork) -> list[int]:
        """The collections that are to go; a collection's erasure is of one."""
        rows = self.database.read(
            Scope(work.tenant_id), lambda transaction: transaction.rows("erased_collections", name=work.collection)
        )
        return [collection for (collection,) in rows]

    def erase_documents(self, work: ErasureWork, collection: int) -> bool:
        """Remove some documents of a collection that goes as a whole; False when there was none left."""

        def erase(transaction: Transaction) -> bool:
            [(documents, chunks)] = transaction.rows(
                "erase_documents", collection=collection, most=DOCUMENTS_AT_ONCE, most_chunks=CHUNKS_AT_ONCE
            )
            _count(transaction, work, {"documents": documents, "chunks": chunks})
            return bool(documents)

        return self.database.write(Scope(work.tenant_id), erase)

    def erase_collection(self, work: ErasureWork, collection: int) -> None:
        """Remove the collection, its statistics, and what an ingest under way has put into it until now."""

        def erase(transaction: Transaction) -> None:
            transaction.run("erase_collection", collection=collection)
            _count(transaction, work, {"collections": 1})

        self.database.write(Scope(work.tenant_id), erase)

    def erase_principal(self, work: ErasureWork) -> bool:
        """Remove some of what a principal left, in conversations and elsewhere; False when there was nothing left."""

        def erase(transaction: Transaction) -> bool:
            left_by: dict[str, Any] = {"principal": work.principal, "most": ROWS_AT_ONCE}
            [(conversations,)] = transaction.rows("erase_conversations", **left_by)
            [(feedback,)] = transaction.rows("erase_feedback", **left_by)
            [(kept_answers,)] = transaction.rows("erase_kept_answers", **left_by)
            removed = {"conversations": conversations, "feedback": feedback, "kept_answers": kept_answers}
            _count(transaction, work, removed)
            return any(removed.values())

        return self.database.write(Scope(work.tenant_id), erase)

    def erase_audit(self, work: ErasureWork) -> bool:
        """Remove some of the audit log of a tenant that goes as a whole; False when there was nothing left."""

        def erase(transaction: Transaction) -> bool:
            [(rows,)] = transaction.rows("erase_audit", most=AUDIT_ROWS_AT_ONCE)
            _count(transaction, work, {"audit_rows": rows})
            return bool(rows)

        return self.database.write(Scope(work.tenant_id), erase)

    def erase_tenant(self, work: ErasureWork) -> None:
        """Remove the tenant, and everything that is its own but the receipts."""
        self.database.write(Scope(work.tenant_id), lambda transaction: transaction.run("erase_tenant"))

    def count(self, work: ErasureWork, removed: Mapping[str, int]) -> None:
        """Add to the receipt what was removed elsewhere."""
        self.database.write(Scope(work.tenant_id), lambda transaction: _count(transaction, work, removed))

    def finish(self, work: ErasureWork) -> None:
        """Close the receipt."""
        self.database.write(
            Scope(work.tenant_id), lambda transaction: transaction.run("finish_erasure", erasure=work.erasure_id)
        )


def _count(transaction: Transaction, work: ErasureWork, removed: Mapping[str, int]) -> None:
    if any(removed.values()):
        transaction.run("count_erased", erasure=work.erasure_id, removed=json.dumps(dict(removed)))
