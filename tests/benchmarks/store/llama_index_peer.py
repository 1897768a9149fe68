"""llama-index: PGVectorStore, whose text search looks for chunks that have any of the words."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import (
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from llama_index.vector_stores.postgres import PGVectorStore

from tests.benchmarks.store.contestant import EF_CONSTRUCTION, KINDS, Kind, M, Place
from tests.benchmarks.store.corpus import FIELD, TAG, Corpus, Question, tagged
from tests.benchmarks.store.fusing import LEG_DEPTH, reciprocal
from tests.benchmarks.store.server import EF_SEARCH

_FILTERS = MetadataFilters(filters=[MetadataFilter(key=FIELD, value=TAG)])


class LlamaIndex:
    kinds: tuple[Kind, ...] = KINDS[:3]

    def __init__(self, place: Place) -> None:
        self._place = place

    @cached_property
    def _indexed(self) -> PGVectorStore:
        return self._store(
            {"hnsw_m": M, "hnsw_ef_construction": EF_CONSTRUCTION, "hnsw_ef_search": EF_SEARCH}
            | {"hnsw_dist_method": "vector_cosine_ops"}
        )

    def _store(self, hnsw: dict[str, Any] | None) -> PGVectorStore:
        url = self._place.urls["owner"]
        return PGVectorStore.from_params(
            connection_string=url.replace("postgresql://", "postgresql+psycopg2://"),
            async_connection_string=url.replace("postgresql://", "postgresql+asyncpg://"),
            table_name="chunks",
            embed_dim=self._place.dimensions,
            hybrid_search=True,
            hnsw_kwargs=hnsw,
        )

    def add(self, corpus: Corpus, chunks: range) -> None:
        # A new collection is filled before it is indexed, which is several times faster.
        store = self._store(None) if chunks.start == 0 else self._indexed
        for start in range(chunks.start, chunks.stop, 500):
            store.add([_node(corpus, number) for number in range(start, min(start + 500, chunks.stop))])

    def index(self) -> None:
        self._indexed._initialize()

    def ask(self, kind: Kind, question: Question) -> Any:
        vector = question.vector.tolist()
        if kind != "hybrid":
            filters = _FILTERS if kind.endswith("%") else None
            return self._nodes(VectorStoreQuery(query_embedding=vector, similarity_top_k=10, filters=filters))
        dense = self._nodes(VectorStoreQuery(query_embedding=vector, similarity_top_k=LEG_DEPTH))
        sparse = self._nodes(
            VectorStoreQuery(
                query_str=question.text,
                sparse_top_k=LEG_DEPTH,
                similarity_top_k=LEG_DEPTH,
                mode=VectorStoreQueryMode.SPARSE,
            )
        )
        by_id = {node.node_id: node for node in (*dense, *sparse)}
        fused = reciprocal([node.node_id for node in dense], [node.node_id for node in sparse])
        return [by_id[identity] for identity in fused[:10]]

    def numbers(self, answer: Any) -> Sequence[int]:
        return [int(node.node_id) for node in answer]

    def close(self) -> None:
        asyncio.run(self._indexed.close())

    def _nodes(self, query: VectorStoreQuery) -> list[Any]:
        return list(self._indexed.query(query).nodes or [])


def _node(corpus: Corpus, number: int) -> TextNode:
    return TextNode(
        id_=str(number),
        text=corpus.texts[number],
        embedding=corpus.vectors[number].tolist(),
        metadata={FIELD: TAG if tagged(number) else "other"},
    )


def made(place: Place) -> LlamaIndex:
    return LlamaIndex(place)
