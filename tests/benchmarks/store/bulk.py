"""Fills the product's tables by binary COPY, as a superuser: the rows that its ingest would write, much faster.

What is left out is what no search reads: ingestions, keys of the content, the order in which documents came.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb

from rag import lexical
from rag.migrations import ensure_space
from rag.store.access import TenantStore
from rag.store.collections import DEFAULT_COLLECTION
from rag.store.database import Database, connect
from rag.store.search import sparse
from rag.store.statements import statement
from rag.store.statistics import LEXEMES_PER_BLOCK
from rag.store.writing import LEXEMES_PER_ROW, parts
from rag.types import EmbeddingSpace
from tests.benchmarks.store.corpus import FIELD, LANGUAGE, TAG
from tests.benchmarks.store.product import MODEL
from tests.benchmarks.store.server import OWNER, PRODUCT, Server
from tests.benchmarks.store.synthetic import Synthetic

CHUNKS_AT_ONCE = 5_000
# Odd, so that numbers and ids are one to one; spread, as ids of the product are, so that neighbours in a document are
# none in a btree.
_SPREAD = 0x9E3779B97F4A7C15

_DOCUMENTS = """
    copy documents (tenant_id, id, collection_id, key, status, version_id, content_hash, size, media_type,
      chunk_count, metadata)
    from stdin (format binary)
"""
_CHUNKS = """
    copy chunks (tenant_id, id, collection_id, document_id, position, content, content_hash, tokens, lexical, lexemes,
      lexeme_count, average_length)
    from stdin (format binary)
"""
_EMBEDDINGS = """
    copy embeddings (tenant_id, space_id, chunk_id, collection_id, document_id, dimensions, embedding)
    from stdin (format binary)
"""
_FORGET = (
    "delete from lexeme_blocks where collection_id = %s",
    "delete from collection_statistics where collection_id = %s",
)
_LEXEMES = """
    copy lexeme_changes (tenant_id, collection_id, lexemes, counts) from stdin (format binary)
"""
_COUNTS = """
    insert into collection_statistics (tenant_id, collection_id, document_count, chunk_count, lexeme_count)
    values (%s, %s, %s, %s, %s)
"""
_PLACE = "select c.id, c.space_id from collections c where c.tenant_id = %s and c.name = %s"

# (number of the chunk, its BM25 weights)
Observe = Callable[[int, Mapping[int, float]], None]


@dataclass(slots=True)
class Place:
    """A tenant's only collection, and what its statistics are to say."""

    tenant: uuid.UUID
    collection: int
    space: int
    document_count: int = 0
    chunk_count: int = 0
    lexeme_count: int = 0
    frequencies: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Document:
    """The chunks `start` … `stop` - 1; `tagged` when the filter lets it through."""

    number: int
    start: int
    stop: int
    tagged: bool


