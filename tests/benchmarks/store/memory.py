"""How much memory the ingest of one document takes: everything but the parser, which is a process of its own.

    python -m tests.benchmarks.store.memory [--chunks 1000,10000,50000]

Each size is ingested by a new process into a PostgreSQL of its own; the model, the bucket and the parser are played.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import random
import resource
import shutil
import tempfile
import time
import uuid
from array import array
from collections.abc import Sequence
from pathlib import Path

from rag import ingestion
from rag.deadline import Deadline
from rag.settings import Settings
from rag.store.collections import DEFAULT_COLLECTION
from rag.store.database import Database
from rag.store.index import IndexStore
from rag.types import EmbeddingSpace, Location, ObjectVersion, Parsed, Section, Vector
from tests.benchmarks.store import product
from tests.benchmarks.store.contestant import Place
from tests.benchmarks.store.server import server

DIMENSIONS = 384
WORDS_PER_CHUNK = 103
VOCABULARY = 40_000
MEBIBYTE = 1024  # of what getrusage counts in


class Played:
    """A bucket, a parser and a model of one document; a section a chunk."""

    def __init__(self, chunks: int) -> None:
        self._chunks = chunks

    def head(self, object_key: str, *, hurried: bool = False) -> ObjectVersion:
        return ObjectVersion(object_key, "etag", self._chunks)

    def fetch(self, object_key: str, version: ObjectVersion, path: Path, *, limit_bytes: int) -> bytes:
        return hashlib.sha256(object_key.encode()).digest()

    def read(self, object_key: str, *, limit_bytes: int) -> bytes | None:
        return None

    def parse(self, path: Path, name: str) -> Parsed:
        drawn = random.Random(self._chunks)
        words = [f"w{int(VOCABULARY ** drawn.random())}" for _ in range(WORDS_PER_CHUNK * 1_000)]
        sections = (
            " ".join(drawn.choices(words, k=WORDS_PER_CHUNK)) + f" number {place}." for place in range(self._chunks)
        )
        return Parsed("text/plain", tuple(Section(text, page) for page, text in enumerate(sections, start=1)))

    def require_embedding(self) -> None:
        """There is always one."""

    def embed(self, texts: Sequence[str], deadline: Deadline) -> list[Vector]:
        return [array("f", random.Random(text).choices((0.25, 0.5, 1.0), k=DIMENSIONS)) for text in texts]


def ingested(place: Place, chunks: int) -> tuple[int, float, int, int]:
    """(chunks, seconds, peak before and after in kB), of a process that does nothing else."""
    played, settings = Played(chunks), Settings.from_environment({})
    database = Database(place.urls["rag_ingest"], str)
    store = IndexStore(database, EmbeddingSpace(product.MODEL, DIMENSIONS))
    location = Location(uuid.UUID(place.tenant), DEFAULT_COLLECTION, f"{chunks}.txt")
    before, started = _peak(), time.perf_counter()
    outcome = ingestion.ingest(
        location,
        bucket=played,
        parser=played,
        embedder=played,
        store=store,
        count_tokens=lambda texts: [len(text) // 4 for text in texts],
        limits=ingestion.Limits(1, settings.chunk_tokens, settings.chunk_max_tokens, settings.batch_size),
        deadline=Deadline.after(3600),
    )
    database.close()
    return outcome.chunk_count, time.perf_counter() - started, before, _peak()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.store.memory")
    parser.add_argument("--chunks", default="1000,10000,50000", help="sizes of the document")
    sizes = [int(size) for size in parser.parse_args().chunks.split(",")]
    directory = Path(tempfile.mkdtemp(prefix="rag-benchmark-"))
    directory.chmod(0o711)
    try:
        with server(directory) as started:
            place = product.prepared(started, DIMENSIONS, 10_000)
            spawn = multiprocessing.get_context("spawn")
            print(f"{'chunks':>8} {'seconds':>8} {'MB before':>10} {'MB at most':>10}")
            for size in sizes:
                with spawn.Pool(1) as pool:
                    chunks, seconds, before, after = pool.apply(ingested, (place, size))
                print(f"{chunks:>8,} {seconds:>8.1f} {before / MEBIBYTE:>10.0f} {after / MEBIBYTE:>10.0f}", flush=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
