"""SciFact by the product's own pipelines: ingested as the ingest function does, searched as the query function does."""

from __future__ import annotations

import json
import math
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from local.environment import local_model
from local.model_service import ModelServer
from rag import answering, ingestion, tokens
from rag.cache import Cache
from rag.deadline import Deadline
from rag.llm import LLM
from rag.migrations import ensure_space
from rag.parser import Parser
from rag.settings import Settings
from rag.store.access import TenantStore
from rag.store.database import Database
from rag.store.index import IndexStore
from rag.store.search import SearchStore
from rag.types import EmbeddingSpace, Location, Mode, ObjectVersion

MODES: tuple[Mode, ...] = ("lexical", "dense", "hybrid")
AT_LEAST = {"lexical": 0.67, "dense": 0.64, "hybrid": 0.72}
WORKERS = 3


@dataclass
class Folder:
    """The bucket's edge over records in memory: what is measured here is ranking, not S3."""

    objects: dict[str, bytes]

    def head(self, object_key: str, *, hurried: bool = False) -> ObjectVersion | None:  # noqa: ARG002 (the edge's signature)
        body = self.objects.get(object_key)
        return ObjectVersion("1", "etag", len(body)) if body is not None else None

    def fetch(self, object_key: str, version: ObjectVersion, path: Path, *, limit_bytes: int) -> bytes:
        assert version.size <= limit_bytes
        path.write_bytes(self.objects[object_key])
        return b"\0" * 32


@pytest.fixture
def models(tmp_path: Path) -> Iterator[ModelServer]:
    server = ModelServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.mark.slow
@pytest.mark.data
def test_scifact_is_ranked_as_promised(database: Any, models: ModelServer, shared_data: Path) -> None:
    folder = shared_data / "retrieval" / "scifact"
    model = local_model(models.url)
    space = EmbeddingSpace(model.embedding_model, model.embedding_dimensions)
    ensure_space(database.dsn("rag_owner"), space)
    admin = Database(database.dsn("rag_admin"), lambda: "")
    tenant, _ = TenantStore(admin, space).create("scifact")
    admin.close()
    llm = LLM(
        model.url,
        lambda: "",
        embedding_model=model.embedding_model,
        dimensions=model.embedding_dimensions,
        chat_model=model.chat_model,
        answer_tokens=100,
    )
    chunk_count = fill(
        database, space, llm, tenant, records(folder / "corpus.jsonl"), tokens.tokenizer(model.tokenizer)
    )
    relevant = judgements(folder / "qrels.tsv")
    found = {mode: rank(database, space, llm, tenant, queries(folder, relevant), mode) for mode in MODES}
    figures = {mode: mean([ndcg(found[mode][query], relevant[query]) for query in relevant]) for mode in MODES}
    print(f"\nSciFact: 5,183 documents, {chunk_count} chunks, {len(relevant)} questions; nDCG@10: {figures}")
    assert all(figures[mode] >= AT_LEAST[mode] for mode in MODES), figures


def fill(
    database: Any, space: EmbeddingSpace, llm: LLM, tenant: uuid.UUID, documents: Mapping[str, str], count_tokens: Any
) -> int:
    bucket = Folder({f"{tenant}/default/{name}.md": text.encode() for name, text in documents.items()})
    settings = Settings()
    limits = ingestion.Limits(
        settings.max_document_bytes, settings.chunk_tokens, settings.chunk_max_tokens, settings.batch_size
    )

    def work(names: Sequence[str]) -> int:
        connection = Database(database.dsn("rag_ingest"), lambda: "")
        store, parser, count = IndexStore(connection, space), Parser(), 0
        for name in names:
            location = Location(tenant, "default", f"{name}.md")
            outcome = ingestion.ingest(
                location,
                bucket=bucket,
                parser=parser,
                embedder=llm,
                store=store,
                count_tokens=count_tokens,
                limits=limits,
                deadline=Deadline.after(60),
            )
            assert outcome.result == "ready", (name, outcome)
            count += outcome.chunk_count
        parser.close()
        connection.close()
        return count

    names = list(documents)
    with ThreadPoolExecutor(WORKERS) as pool:
        return sum(pool.map(work, [names[number::WORKERS] for number in range(WORKERS)]))


def rank(
    database: Any, space: EmbeddingSpace, llm: LLM, tenant: uuid.UUID, questions: Mapping[str, str], mode: Mode
) -> dict[str, list[str]]:
    """Question → documents by their best chunk."""
    connection = Database(database.dsn("rag_query"), lambda: "")
    store, cache = SearchStore(connection, space), Cache("", lambda: "", ttl_seconds=600)
    ranked = {}
    for identity, text in questions.items():
        found = answering.search(
            answering.Question(tenant, text, mode=mode, top_k=50),
            llm=llm,
            store=store,
            cache=cache,
            deadline=Deadline.after(30),
        )
        ranked[identity] = list(dict.fromkeys(Path(hit.key).stem for hit in found.hits))
    connection.close()
    return ranked


def records(path: Path) -> dict[str, str]:
    parsed = (json.loads(line) for line in path.read_text().splitlines())
    return {record["_id"]: f"# {record['title']}\n\n{record['text']}\n" for record in parsed}


def queries(folder: Path, relevant: Mapping[str, Any]) -> dict[str, str]:
    parsed = (json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines())
    return {record["_id"]: record["text"] for record in parsed if record["_id"] in relevant}


def judgements(path: Path) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for line in path.read_text().splitlines()[1:]:
        query, document, score = line.split("\t")
        found[query][document] = int(score)
    return found


def ndcg(ranked: Sequence[str], relevant: Mapping[str, int]) -> float:
    """Linear gain, log2 discount, at 10."""
    gain = sum(relevant.get(document, 0) / math.log2(place + 2) for place, document in enumerate(ranked[:10]))
    best = sorted(relevant.values(), reverse=True)[:10]
    return gain / sum(value / math.log2(place + 2) for place, value in enumerate(best))


def mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)
