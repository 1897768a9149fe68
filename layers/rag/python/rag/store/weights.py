"""The average length that BM25 divides by follows the collection: its chunks are weighed anew where it has drifted."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from pgvector import SparseVector

from rag import lexical
from rag.deadline import Deadline
from rag.store.database import Database, Transaction
from rag.store.search import sparse

DOCUMENTS_AT_ONCE = 50
# No transaction is begun with less time than this left.
LEAST_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Lengths:
    """A row of `collection_sizes`."""

    tenant_id: uuid.UUID
    collection_id: int
    average_length: float
    reweighing: bool
    chunk_count: int
    lexeme_count: int


@dataclass(frozen=True, slots=True)
class WeightMaintenance:
    """Works as rag_owner, in transactions of one tenant each; searches go on, and see old weights beside new ones."""

    database: Database

    def run(self, deadline: Deadline) -> int:
        """Weigh anew what is to be weighed, and return how many chunks that were.

        What the deadline leaves undone is done by the next run. UnavailableError when the database does not answer.
        """
        return sum(self._reweigh(_Lengths(*row), deadline) for row in self.database.query("collection_sizes"))

    def _reweigh(self, lengths: _Lengths, deadline: Deadline) -> int:
        average = lexical.average_length(
            lengths.average_length, lexeme_count=lengths.lexeme_count, chunk_count=lengths.chunk_count
        )
        tenant, place = lengths.tenant_id, {"collection": lengths.collection_id}
        if average != lengths.average_length:
            self.database.write(
                tenant, lambda within: within.run("set_average_length", **place, average_length=average)
            )
        elif not lengths.reweighing:
            return 0
        weighed = 0
        while deadline.remaining() > LEAST_SECONDS:
            documents, chunks = self.database.write(
                tenant, lambda within: _some(within, lengths.collection_id, average)
            )
            weighed += chunks
            if not documents:
                self.database.write(tenant, lambda within: within.run("end_reweighing", **place))
                break
        return weighed


def _some(transaction: Transaction, collection: int, average: float) -> tuple[int, int]:
    """Weigh the chunks of some documents; how many of each there were."""
    found = transaction.rows(
        "documents_weighed_otherwise", collection=collection, average_length=average, most=DOCUMENTS_AT_ONCE
    )
    documents = [document for (document,) in found]
    transaction.run("lock_documents", documents=[str(document) for document in documents])
    chunks = transaction.rows("chunks_weighed_otherwise", documents=documents, average_length=average)
    rows: list[dict[str, object]] = [
        {
            "id": chunk,
            "lexical": sparse(lexical.reweigh(_weights(text), length, before, average)),
            "average_length": average,
        }
        for chunk, text, length, before in chunks
    ]
    transaction.run_many("weigh_chunk", rows)
    return len(documents), len(rows)


def _weights(text: str) -> dict[int, float]:
    stored = SparseVector.from_text(text)
    return {index + 1: weight for index, weight in zip(stored.indices(), stored.values(), strict=True)}
