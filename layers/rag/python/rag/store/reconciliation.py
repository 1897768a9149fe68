"""What the index holds of every tenant, as far as it is compared with the bucket; no content of a document."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from rag.errors import FailureCode
from rag.types import Indexed, Location, Pass, Scope, Unsettled

if TYPE_CHECKING:
    from rag.store.database import Database, Transaction

# In one statement.
DOCUMENTS_AT_ONCE = 1000

STUCK: FailureCode = "STUCK"


@dataclass(frozen=True, slots=True)
class ReconciliationStore:
    """Works as the role rag_reconcile; what it writes of a document is that it waits no longer."""

    database: Database

    def claim(self, bucket: str, *, seconds: float, rest_seconds: float) -> Pass | None:
        """Return where the comparison stands, for this run alone and for so many seconds.

        None while another run has it, or until `rest_seconds` after the end of a pass.
        """
        rows = self.database.query("claim_reconciliation", bucket=bucket, seconds=seconds, rest=rest_seconds)
        return Pass(*rows[0]) if rows else None

    def save(self, bucket: str, done: Pass, *, going_on: bool, complete: bool = False) -> datetime:
        """Keep how far it has come, and let go of it unless this run is `going_on`; return the database's time."""
        [(now,)] = self.database.query(
            "save_reconciliation",
            bucket=bucket,
            after_key="" if complete else done.after_key,
            compared=done.compared,
            missing=done.missing,
            outdated=done.outdated,
            orphaned=done.orphaned,
            misdescribed=done.misdescribed,
            going_on=going_on,
            complete=complete,
        )
        at: datetime = now
        return at

    def tenants(self) -> list[uuid.UUID]:
        """Return every tenant in the order of the keys of its objects."""
        return [tenant_id for (tenant_id,) in self.database.query("tenant_ids")]

    def documents(self, tenant_id: uuid.UUID, *, after: str) -> Iterator[Indexed]:
        """What is held of a tenant, by object key in the order of the bucket, beginning after that key.

        First, those before it whose sidecars may come after it: their keys are beginnings of that one.
        """
        collections = self.database.query("collection_names", tenant=tenant_id)
        for number, name in sorted(collections, key=lambda row: f"{row[1]}/"):
            prefix = f"{tenant_id}/{name}/"
            if after.startswith(prefix):
                yield from self._of_collection(tenant_id, number, prefix, after.removeprefix(prefix))
            elif after < prefix:
                yield from self._of_collection(tenant_id, number, prefix, "")

    def document(self, location: Location) -> Indexed | None:
        rows = self.database.query("indexed_document", tenant=location.tenant_id, document=location.document_id)
        return Indexed(location.object_key, *rows[0][1:]) if rows else None

    def unsettled(
        self, *, quiet_seconds: float, longest_seconds: float, but: uuid.UUID, most: int, at: datetime | None
    ) -> list[Unsettled]:
        """Return documents that wait in vain, of every tenant `but` one; `at` is now, by default the database's."""
        rows = self.database.query(
            "unsettled_documents", quiet=quiet_seconds, longest=longest_seconds, but=but, most=most, at=at
        )
        return [
            Unsettled(Location(tenant_id, collection, key), number, version, stuck=stuck)
            for tenant_id, collection, key, number, version, stuck in rows
        ]

    def requeue(self, document: Unsettled, send: Callable[[], None], *, at: datetime | None) -> bool:
        """Ask for a document once more by `send`, before the commit: where it fails, the next sweep does."""

        def work(transaction: Transaction) -> bool:
            waiting = transaction.rows("requeue_document", document=document.location.document_id, at=at)
            if waiting:
                send()
            return bool(waiting)

        return self.database.write(Scope(document.location.tenant_id), work)

    def end(self, document: Unsettled, reason: str, *, at: datetime | None) -> bool:
        """Say that a document has failed because nobody brings it; False when somebody has begun with it meanwhile."""

        def work(transaction: Transaction) -> bool:
            rows = transaction.rows(
                "end_stuck_document",
                document=document.location.document_id,
                collection=document.collection_id,
                key=document.location.key,
                version=document.version_id,
                error_code=STUCK,
                error_message=reason,
                at=at,
            )
            return bool(rows)

        return self.database.write(Scope(document.location.tenant_id), work)

    def create_tenant(self, tenant_id: uuid.UUID, name: str) -> None:
        """Make the one tenant that this role may make; nothing happens when it is there."""
        self.database.write(Scope(tenant_id), lambda transaction: transaction.run("create_canary", name=name))

    def _of_collection(self, tenant_id: uuid.UUID, number: int, prefix: str, after: str) -> Iterator[Indexed]:
        if after:
            beginnings = [after[:length] for length in range(1, len(after) + 1)]
            for key, *state in self.database.query(
                "indexed_documents_of", tenant=tenant_id, collection=number, keys=beginnings
            ):
                yield Indexed(prefix + key, *state)
        while True:
            rows = self.database.query(
                "indexed_documents", tenant=tenant_id, collection=number, after=after, most=DOCUMENTS_AT_ONCE
            )
            for key, *state in rows:
                yield Indexed(prefix + key, *state)
            if len(rows) < DOCUMENTS_AT_ONCE:
                return
            after = rows[-1][0]
