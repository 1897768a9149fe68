"""How much of the nearest the indexes of vectors find, and a new one in the place of one that finds less than it did.

An index is asked for the nearest of some vectors of its collection, and so is the collection itself, read from its
beginning to its end. What it found when it was new stands, with the day when it was last asked, in its comment: there
it goes when the index goes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

import psycopg
from psycopg import sql

from rag.deadline import Deadline
from rag.store.database import Row
from rag.store.maintenance import COMMENT, LEAST_SECONDS, NEAREST, NEW, VECTORS, IndexMaintenance, Size, build, sizes_of
from rag.store.search import EF_SEARCH

# Of so many vectors the nearest ten are asked for, once a day; of fewer, where to read all of a collection takes long.
SAMPLES, LEAST_SAMPLES, DEPTH = 40, 10, 10
# What one collection may take of a run.
MEASURED_SECONDS = 60.0
# Two samples of an index that is as it was differ by less: what it found when new, and what it finds now.
TOLERATED = 0.05
# What one whose beginnings nobody knows should have found.
EXPECTED = 0.95

_BEGIN = """
    select set_config('app.tenant', %(tenant)s, true), set_config('statement_timeout', %(timeout)s, true),
      set_config('hnsw.ef_search', %(width)s, true), set_config('hnsw.iterative_scan', 'off', true)
"""
# Not by TABLESAMPLE: of all tenants' rows it would find hardly one of a small collection's.
_SAMPLE = """
    select embedding::text from embeddings
    where tenant_id = %(tenant)s and collection_id = %(collection)s and space_id = %(space)s
    order by random() limit %(most)s
"""
# As many as are as near as the last of the exact list: whoever is as near as another is as good.
_FOUND = sql.SQL("""
    with asked as materialized (select %(vector)s::halfvec as vector),
    exact as materialized (
      select count(*) as wanted, max(distance) as farthest from (
        select embedding <=> (select vector from asked) as distance from embeddings
        where tenant_id = %(tenant)s and collection_id = %(collection)s and space_id = %(space)s
        order by distance limit %(most)s
      ) as nearest
    )
    select (select count(*) from unnest(distances) as distance where distance <= farthest), wanted
    from exact, {nearest}(%(tenant)s, (select vector from asked), %(most)s)
""")
_COMMENTS = """
    select c.relname::text, coalesce(obj_description(c.oid, 'pg_class'), ''), current_date
    from pg_index i join pg_class c on c.oid = i.indexrelid
    where i.indisvalid and c.relnamespace = 'public'::regnamespace and c.relname ~ %(pattern)s
      and to_regproc(replace(c.relname, %(index)s, %(function)s)) is not null
"""
_UNKNOWN = "unknown"
_SAID = re.compile(rf"recall ([01]\.\d+|{_UNKNOWN}) when new, (?:[01]\.\d+|{_UNKNOWN}) on (\d{{4}}-\d\d-\d\d)")


class Recall(NamedTuple):
    """What an index found of the nearest, as a share; before it was rebuilt, where it was."""

    name: str
    found: float
    when_new: float | None
    rebuilt: bool = False
    after: float | None = None


class _Known(NamedTuple):
    """What the comment of an index says: what it found when new, None where it says nothing, and when it was asked."""

    when_new: float | None
    asked: date | None

    @classmethod
    def read(cls, comment: str) -> _Known:
        if said := _SAID.fullmatch(comment):
            return cls(None if said[1] == _UNKNOWN else float(said[1]), date.fromisoformat(said[2]))
        return cls(None if comment == NEW else EXPECTED, None)


@dataclass(frozen=True, slots=True)
class RecallMaintenance:
    """Works over the connection, and under the lock, of the maintenance of indexes."""

    indexes: IndexMaintenance

    def run(self, deadline: Deadline) -> list[Recall]:
        """Ask each index that was not asked today, and rebuild one of those that find clearly less than when new.

        Any other is asked, and rebuilt, by the next run. Nothing while another run is at it; UnavailableError when the
        database does not answer.
        """
        with self.indexes.alone() as connection:
            return self._asked(connection, deadline) if connection else []

    def _asked(self, connection: psycopg.Connection[Row], deadline: Deadline) -> list[Recall]:
        sizes = {size.vectors: size for size in sizes_of(connection)}
        rows = connection.execute(
            _COMMENTS, {"pattern": f"^{VECTORS}[0-9]+$", "index": VECTORS, "function": NEAREST}
        ).fetchall()
        known = [(sizes[name], _Known.read(comment), today) for name, comment, today in rows if name in sizes]
        answers: list[Recall] = []
        rebuilt = False
        for size, before, today in sorted(known, key=lambda row: row[1].asked or date.min):
            if before.asked == today or deadline.remaining() < LEAST_SECONDS:
                continue
            found = measure(connection, size, deadline)
            when_new = found if before.when_new is None else before.when_new
            if found is None or when_new is None or found >= when_new - TOLERATED:
                _note(connection, size, when_new, found, today)
            if found is None:
                continue
            answer = Recall(size.vectors, found, before.when_new)
            if found < (when_new or 0) - TOLERATED and not rebuilt and deadline.remaining() > LEAST_SECONDS:
                rebuilt = True
                answer = answer._replace(rebuilt=True, after=self._rebuild(connection, size, deadline, today))
            answers.append(answer)
        return answers

    def _rebuild(
        self, connection: psycopg.Connection[Row], size: Size, deadline: Deadline, today: date
    ) -> float | None:
        build(connection, size.make_vectors(size.next))
        list(self.indexes.changes(connection, deadline))
        found = measure(connection, size, deadline)
        if found is not None:
            _note(connection, size, found, found, today)
        return found


def _note(
    connection: psycopg.Connection[Row], size: Size, when_new: float | None, now: float | None, today: date
) -> None:
    text = f"recall {_written(when_new)} when new, {_written(now)} on {today.isoformat()}"
    connection.execute(COMMENT.format(name=sql.Identifier(size.vectors), text=sql.Literal(text)))


def _written(share: float | None) -> str:
    return _UNKNOWN if share is None else f"{share:.4f}"


def measure(connection: psycopg.Connection[Row], size: Size, deadline: Deadline) -> float | None:
    """Return what share of the nearest the index finds; None where there was no time to ask often enough."""
    until = Deadline.after(min(MEASURED_SECONDS, deadline.remaining()))
    place = {"tenant": size.tenant_id, "collection": size.collection_id, "space": size.space_id}
    ask = _FOUND.format(nearest=sql.Identifier(size.function))
    found = wanted = asked = 0
    try:
        for (vector,) in _rows(connection, until, sql.SQL(_SAMPLE), place | {"most": SAMPLES}):
            [(some, of)] = _rows(connection, until, ask, place | {"most": DEPTH, "vector": vector})
            found, wanted, asked = found + some, wanted + of, asked + 1
    except psycopg.errors.QueryCanceled:
        pass  # what was asked until then counts
    return found / wanted if asked >= LEAST_SAMPLES else None


def _rows(
    connection: psycopg.Connection[Row], until: Deadline, query: sql.SQL | sql.Composed, parameters: dict[str, object]
) -> list[Row]:
    """What the query returns to this tenant, to a search as wide as those of the dense leg are at least."""
    milliseconds = max(int(1000 * until.remaining()), 1)
    settings = {"tenant": str(parameters["tenant"]), "timeout": str(milliseconds), "width": str(EF_SEARCH)}
    with connection.transaction():
        connection.execute(_BEGIN, settings)
        return connection.execute(query, parameters).fetchall()