class Bulk:
    """One superuser's connection to the product's database, which it makes anew."""

    def __init__(self, server: Server, dimensions: int) -> None:
        self._server = server
        self._space = EmbeddingSpace(MODEL, dimensions)
        server.product()
        ensure_space(server.url(OWNER, PRODUCT), self._space)
        self.connection = connect(server.postgres.dsn(database=PRODUCT))
        register_vector(self.connection)
        # Foreign keys are checked by triggers, row by row.
        self.connection.execute("set session_replication_role = replica")

    def close(self) -> None:
        self.connection.close()

    def tenants(self, names: Iterable[str]) -> list[Place]:
        """Make tenants as the product does, each with its empty collection."""
        admin = Database(self._server.url("rag_admin", PRODUCT), str)
        tenants = [TenantStore(admin, self._space).create(name)[0] for name in names]
        admin.close()
        return [
            Place(tenant, *self.connection.execute(_PLACE, [tenant, DEFAULT_COLLECTION]).fetchall()[0])
            for tenant in tenants
        ]

    def load(self, corpus: Synthetic, documents: Iterable[tuple[Place, Document]], observe: Observe) -> None:
        """Add whole documents, in this order; `observe` is shown every chunk."""
        size = 0

        def part(row: tuple[Place, Document]) -> int:
            nonlocal size
            size += row[1].stop - row[1].start
            return size // CHUNKS_AT_ONCE

        places: dict[int, Place] = {}
        for _, rows in groupby(documents, part):
            batch = list(rows)
            self._load(corpus, batch, observe)
            places |= {place.collection: place for place, _ in batch}
        for place in places.values():
            self._count(place)

    def _load(self, corpus: Synthetic, rows: Sequence[tuple[Place, Document]], observe: Observe) -> None:
        with self.connection.transaction():
            self._copy(
                _DOCUMENTS,
                "uuid uuid int8 text text text bytea int8 text int4 jsonb",
                map(_document, *zip(*rows, strict=True)),
            )
            self._copy(
                _CHUNKS,
                "uuid uuid int8 uuid int4 text bytea int4 sparsevec int4[] int4 float4",
                (row for place, document in rows for row in _chunks(corpus, place, document, observe)),
            )
            self._copy(
                _EMBEDDINGS,
                "uuid int2 uuid int8 uuid int2 halfvec",
                (row for place, document in rows for row in _embeddings(corpus, place, document)),
            )

    def _count(self, place: Place) -> None:
        with self.connection.transaction():
            for forget in _FORGET:
                self.connection.execute(forget, [place.collection])
            key = place.tenant, place.collection
            self._copy(
                _LEXEMES,
                "uuid int8 int4[] int4[]",
                (
                    (*key, *map(list, zip(*some, strict=True)))
                    for some in parts(sorted(place.frequencies.items()), LEXEMES_PER_ROW)
                ),
            )
            self.connection.execute(
                statement("add_up_lexemes"),
                {
                    "tenant": place.tenant,
                    "collection": place.collection,
                    "most": len(place.frequencies),
                    "lexemes_per_block": LEXEMES_PER_BLOCK,
                },
            )
            counts = place.document_count, place.chunk_count, place.lexeme_count
            self.connection.execute(_COUNTS, (*key, *counts))

    def _copy(self, into: str, types: str, rows: Iterable[tuple[Any, ...]]) -> None:
        with self.connection.cursor() as cursor, cursor.copy(into.encode()) as copy:
            copy.set_types(types.split())
            for row in rows:
                copy.write_row(row)


def identity(number: int) -> uuid.UUID:
    """The id of the chunk or document of this number."""
    return uuid.UUID(int=(number * _SPREAD % 2**64) << 64 | number)


def number(identity: uuid.UUID) -> int:
    """The number of the chunk or document of this id."""
    return identity.int % 2**64


def _document(place: Place, document: Document) -> tuple[Any, ...]:
    place.document_count += 1
    return (
        place.tenant,
        identity(document.number),
        place.collection,
        f"{document.number}",
        "ready",
        "1",
        hashlib.sha256(b"%d" % document.number).digest(),
        400 * (document.stop - document.start),
        "text/plain",
        document.stop - document.start,
        Jsonb({FIELD: TAG if document.tagged else "other"}),
    )


def _chunks(corpus: Synthetic, place: Place, document: Document, observe: Observe) -> Iterable[tuple[Any, ...]]:
    for position, chunk in enumerate(range(document.start, document.stop)):
        text = corpus.text(chunk)
        counts = lexical.analyse(text, LANGUAGE)
        weights = lexical.weigh(counts)
        place.chunk_count += 1
        place.lexeme_count += counts.total()
        place.frequencies.update(counts.keys())
        observe(chunk, weights)
        yield (
            place.tenant,
            identity(chunk),
            place.collection,
            identity(document.number),
            position,
            text,
            hashlib.sha256(text.encode()).digest(),
            len(text) // 4,
            sparse(weights),
            sorted(counts),
            counts.total(),
            lexical.AVERAGE_LENGTH,
        )


def _embeddings(corpus: Synthetic, place: Place, document: Document) -> Iterable[tuple[Any, ...]]:
    for chunk in range(document.start, document.stop):
        yield (
            place.tenant,
            place.space,
            identity(chunk),
            place.collection,
            identity(document.number),
            corpus.dimensions,
            HalfVector(corpus.vectors[chunk]),
        )
