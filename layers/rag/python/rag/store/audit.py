"""The audit log: rows that are added by whoever acts, read by administrators of the tenant, and dropped by age."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag.auditing import AuditQuery, Entry, Record, Shown
from rag.store.binary import UUID, column, texts
from rag.types import Scope

if TYPE_CHECKING:
    from rag.deadline import Deadline
    from rag.store.database import Database, Transaction

# Rows of one deletion, with their documents: a second at most.
ROWS_AT_ONCE = 5_000
# Of one deletion, and the end of the run.
RESERVE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class AuditStore:
    """Adds and reads as the role rag_query, adds as rag_admin; neither can change a row or delete one."""

    database: Database

    def write(self, entry: Entry, *, hurried: bool = False, settling: Mapping[str, Any] | None = None) -> bool | None:
        """Add a row, and settle (`UsageStore.settling`), in one round trip; a `hurried` one does not wait for the disk.

        Return what was told of the caller's budgets (`UsageStore.settled`): None where nothing was settled.
        UnavailableError when the database does not take it.
        """
        row: dict[str, Any] = {
            **_columns(entry),
            "hurried": hurried,
            "documents": column(UUID, [document.bytes for document in entry.documents]),
            "places": texts("{" + ",".join(map(str, sorted(places))) + "}" for places in entry.documents.values()),
        }

        def work(transaction: Transaction) -> bool | None:
            if settling is None:
                transaction.run("write_audit", **row)
                return None
            [(unlimited,)] = transaction.rows("write_audit_and_settle", **row, **settling)
            told: bool | None = unlimited
            return told

        return self.database.by_statement(Scope(entry.tenant_id), work)

    def write_administration(self, entry: Entry) -> None:
        """Add a row of what an administrator did; it names no documents."""
        self.database.write(
            Scope(entry.tenant_id), lambda transaction: transaction.run("write_administration", **_columns(entry))
        )

    def page(self, scope: Scope, query: AuditQuery) -> list[Record]:
        """Return the latest rows that fit, after the one that the query names."""
        before, before_id = query.before or (None, None)
        wanted: dict[str, Any] = {
            "since": query.since,
            "until": query.until,
            "principal": query.principal,
            "action": query.action,
            "before": before,
            "before_id": before_id,
            "most": query.limit,
        }

        def work(transaction: Transaction) -> list[Record]:
            if query.document_id is None:
                rows = transaction.rows("audit", **wanted)
            else:
                rows = transaction.rows("audit_of_document", document=query.document_id, **wanted)
            return [Record(*[*row[:-1], list(map(_shown, row[-1]))]) for row in rows]

        return self.database.read(scope, work)


@dataclass(frozen=True, slots=True)
class AuditRetention:
    """Drops what is old as the role rag_owner, by the one function that may."""

    database: Database
    days: int

    def run(self, deadline: Deadline) -> int:
        """Delete what is older than so many days, in pieces; return how many rows went until time ran out."""
        dropped = 0
        while deadline.remaining() > RESERVE_SECONDS:
            [(gone,)] = self.database.query("drop_old_audit", days=self.days, most=ROWS_AT_ONCE)
            dropped += gone
            if gone < ROWS_AT_ONCE:
                break
        return dropped


def _shown(named: tuple[str, str | None, list[int]]) -> Shown:
    document, version, positions = named
    return Shown(uuid.UUID(document), version, positions)


def _columns(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "principal": entry.principal,
        "role": entry.role,
        "action": entry.action,
        "outcome": entry.outcome,
        "request_id": entry.request_id,
        "address": entry.address,
        "details": json.dumps(dict(entry.details)),
    }
