"""What is kept of a tenant or a principal, as JSON, in an order that a page can go on in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import psycopg

from rag.errors import InvalidRequestError
from rag.types import JSON

if TYPE_CHECKING:
    from rag.store.database import Database, Row, Transaction
    from rag.types import Scope

Kind = Literal["collections", "documents", "conversations", "feedback", "usage", "audit", "erasures"]
# Those that say whose they are.
OF_PRINCIPALS: frozenset[Kind] = frozenset({"conversations", "feedback", "usage", "audit"})

_READ: dict[Kind, Callable[[Transaction, dict[str, Any]], list[Row]]] = {
    "collections": lambda transaction, wanted: transaction.rows("export_collections", **wanted),
    "documents": lambda transaction, wanted: transaction.rows("export_documents", **wanted),
    "conversations": lambda transaction, wanted: transaction.rows("export_conversations", **wanted),
    "feedback": lambda transaction, wanted: transaction.rows("export_feedback", **wanted),
    "usage": lambda transaction, wanted: transaction.rows("export_usage", **wanted),
    "audit": lambda transaction, wanted: transaction.rows("export_audit", **wanted),
    "erasures": lambda transaction, wanted: transaction.rows("export_erasures", **wanted),
}


@dataclass(frozen=True, slots=True)
class ExportStore:
    """Reads as the role rag_query."""

    database: Database

    def page(
        self, scope: Scope, kind: Kind, *, principal: str | None, after: str | None, most: int
    ) -> list[tuple[str, JSON]]:
        """Return records, each with its place in the order, behind the place `after`.

        InvalidRequestError for a place that is none.
        """
        wanted = {"principal": principal, "after": after, "most": most}
        try:
            return [
                (place, record)
                for place, record in self.database.read(scope, lambda transaction: _READ[kind](transaction, wanted))
            ]
        except psycopg.DataError as error:
            msg = "the cursor is not one that this API gave"
            raise InvalidRequestError(msg) from error
