"""How much memory the ingest of one large document takes, in its own process and in the parser's, and how long.

    python -m tests.benchmarks.store.memory [--jsonl 10,100,1000] [--pdf 5000] [--seconds 600]

A file of so many megabytes, or pages, is read by the parser itself, cut, staged and stored, by a new process for each
size and into a PostgreSQL of its own; a run has `--seconds`, and the next one goes on. The model and the bucket are
played, so that every text that is embedded is counted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import random
import resource
import shutil
import tempfile
import time
import uuid
from array import array
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rag import ingestion, tokens
from rag.deadline import Deadline
from rag.errors import OutOfTimeError
from rag.limits import Limits
from rag.parser import Parser
from rag.settings import Settings
from rag.store.collections import DEFAULT_COLLECTION
from rag.store.database import Database, Transaction
from rag.store.index import IndexStore
from rag.store.staged import StagingStore
from rag.types import Attempt, Beside, Delivery, EmbeddingSpace, Location, ObjectVersion, Scope, Usage, Vector
from tests.benchmarks.store import product
from tests.benchmarks.store.contestant import Place
from tests.benchmarks.store.server import server

DIMENSIONS = 384
MEGABYTE = 1_000_000
MEBIBYTE = 1024  # of what getrusage counts in
WORDS = [f"w{number}" for number in range(40_000)]
WORDS_PER_PAGE = 300


@dataclass(frozen=True, slots=True)
class Size:
    kind: str
    count: int
    chunk_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Taken:
    chunks: int
    embedded: int
    runs: int
    seconds: float
    store_ms: float
    ingest_peak: int
    parser_peak: int


class Played:
    """A bucket that holds one file, and a model that counts what it is asked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.used = Usage()
        self.embedded = 0

    def head(self, object_key: str, *, hurried: bool = False) -> ObjectVersion:
        return ObjectVersion("1", "etag", self._path.stat().st_size)

    def open(self, object_key: str) -> Played:
        return self

    @property
    def version(self) -> ObjectVersion:
        return self.head("")

    def close(self) -> None:
        """There is nothing to let go of."""

    def fetch(self, path: Path, *, limit_bytes: int) -> bytes:
        path.symlink_to(self._path)
        with self._path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()

    def read(self, object_key: str, *, limit_bytes: int) -> Beside | None:
        return None

    def require_embedding(self) -> None:
        """There is always one."""

    def embed(self, texts: Sequence[str], deadline: Deadline) -> list[Vector]:
        self.embedded += len(texts)
        return [_vector(text) for text in texts]

    def embed_each(
        self, batches: Iterable[Sequence[str]], deadline: Deadline
    ) -> Generator[tuple[int, list[Vector]], None, None]:
        yield from ((number, self.embed(batch, deadline)) for number, batch in enumerate(batches))


def _vector(text: str) -> Vector:
    vector = array("f", bytes(4 * DIMENSIONS))
    for byte in hashlib.sha256(text.encode()).digest():
        vector[byte] += 1.0
    return vector


def written(directory: Path, kind: str, count: int) -> Path:
    """A file of so many megabytes of JSON lines, or a PDF of so many pages."""
    path = directory / f"{count}.{kind}"
    chance = random.Random(count)
    with path.open("wb") as file:
        for piece in _lines(chance, count * MEGABYTE) if kind == "jsonl" else _pdf(chance, count):
            file.write(piece)
    return path


def _lines(chance: random.Random, size: int) -> Iterator[bytes]:
    number = written = 0
    while written < size:
        record = {"id": number, "title": f"Record {number}", "text": " ".join(chance.choices(WORDS, k=100)) + "."}
        line = json.dumps(record).encode() + b"\n"
        yield line
        number += 1
        written += len(line)


def _pdf(chance: random.Random, pages: int) -> Iterator[bytes]:
    """Objects 1 to 3 are the catalog, the tree of pages and a font; each page is one, and its text another."""
    kids = " ".join(f"{4 + 2 * page} 0 R" for page in range(pages))
    bodies = [
        "<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Count {pages}/Kids[{kids}]>>",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    place, places = 0, []

    def numbered(body: str) -> bytes:
        places.append(place)
        return f"{len(places)} 0 obj{body}endobj\n".encode()

    def page_of(number: int) -> tuple[str, str]:
        words = [f"Page {number}.", *chance.choices(WORDS, k=WORDS_PER_PAGE)]
        lines = (" ".join(words[start : start + 10]) for start in range(0, len(words), 10))
        shown = "BT/F 11 Tf 14 TL 50 780 Td" + "".join(f"({line})'" for line in lines) + "ET"
        resources = "/Resources<</Font<</F 3 0 R>>>>"
        page = f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]{resources}/Contents {5 + 2 * number} 0 R>>"
        return page, f"<</Length {len(shown)}>>stream\n{shown}\nendstream "

    head = b"%PDF-1.4\n"
    yield head
    place = len(head)
    for body in [*bodies, *(part for number in range(pages) for part in page_of(number))]:
        piece = numbered(body)
        yield piece
        place += len(piece)
    yield f"xref\n0 {len(places) + 1}\n0000000000 65535 f \n".encode()
    for at in places:
        yield f"{at:010} 00000 n \n".encode()
    yield f"trailer<</Size {len(places) + 1}/Root 1 0 R>>\nstartxref\n{place}\n%%EOF\n".encode()


