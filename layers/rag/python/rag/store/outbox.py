"""What is to be told of documents: rows that a trigger writes in the transaction of what they tell."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass

from rag.store.database import Database
from rag.types import Notification, Scope, Waiting

# Between two attempts, however many failed.
LONGEST_SECONDS = 600


@dataclass(frozen=True, slots=True)
class OutboxStore:
    """Works as the role rag_ingest."""

    database: Database

    def waiting(self) -> list[Waiting]:
        """Return the tenants of whose documents something is to be told, the most urgent first."""
        return [Waiting(*row) for row in self.database.query("tenants_to_notify")]

    def claim(self, tenant_id: uuid.UUID, *, most: int, seconds: int) -> list[Notification]:
        """Take what is due, the oldest first; for so long nobody else is given it."""
        rows = self.database.write(
            Scope(tenant_id),
            lambda transaction: transaction.last_rows(
                "claim_notifications", most=most, claim_seconds=seconds, longest_seconds=LONGEST_SECONDS
            ),
        )
        return sorted((Notification(tenant_id, *row) for row in rows), key=lambda one: one.settled_at)

    def settle(self, tenant_id: uuid.UUID, *, told: Collection[uuid.UUID], on_bus: Collection[uuid.UUID]) -> None:
        """Forget what was `told` to all; what only the bus has is left for the webhook."""
        self.database.write(
            Scope(tenant_id),
            lambda transaction: transaction.last_rows("settle_notifications", told=list(told), on_bus=list(on_bus)),
        )
