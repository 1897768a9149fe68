"""What stands in for parsing and embedding where neither is the matter: as fast as can be, and the same each time."""

from __future__ import annotations

from array import array
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path

from rag.deadline import Deadline
from rag.errors import DocumentError
from rag.ingestion import Limits
from rag.types import EmbeddingSpace, Parsed, Section, Usage, Vector
from tests.fake_model import unit

SPACE = EmbeddingSpace("fake", 4)
# A document of three chunks is large here.
LIMITS = Limits(document_bytes=10_000, chunk_tokens=12, chunk_max_tokens=24, batch_size=1, held_chunks=2)
DAMAGED = b"damaged"


class PlainParser:
    """Text as it stands, a section for each paragraph; some files are damaged."""

    def parse(self, path: Path, name: str, kept: object) -> Parsed:
        read = path.read_bytes()
        if read.startswith(DAMAGED):
            raise DocumentError("CORRUPT", "the file is damaged")
        return Parsed("text/plain", tuple(Section(part) for part in read.decode().split("\n\n")))


class PlainEmbedder:
    def __init__(self) -> None:
        self.used = Usage()

    def require_embedding(self) -> None:
        """There is always one."""

    def embed(self, texts: Sequence[str], deadline: Deadline) -> list[Vector]:
        return [array("f", unit(text, SPACE.dimensions)) for text in texts]

    def embed_each(
        self, batches: Iterable[Sequence[str]], deadline: Deadline
    ) -> Generator[tuple[int, list[Vector]], None, None]:
        yield from ((number, self.embed(batch, deadline)) for number, batch in enumerate(batches))


def count_tokens(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def body(number: int, paragraphs: int) -> bytes:
    """So many chunks, each of which says which version it is of."""
    return "\n\n".join(
        f"Version {number} says in part {part} that the trains of the county went on time in that year."
        for part in range(paragraphs)
    ).encode()
