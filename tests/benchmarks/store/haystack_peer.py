"""pgvector-haystack: its embedding and its keyword retriever, joined by reciprocal rank fusion."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from haystack import Document
from haystack.components.joiners import DocumentJoiner
from haystack.utils import Secret
from haystack_integrations.components.retrievers.pgvector import PgvectorEmbeddingRetriever, PgvectorKeywordRetriever
from haystack_integrations.document_stores.pgvector import PgvectorDocumentStore

from tests.benchmarks.store.contestant import EF_CONSTRUCTION, KINDS, Kind, M, Place
from tests.benchmarks.store.corpus import FIELD, TAG, Corpus, Question, tagged
from tests.benchmarks.store.fusing import LEG_DEPTH
from tests.benchmarks.store.server import EF_SEARCH

# It says with every connection that its index is there.
logging.getLogger("haystack_integrations").setLevel(logging.ERROR)

_FILTERS = {"field": f"meta.{FIELD}", "operator": "==", "value": TAG}


class Haystack:
    kinds: tuple[Kind, ...] = KINDS[:3]

    def __init__(self, place: Place) -> None:
        self._place = place
        self._joiner = DocumentJoiner(join_mode="reciprocal_rank_fusion", top_k=10)

    @cached_property
    def _indexed(self) -> PgvectorDocumentStore:
        return self._store("hnsw")

    @cached_property
    def _by_embedding(self) -> PgvectorEmbeddingRetriever:
        return PgvectorEmbeddingRetriever(document_store=self._indexed)

    @cached_property
    def _by_keyword(self) -> PgvectorKeywordRetriever:
        return PgvectorKeywordRetriever(document_store=self._indexed)

    def _store(self, strategy: Any) -> PgvectorDocumentStore:
        return PgvectorDocumentStore(
            connection_string=Secret.from_token(self._place.urls["owner"]),
            table_name="chunks",
            embedding_dimension=self._place.dimensions,
            search_strategy=strategy,
            hnsw_index_creation_kwargs={"m": M, "ef_construction": EF_CONSTRUCTION},
            hnsw_ef_search=EF_SEARCH,
        )

    def add(self, corpus: Corpus, chunks: range) -> None:
        # A new collection is filled before it is indexed, which is several times faster.
        store = self._store("exact_nearest_neighbor") if chunks.start == 0 else self._indexed
        for start in range(chunks.start, chunks.stop, 500):
            store.write_documents([_document(corpus, number) for number in range(start, min(start + 500, chunks.stop))])

    def index(self) -> None:
        self._indexed._ensure_db_setup()

    def ask(self, kind: Kind, question: Question) -> Any:
        vector = question.vector.tolist()
        if kind != "hybrid":
            filters = _FILTERS if kind.endswith("%") else None
            return self._by_embedding.run(query_embedding=vector, top_k=10, filters=filters)["documents"]
        dense = self._by_embedding.run(query_embedding=vector, top_k=LEG_DEPTH)["documents"]
        words = self._by_keyword.run(query=question.text, top_k=LEG_DEPTH)["documents"]
        return self._joiner.run(documents=[dense, words])["documents"]

    def numbers(self, answer: Any) -> Sequence[int]:
        return [int(document.id) for document in answer]

    def close(self) -> None:
        self._indexed.close()


def _document(corpus: Corpus, number: int) -> Document:
    return Document(
        id=str(number),
        content=corpus.texts[number],
        embedding=corpus.vectors[number].tolist(),
        meta={FIELD: TAG if tagged(number) else "other"},
    )


def made(place: Place) -> Haystack:
    return Haystack(place)
