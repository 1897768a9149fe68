"""Large collections get indexes of their own, small ones lose them: a collection is searched by the cheaper way.

Everything is done CONCURRENTLY, so that searches and ingests go on; until an index is valid, and once it is dropped,
the collection is searched exactly. Whoever dies while an index is built leaves it to the server, which finishes it or
leaves it invalid; the next run drops what is invalid and begins again.
"""

from __future__ import annotations

import uuid
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
# Beside an index of vectors while another is built in its place, which is searched from one moment to the next.
_NEXT, _REPLACED = "_next", "_replaced"
# The comment of an index of which nobody has yet measured how much it finds (rag.store.recall).
NEW = "new"
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
    select c.tenant_id, c.collection_id, s.id, s.dimensions, c.chunk_count
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
_RENAME = sql.SQL("alter index if exists {name} rename to {other}")
COMMENT = sql.SQL("comment on index {name} is {text}")


_NAMES = f"^({VECTORS}|{LEXEMES})[0-9]+({_NEXT}|{_REPLACED})?$"


class Change(NamedTuple):
    """What was done to an index; `notice` is what the database remarked on it, as that there was too little memory."""

    name: str
    action: Literal["created", "dropped", "rebuilt"]
    notice: str | None = None


class Size(NamedTuple):
    """A row of `collection_sizes`."""

    tenant_id: uuid.UUID
    collection_id: int
    space_id: int
    dimensions: int
    chunk_count: int

    @property
    def vectors(self) -> str:
        """The name of the index of vectors."""
        return f"{VECTORS}{self.collection_id}"

    @property
    def next(self) -> str:
        """The name of the one that is to take its place."""
        return f"{self.vectors}{_NEXT}"

    @property
    def replaced(self) -> str:
        """The name of the one whose place was taken."""
        return f"{self.vectors}{_REPLACED}"

    @property
    def indexes(self) -> dict[str, sql.Composed]:
        """Name → statement that makes it."""
        lexemes = f"{LEXEMES}{self.collection_id}"
        return {self.vectors: self.make_vectors(self.vectors), lexemes: self._filled(_LEXEMES, lexemes)}

    def make_vectors(self, name: str) -> sql.Composed:
        """The statement that makes an index of vectors of this name."""
        return self._filled(_VECTORS, name)

    def _filled(self, statement: sql.SQL, name: str) -> sql.Composed:
        return statement.format(
            name=sql.Identifier(name),
            width=sql.Literal(self.dimensions),
            collection=sql.Literal(self.collection_id),
            space=sql.Literal(self.space_id),
        )

    @property
    def function(self) -> str:
        """The name of the one that finds the nearest chunks by the index of vectors."""
        return f"{NEAREST}{self.collection_id}"

    @property
    def nearest(self) -> sql.Composed:
        """The statement that makes it."""
        return self._filled(_NEAREST, self.function)


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
        with self.alone() as connection:
            return list(self.changes(connection, deadline)) if connection else []

    @contextmanager
    def alone(self) -> Iterator[psycopg.Connection[Row] | None]:
        """The connection, or None while another run has the lock; an index that a dead run began holds it as well.

        UnavailableError when the database does not answer.
        """
        try:
            with log_in(self.url, self.password) as connection:
                [(alone, *_)] = connection.execute(_BEGIN, {"memory": f"{self.memory_mib}MB"}).fetchall()
                yield connection if alone else None
        except psycopg.OperationalError as error:
            msg = f"the database is not available: {type(error).__name__}"
            raise UnavailableError(msg) from error

    def changes(self, connection: psycopg.Connection[Row], deadline: Deadline) -> Iterator[Change]:
        """Do what is to be done over a connection that is `alone`; whoever takes what was done has it done."""
        sizes = sizes_of(connection)
        valid: dict[str, bool] = dict(connection.execute(_OWN, {"pattern": _NAMES}).fetchall())
        began_with = list(valid)
        large = [size for size in sizes if size.chunk_count > self.threshold * KEPT_SHARE]
        kept = {name for size in large for name in (*size.indexes, size.next)}
        for name in [name for name, good in valid.items() if not good or name not in kept]:
            connection.execute(_DROP.format(name=sql.Identifier(name)))
            del valid[name]
            yield Change(name, "dropped")
        for size in [size for size in large if size.next in valid]:
            _put_in_its_place(connection, size)
            valid[size.vectors] = valid.pop(size.next)
            yield Change(size.vectors, "rebuilt")
        grown = [size for size in sizes if size.chunk_count > self.threshold]
        functions = [size for size in sizes if size in grown or size.indexes.keys() <= valid.keys()]
        _make_functions(connection, functions, began_with=began_with)
        made = False
        for size in sorted(grown, key=lambda size: size.chunk_count):
            for name, make in size.indexes.items():
                if name not in valid and deadline.remaining() > LEAST_SECONDS:
                    notice = build(connection, make)
                    if name == size.vectors:
                        connection.execute(COMMENT.format(name=sql.Identifier(name), text=sql.Literal(NEW)))
                    made = True
                    yield Change(name, "created", notice)
        if made:
            # Its plans would be guesses until autovacuum comes by.
            connection.execute(_ANALYSE)


def build(connection: psycopg.Connection[Row], make: sql.Composed) -> str | None:
    """Make an index and return what the database remarked on it."""
    said: list[str] = []

    def hear(diagnostic: psycopg.errors.Diagnostic) -> None:
        said.append(diagnostic.message_primary or "")

    connection.add_notice_handler(hear)
    try:
        connection.execute(make)
    finally:
        connection.remove_notice_handler(hear)
    return "; ".join(said) or None


def sizes_of(connection: psycopg.Connection[Row]) -> list[Size]:
    """Of every collection."""
    return [Size(*row) for row in connection.execute(_SIZES).fetchall()]


def _put_in_its_place(connection: psycopg.Connection[Row], size: Size) -> None:
    """Give the one that was built beside an index of vectors its name: from one moment to the next."""
    index, built, replaced = (sql.Identifier(name) for name in (size.vectors, size.next, size.replaced))
    with connection.transaction():
        connection.execute(_RENAME.format(name=index, other=replaced))
        connection.execute(_RENAME.format(name=built, other=index))
        connection.execute(COMMENT.format(name=index, text=sql.Literal(NEW)))
    connection.execute(_DROP.format(name=replaced))


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
