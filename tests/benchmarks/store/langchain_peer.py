"""langchain-postgres: PGVectorStore with its HybridSearchConfig, which looks for chunks that have all the words."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_postgres import Column, PGEngine, PGVectorStore
from langchain_postgres.v2.hybrid_search_config import HybridSearchConfig, reciprocal_rank_fusion
from langchain_postgres.v2.indexes import DistanceStrategy, HNSWIndex, HNSWQueryOptions

from tests.benchmarks.store.contestant import EF_CONSTRUCTION, KINDS, Kind, M, Place
from tests.benchmarks.store.corpus import FIELD, TAG, Corpus, Question, tagged
from tests.benchmarks.store.fusing import LEG_DEPTH
from tests.benchmarks.store.server import EF_SEARCH

_TABLE = "chunks"


class _Asked(Embeddings):
    """The vector of the question that is being asked."""

    vector: list[float]

    def embed_query(self, text: str) -> list[float]:
        return self.vector

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise NotImplementedError


class Langchain:
    kinds: tuple[Kind, ...] = KINDS[:3]

    def __init__(self, place: Place) -> None:
        url = place.urls["owner"].replace("postgresql://", "postgresql+psycopg://")
        self._engine = PGEngine.from_connection_string(url)
        self._dimensions = place.dimensions
        self._embeddings = _Asked()

    @cached_property
    def _hybrid(self) -> PGVectorStore:
        return self._store(_hybrid())

    @cached_property
    def _dense(self) -> PGVectorStore:
        return self._store(None)

    def _store(self, config: HybridSearchConfig | None) -> PGVectorStore:
        return PGVectorStore.create_sync(
            self._engine,
            self._embeddings,
            _TABLE,
            metadata_columns=[FIELD],
            index_query_options=HNSWQueryOptions(ef_search=EF_SEARCH),
            hybrid_search_config=config,
        )

    def add(self, corpus: Corpus, chunks: range) -> None:
        if chunks.start == 0:
            self._engine.init_vectorstore_table(
                _TABLE, self._dimensions, metadata_columns=[Column(FIELD, "TEXT")], hybrid_search_config=_hybrid()
            )
        for start in range(chunks.start, chunks.stop, 500):
            some = range(start, min(start + 500, chunks.stop))
            self._hybrid.add_embeddings(
                texts=[corpus.texts[number] for number in some],
                embeddings=corpus.vectors[some.start : some.stop].tolist(),
                metadatas=[{FIELD: TAG if tagged(number) else "other"} for number in some],
                ids=[str(uuid.UUID(int=number)) for number in some],
            )

    def index(self) -> None:
        self._hybrid.apply_hybrid_search_index()
        self._hybrid.apply_vector_index(
            HNSWIndex(m=M, ef_construction=EF_CONSTRUCTION, distance_strategy=DistanceStrategy.COSINE_DISTANCE)
        )

    def ask(self, kind: Kind, question: Question) -> Any:
        self._embeddings.vector = question.vector.tolist()
        if kind == "hybrid":
            return self._hybrid.similarity_search(question.text, k=10)
        return self._dense.similarity_search(question.text, k=10, filter={FIELD: TAG} if kind.endswith("%") else None)

    def numbers(self, answer: Any) -> Sequence[int]:
        return [uuid.UUID(str(document.id)).int for document in answer]

    def close(self) -> None:
        loop = self._engine._default_loop
        if loop is not None:
            asyncio.run_coroutine_threadsafe(self._engine.close(), loop).result()


def _hybrid() -> HybridSearchConfig:
    return HybridSearchConfig(
        tsv_column="content_tsv",
        tsv_lang="pg_catalog.english",
        fusion_function=reciprocal_rank_fusion,
        fusion_function_parameters={"rrf_k": 60, "fetch_top_k": 10},
        primary_top_k=LEG_DEPTH,
        secondary_top_k=LEG_DEPTH,
    )


def made(place: Place) -> Langchain:
    return Langchain(place)
