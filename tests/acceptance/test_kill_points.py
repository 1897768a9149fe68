"""Ingest is killed at each named point and the message delivered again: the rows are those of an undisturbed run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from local.aws_service import Aws
from rag.migrations import ensure_space
from rag.store.access import TenantStore
from rag.store.database import Database
from rag.types import EmbeddingSpace
from tests import fake_model
from tests.acceptance.ingest_once import BUCKET, POINTS
from tests.fake_model import FakeModel
from tests.lexeme_counts import LEXEME_COUNTS

ROOT = Path(__file__).resolve().parents[2]
TEXT = "\n\n".join(
    f"# Chapter {n}\n\nSentence one of chapter {n} tells of trains. " + "It goes on and on about rails. " * 25
    for n in range(8)
)

STATE = {
    "documents": """
        select id, key, status, version_id, content_hash, size, media_type, title, chunk_count, error_code
        from documents order by id
    """,
    "chunks": """
        select id, document_id, position, page, heading, content, content_hash, tokens,
          lexical::text, lexemes, lexeme_count
        from chunks order by id
    """,
    "embeddings": "select chunk_id, document_id, dimensions, embedding::text from embeddings order by chunk_id",
    "lexemes": f"""
        select lexeme, sum(document_frequency) from {LEXEME_COUNTS}
        group by 1 having sum(document_frequency) <> 0 order by 1
    """,
    "totals": "select sum(document_count), sum(chunk_count), sum(lexeme_count) from collection_statistics",
    "pending": "select * from pending_embeddings",
    "ingestions": "select document_id, version_id, outcome, chunk_count from ingestions order by document_id",
    "generation": "select name, generation from collections order by name",
}


@dataclass
class IngestProcess:
    """What one ingest process needs of the world."""

    database: Any
    aws: Aws
    model: FakeModel
    tenant: str

    def ingest(
        self, object_key: str, point: str | None = None, *, message: str = "1"
    ) -> subprocess.CompletedProcess[str]:
        environment = {
            **self.aws.environment,
            "PATH": os.defpath,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "layers/rag/python")]),
            "RAG_DATABASE_URL": self.database.dsn("rag_ingest"),
            "RAG_BUCKET": BUCKET,
            "RAG_MODEL_URL": self.model.url,
            "RAG_EMBEDDING_MODEL": "fake",
            "RAG_EMBEDDING_DIMENSIONS": "4",
            "RAG_BATCH_SIZE": "3",
        }
        command = [
            sys.executable,
            "-m",
            "tests.acceptance.ingest_once",
            object_key,
            message,
            *([point] if point else []),
        ]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    def state(self) -> dict[str, list[tuple[Any, ...]]]:
        with psycopg.connect(self.database.superuser_dsn()) as connection:
            return {name: connection.execute(query.encode()).fetchall() for name, query in STATE.items()}

    def empty(self) -> None:
        with psycopg.connect(self.database.superuser_dsn(), autocommit=True) as connection:
            connection.execute(
                "truncate documents, lexeme_blocks, lexeme_changes, collection_statistics, ingestions cascade"
            )
            connection.execute("update collections set generation = 0")


@pytest.fixture
def process(database: Any, aws: Aws) -> Iterator[IngestProcess]:
    ensure_space(database.dsn("rag_owner"), EmbeddingSpace("fake", 4))
    admin = Database(database.url("rag_admin"), lambda: database.passwords["rag_admin"])
    tenant, _ = TenantStore(admin, EmbeddingSpace("fake", 4)).create("tenant")
    admin.close()
    with fake_model.serving(FakeModel()) as model:
        yield IngestProcess(database, aws, model, str(tenant))


@pytest.mark.slow
def test_a_kill_at_any_point_and_a_redelivery_leave_the_rows_of_an_undisturbed_run(process: IngestProcess) -> None:
    key = f"{process.tenant}/default/trains.md"
    process.aws.client("s3").put_object(Bucket=BUCKET, Key=key, Body=TEXT.encode())
    calm = process.ingest(key)
    assert calm.returncode == 0, calm.stderr
    assert json.loads(calm.stdout.splitlines()[-1]) == {"batchItemFailures": []}
    expected = process.state()
    texts = embedded(process.model)
    assert expected["documents"][0][2] == "ready"
    assert len(expected["chunks"]) >= 8

    for point in POINTS:
        process.empty()
        process.model.requests.clear()
        assert process.ingest(key, point).returncode == -signal.SIGKILL, point
        again = process.ingest(key)
        assert again.returncode == 0, (point, again.stderr)
        assert process.state() == expected, point
        repeated = embedded(process.model) - texts
        assert repeated <= 3, point  # at most the last batch, which is stored with the document
        print(f"killed {point}: rows as undisturbed, {repeated} texts embedded twice")


@pytest.mark.slow
def test_a_duplicate_that_comes_meanwhile_asks_the_model_for_nothing(process: IngestProcess) -> None:
    key = f"{process.tenant}/default/trains.md"
    process.aws.client("s3").put_object(Bucket=BUCKET, Key=key, Body=TEXT.encode())
    meanwhile: dict[str, Any] = {}

    def disturbed(handler: Any, body: dict[str, Any]) -> None:
        for message in ("another", "1"):
            answer = process.ingest(key, message=message)
            assert answer.returncode == 0, answer.stderr
            meanwhile[message] = json.loads(answer.stdout.splitlines()[-1])
        fake_model.send_json(handler, fake_model.embeddings([fake_model.unit(text, 4) for text in body["input"]]))

    process.model.script = [disturbed]
    assert process.ingest(key).returncode == 0
    texts = embedded(process.model)
    # The message itself must not be deleted while its other delivery may still be the one that dies.
    assert meanwhile == {"another": {"batchItemFailures": []}, "1": {"batchItemFailures": [{"itemIdentifier": "1"}]}}
    state = process.state()
    assert state["documents"][0][2] == "ready"
    assert texts == len({chunk[6] for chunk in state["chunks"]})
    print(f"2 deliveries at the same time as the first: {texts} texts embedded for {len(state['chunks'])} chunks")


def embedded(model: FakeModel) -> int:
    return sum(len(request["input"]) for request in model.requests)
