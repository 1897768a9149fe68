"""The limit: plain tables filled by binary COPY, one hand-written, prepared statement per kind of question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import psycopg
from pgvector import HalfVector
from pgvector.psycopg.halfvec import HalfVectorBinaryDumper
from psycopg.types.numeric import Int4

from tests.benchmarks.store.contestant import EF_CONSTRUCTION, KINDS, Kind, M, Place
from tests.benchmarks.store.corpus import Corpus, Question, tagged

_TABLE = """
create table if not exists chunks (
  id integer primary key, tagged boolean not null, content text not null, embedding halfvec({width}) not null,
  words tsvector generated always as (to_tsvector('english', content)) stored
);
alter table chunks alter column embedding set storage plain
"""
_INDEXES = (
    "create index if not exists chunks_words on chunks using gin (words)",
    "create index if not exists chunks_tagged on chunks (id) where tagged",
    f"""
    create index if not exists chunks_embedding on chunks using hnsw (embedding halfvec_cosine_ops)
    with (m = {M}, ef_construction = {EF_CONSTRUCTION})
    """,
)
_COPY = "copy chunks (id, tagged, content, embedding) from stdin (format binary)"
_DENSE = b"""
select id, content, 1 - (embedding <=> %(vector)s::halfvec({width})) from chunks
order by embedding <=> %(vector)s::halfvec({width}) limit 10
"""
# Few enough to be looked at one by one: materialised, or the planner would take the HNSW index and find one in ten.
_FILTERED = b"""
with filtered as materialized (
  select id, content, embedding <=> %(vector)s::halfvec({width}) as distance from chunks where tagged
)
select id, content, 1 - distance from filtered order by distance limit 10
"""


class Limit:
    """One connection, with nothing around the statements."""

    kinds: tuple[Kind, ...] = (KINDS[0], KINDS[2])

    def __init__(self, place: Place) -> None:
        self._connection = psycopg.connect(place.urls["owner"], autocommit=True, prepare_threshold=0)
        self._connection.adapters.register_dumper(HalfVector, HalfVectorBinaryDumper)
        width = str(place.dimensions).encode()
        self._statements: dict[str, bytes] = {
            "dense": _DENSE.replace(b"{width}", width),
            "dense 1 %": _FILTERED.replace(b"{width}", width),
        }
        self._connection.execute("set client_min_messages = warning")
        self._connection.execute(_TABLE.replace("{width}", str(place.dimensions)).encode(), prepare=False)
        self._cursor = self._connection.cursor(binary=True)

    def add(self, corpus: Corpus, chunks: range) -> None:
        halves = np.asarray(corpus.vectors[chunks.start : chunks.stop])
        with self._connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            for number, vector in zip(chunks, halves, strict=True):
                copy.write_row((Int4(number), tagged(number), corpus.texts[number], HalfVector(vector)))

    def index(self) -> None:
        self._connection.execute("set maintenance_work_mem = '256MB'")
        for statement in _INDEXES:
            self._connection.execute(statement.encode())

    def ask(self, kind: Kind, question: Question) -> Any:
        return self._cursor.execute(self._statements[kind], {"vector": HalfVector(question.vector)}).fetchall()

    def numbers(self, answer: Any) -> Sequence[int]:
        return [number for number, _, _ in answer]

    def close(self) -> None:
        self._connection.close()


def made(place: Place) -> Limit:
    return Limit(place)
