"""The average length that BM25 divides by follows the collection: its chunks are weighed anew where it has drifted."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from pgvector import SparseVector

from rag import lexical
from rag.deadline import Deadline
from rag.errors import UnavailableError
from rag.store.database import Database, Transaction
from rag.store.search import sparse
from rag.types import Scope

CHUNKS_AT_ONCE = 1_000
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

        What the deadline leaves undone is done by the next run, as is a collection that others keep locked.
        UnavailableError when one of them was, or the database does not answer, after the others.
        """
        weighed, failed = 0, None
        for row in self.database.query("collection_sizes"):
            try:
                weighed += self._reweigh(_Lengths(*row), deadline)
            except UnavailableError as error:
                failed = error
        if failed:
            raise failed
        return weighed

    def _reweigh(self, lengths: _Lengths, deadline: Deadline) -> int:
        average = lexical.average_length(
            lengths.average_length, lexeme_count=lengths.lexeme_count, chunk_count=lengths.chunk_count
        )
        scope, new = Scope(lengths.tenant_id), {"collection": lengths.collection_id, "average_length": average}
        if average != lengths.average_length:
            self.database.write(scope, lambda within: within.run("set_average_length", **new))
        elif not lengths.reweighing:
            return 0
        weighed = 0
        while deadline.remaining() > LEAST_SECONDS:
            some = self.database.write(scope, lambda within: _some(within, lengths.collection_id, average))
            if not some:
                self.database.write(scope, lambda within: within.run("end_reweighing", **new))
                break
            weighed += some
        return weighed


def _some(transaction: Transaction, collection: int, average: float) -> int:
    """Weigh some chunks and return how many; none when no other is left, or another run has set another average.

    Each statement sees what was committed before it: what is read under the locks is what holds.
    """
    transaction.rows("lock_reweighing", collection=collection)
    if transaction.rows("average_length", collection=collection) != [(average,)]:
        return 0
    found = transaction.rows(
        "chunks_weighed_otherwise", collection=collection, average_length=average, most=CHUNKS_AT_ONCE
    )
    transaction.run("lock_documents", documents=sorted({str(document) for _, document in found}))
    chunks = transaction.rows("chunks_to_weigh", chunks=[chunk for chunk, _ in found], average_length=average)
    rows: list[dict[str, object]] = [
        {
            "id": chunk,
            "lexical": sparse(lexical.reweigh(_weights(text), length, before, average)),
            "average_length": average,
        }
        for chunk, text, length, before in chunks
    ]
    transaction.run_many("weigh_chunk", rows)
    return len(found)


def _weights(text: str) -> dict[int, float]:
    stored = SparseVector.from_text(text)
    return {index + 1: weight for index, weight in zip(stored.indices(), stored.values(), strict=True)}