def ingested(place: Place, path: Path, size: Size) -> Taken:
    """What a process takes that does nothing else."""
    played, settings, parser = Played(path), Settings.from_environment({}), Parser(wall_seconds=3600, limits=UNBOUNDED)
    database = Database(place.urls["rag_ingest"], str)
    store = IndexStore(database, EmbeddingSpace(product.MODEL, DIMENSIONS))
    location = Location(uuid.UUID(place.tenant), DEFAULT_COLLECTION, path.name)
    limits = ingestion.Limits(
        2**40, size.chunk_tokens, size.chunk_tokens * 5 // 3, settings.batch_size, held_chunks=settings.held_chunks
    )
    started, runs, outcome = time.perf_counter(), 0, None
    while outcome is None:
        runs += 1
        try:
            outcome = ingestion.ingest(
                location,
                bucket=played,
                parser=parser,
                embedder=played,
                store=store,
                staging=StagingStore(store),
                count_tokens=tokens.tokenizer(None),
                limits=limits,
                deadline=Deadline.after(size.seconds),
                delivery=Delivery(str(runs)),
            )
        except OutOfTimeError as error:
            print(f"    run {runs}, {time.perf_counter() - started:.0f} s: {error}", flush=True)
    assert outcome.result == "ready", outcome
    seconds = time.perf_counter() - started
    # Of the last transaction, as the document's history tells it.
    story = database.read(Scope(location.tenant_id), partial(_story, location))
    database.close()
    parser.close()
    peaks = (resource.getrusage(who).ru_maxrss // MEBIBYTE for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return Taken(outcome.chunk_count, played.embedded, runs, seconds, story[0].store_ms / outcome.chunk_count, *peaks)


def _story(location: Location, transaction: Transaction) -> list[Attempt]:
    rows = transaction.rows("ingestions_of_document", document=location.document_id, most=1)
    return [Attempt(*row) for row in rows]


UNBOUNDED = Limits(characters=2**40, pages=2**30)


def sizes(given: str) -> list[int]:
    return [int(size) for size in given.split(",") if size]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.store.memory")
    parser.add_argument("--jsonl", default="1,10,100", type=sizes, help="megabytes of JSON lines")
    parser.add_argument("--pdf", default="5000", type=sizes, help="pages of a PDF")
    parser.add_argument("--seconds", default=600.0, type=float, help="what a run has")
    parser.add_argument("--chunk-tokens", default=150, type=int, help="as RAG_CHUNK_TOKENS")
    asked = parser.parse_args()
    wanted = [("jsonl", count) for count in asked.jsonl] + [("pdf", count) for count in asked.pdf]
    directory = Path(tempfile.mkdtemp(prefix="rag-benchmark-"))
    directory.chmod(0o711)
    try:
        with server(directory) as started:
            place = product.prepared(started, DIMENSIONS, 10_000)
            spawn = multiprocessing.get_context("spawn")
            print(
                f"{'document':>12} {'chunks':>9} {'embedded':>9} {'runs':>5} {'seconds':>8} {'last ms/chunk':>13} "
                f"{'MiB':>5} {'parser':>7}"
            )
            for kind, count in wanted:
                path = written(directory, kind, count)
                with spawn.Pool(1) as pool:
                    taken = pool.apply(ingested, (place, path, Size(kind, count, asked.chunk_tokens, asked.seconds)))
                path.unlink()
                name = f"{count} {'MB ' if kind == 'jsonl' else 'p. '}{kind}"
                print(
                    f"{name:>12} {taken.chunks:>9,} {taken.embedded:>9,} {taken.runs:>5} {taken.seconds:>8.0f} "
                    f"{taken.store_ms:>13.2f} "
                    f"{taken.ingest_peak:>5} {taken.parser_peak:>7}",
                    flush=True,
                )
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
