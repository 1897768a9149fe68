"""Large collections get indexes of their own, small ones lose them: a collection is searched by the cheaper way.

Everything is done CONCURRENTLY, so that searches and ingests go on; until an index is valid, and once it is dropped,
the collection is searched exactly. Whoever dies while an index is built leaves it to the server, which finishes it or
leaves it invalid; the next run drops what is invalid and begins again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import psycopg
from psycopg import sql

from rag.deadline import Deadline
from rag.errors import UnavailableError
from rag.store.database import Row, log_in

VECTORS, LEXEMES = "embeddings_of_", "chunks_of_"
NEAREST = "nearest_of_"
# A collection that shrinks keeps its indexes for a while: at the threshold it would make and drop them in turn.
KEPT_SHARE = 0.5
# No index is begun with less time than this left; one that takes longer is finished by the server.
LEAST_SECONDS = 30.0

# Not among the statements of rag/sql, which all end with their transaction. The lock lasts as long as the server works
# for this session, even when nobody waits for the result any more.
_BEGIN = """
    select pg_try_advisory_lock(hashtextextended('maintenance', 0)),
      set_config('maintenance_work_mem', %(memory)s, false), set_config('statement_timeout', '0', false)
"""
_SIZES = """
    select c.collection_id, s.id, s.dimensions, c.chunk_count
    from collection_sizes() c join embedding_spaces s on s.id = c.space_id
"""
_OWN = """
    select c.relname::text, i.indisvalid from pg_index i join pg_class c on c.oid = i.indexrelid
    where c.relnamespace = 'public'::regnamespace and c.relname ~ %(pattern)s
"""
_ANALYSE = "analyze chunks, embeddings"
_VECTORS = sql.SQL(
    "create index concurrently {name} on embeddings using hnsw ((embedding::halfvec({width})) halfvec_cosine_ops) "
    "with (m = 12, ef_construction = 64) where collection_id = {collection} and space_id = {space}"
)
_LEXEMES = sql.SQL(
    "create index concurrently {name} on chunks using gin (lexemes) with (fastupdate = off) "
    "where collection_id = {collection}"
)
# Its plan is kept by a session; planned for each question, it would take longer the more collections have indexes.
_NEAREST = sql.SQL("""
    create or replace function {name}(
      tenant uuid, asked halfvec, depth integer,
      out chunks uuid[], out documents uuid[], out distances double precision[]
    )
    language plpgsql stable
    -- Of how many it wants a kept plan knows nothing; to sort them all is never the better way.
    set plan_cache_mode = force_generic_plan set enable_sort = off
    as $$
    begin
      select array_agg(chunk_id), array_agg(document_id), array_agg(distance) into chunks, documents, distances from (
        select chunk_id, document_id, embedding::halfvec({width}) <=> asked as distance from embeddings
        where tenant_id = tenant and collection_id = {collection} and space_id = {space}
        order by distance limit depth
      ) as nearest;
    end
    $$
""")
_FUNCTIONS = """
    select proname::text from pg_proc where pronamespace = 'public'::regnamespace and proname ~ %(pattern)s
"""
_DROP_FUNCTION = sql.SQL("drop function if exists {name}")
_DROP = sql.SQL("drop index concurrently if exists {name}")


class Change(NamedTuple):
    """What was done to an index."""

    name: str
    action: Literal["created", "dropped"]


class Size(NamedTuple):
    """A row of `collection_sizes`."""

    collection_id: int
    space_id: int
    dimensions: int
    chunk_count: int

    @property
    def indexes(self) -> dict[str, sql.Composed]:
        """Name → statement that makes it."""
        place = {"collection": sql.Literal(self.collection_id), "space": sql.Literal(self.space_id)}
        made = {VECTORS: _VECTORS, LEXEMES: _LEXEMES}
        return {
            f"{start}{self.collection_id}": text.format(
                name=sql.Identifier(f"{start}{self.collection_id}"), width=sql.Literal(self.dimensions), **place
            )
            for start, text in made.items()
        }

    @property
    def function(self) -> str:
        """The name of the one that finds the nearest chunks by the index of vectors."""
        return f"{NEAREST}{self.collection_id}"

    @property
    def nearest(self) -> sql.Composed:
        """The statement that makes it."""
        return _NEAREST.format(
            name=sql.Identifier(self.function),
            width=sql.Literal(self.dimensions),
            collection=sql.Literal(self.collection_id),
            space=sql.Literal(self.space_id),
        )


@dataclass(frozen=True, slots=True)
class IndexMaintenance:
    """Works as rag_owner, who alone may make an index; it needs a connection of its own, not one of a proxy's pool."""

    url: str
    password: Callable[[], str]
    threshold: int
    memory_mib: int

    def run(self, deadline: Deadline) -> list[Change]:
        """Make what is missing and drop what is invalid or not needed any more; nothing while another one is at it.

        UnavailableError when the database does not answer.
        """
        try:
            with self._alone() as connection:
                return list(self._changes(connection, deadline)) if connection else []
        except psycopg.OperationalError as error:
            msg = f"the database is not available: {type(error).__name__}"
            raise UnavailableError(msg) from error

    @contextmanager
    def _alone(self) -> Iterator[psycopg.Connection[Row] | None]:
        """The connection, or None while another run has the lock; an index that a dead run began holds it as well."""
        with log_in(self.url, self.password) as connection:
            [(alone, *_)] = connection.execute(_BEGIN, {"memory": f"{self.memory_mib}MB"}).fetchall()
            yield connection if alone else None

    def _changes(self, connection: psycopg.Connection[Row], deadline: Deadline) -> Iterator[Change]:
        sizes = [Size(*row) for row in connection.execute(_SIZES).fetchall()]
        valid: dict[str, bool] = dict(
            connection.execute(_OWN, {"pattern": f"^({VECTORS}|{LEXEMES})[0-9]+$"}).fetchall()
        )
        kept = {name for size in sizes if size.chunk_count > self.threshold * KEPT_SHARE for name in size.indexes}
        began_with = list(valid)
        for name in [name for name, good in valid.items() if not good or name not in kept]:
            connection.execute(_DROP.format(name=sql.Identifier(name)))
            del valid[name]
            yield Change(name, "dropped")
        grown = [size for size in sizes if size.chunk_count > self.threshold]
        functions = [size for size in sizes if size in grown or size.indexes.keys() <= valid.keys()]
        _make_functions(connection, functions, began_with=began_with)
        made = False
        for size in sorted(grown, key=lambda size: size.chunk_count):
            for name, make in size.indexes.items():
                if name not in valid and deadline.remaining() > LEAST_SECONDS:
                    connection.execute(make)
                    made = True
                    yield Change(name, "created")
        if made:
            # Its plans would be guesses until autovacuum comes by.
            connection.execute(_ANALYSE)


def _make_functions(connection: psycopg.Connection[Row], sizes: Sequence[Size], *, began_with: Iterable[str]) -> None:
    """Those of these collections, and of no others but what had its index as the run began.

    A search that saw the index just before it was dropped still calls the function, which finds the same without it;
    the next run drops it.
    """
    wanted = {size.function: size.nearest for size in sizes}
    there = {name for (name,) in connection.execute(_FUNCTIONS, {"pattern": f"^{NEAREST}[0-9]+$"}).fetchall()}
    called = {name.replace(VECTORS, NEAREST) for name in began_with}
    for name in there - wanted.keys() - called:
        connection.execute(_DROP_FUNCTION.format(name=sql.Identifier(name)))
    for name in wanted.keys() - there:
        connection.execute(wanted[name])
