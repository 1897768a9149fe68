"""In how many chunks each lexeme of a collection stands: blocks of lexemes, to which is added what ingests changed."""

from __future__ import annotations

from dataclasses import dataclass

from rag.deadline import Deadline
from rag.store.database import Database, Transaction
from rag.types import Scope

# What is added up in one transaction: all there is but after large documents, whose vocabulary has no bound.
ROWS_AT_ONCE = 200
# Two rows of so many fit into a page: one, and its next version.
LEXEMES_PER_BLOCK = 450
# Where no later ingest adds up what the last ones appended: a question goes on to look into so many documents' rows.
LEFT_ROWS = 4
# No collection is begun with less time than this left.
LEAST_SECONDS = 10.0


def add_up(database: Database, scope: Scope, collection: int) -> None:
    """Make one row of those that were appended, which changes no sum; nothing is done where another one is at it."""

    def some(transaction: Transaction) -> bool:
        """Whether there are likely more."""
        [(alone, _)] = transaction.first_rows("lock_roll_up", collection=collection)
        if not alone:
            return False
        [(taken,)] = transaction.rows(
            "add_up_lexemes", collection=collection, most=ROWS_AT_ONCE, lexemes_per_block=LEXEMES_PER_BLOCK
        )
        transaction.last_rows("roll_up_chunks", collection=collection)
        return bool(taken == ROWS_AT_ONCE)

    while database.write(scope, some):
        pass


@dataclass(frozen=True, slots=True)
class StatisticsMaintenance:
    """Works as rag_owner, beside searches and ingests."""

    database: Database

    def run(self, deadline: Deadline) -> int:
        """Add up what the last ingests of collections have left, and return of how many collections.

        What the deadline leaves undone is done by the next run. UnavailableError when the database does not answer.
        """
        done = 0
        for tenant, collection in self.database.query("statistics_left", most=LEFT_ROWS):
            if deadline.remaining() < LEAST_SECONDS:
                break
            add_up(self.database, Scope(tenant), collection)
            done += 1
        return done
