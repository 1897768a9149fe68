"""What is asked of every contestant, and which there are."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from tests.benchmarks.store.corpus import Corpus, Question

if TYPE_CHECKING:
    from tests.benchmarks.store.server import Server

Kind: TypeAlias = Literal["dense", "hybrid", "dense 1 %", "hybrid 1 %"]
KINDS: tuple[Kind, ...] = ("dense", "hybrid", "dense 1 %", "hybrid 1 %")

M, EF_CONSTRUCTION = 16, 64


@dataclass(frozen=True, slots=True)
class Place:
    """Where a contestant keeps its rows: URLs by role, and what else it must know to find them again."""

    urls: dict[str, str]
    dimensions: int
    index_chunks: int
    tenant: str = ""


class Contestant(Protocol):
    """Lives in a process of its own, with one client's connections; chunks are named by their numbers."""

    kinds: tuple[Kind, ...]

    def add(self, corpus: Corpus, chunks: range) -> None:
        """Store whole documents, searchable when this returns."""

    def index(self) -> None:
        """Bring what was added to a new collection to where it is searched by index, as far as that is not done."""

    def ask(self, kind: Kind, question: Question) -> Any:
        """The ten best passages with their text, as the contestant gives them."""

    def numbers(self, answer: Any) -> Sequence[int]:
        """The chunks of an answer, best first."""

    def close(self) -> None:
        """End the connections."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A contestant by name: its module here has `made(place)`, `prepared(server, …)` makes its database."""

    name: str
    module: str
    needs: str | None = None

    def made(self, place: Place) -> Contestant:
        contestant: Contestant = self._module().made(place)
        return contestant

    def prepared(self, server: Server, dimensions: int, index_chunks: int) -> Place:
        prepare: Callable[[Server, int, int], Place] | None = getattr(self._module(), "prepared", None)
        if prepare is not None:
            return prepare(server, dimensions, index_chunks)
        return Place({"owner": server.database(self.database)}, dimensions, index_chunks)

    @property
    def database(self) -> str:
        return self.module if self.module != "product" else "rag"

    @property
    def installed(self) -> bool:
        return self.needs is None or importlib.util.find_spec(self.needs) is not None

    def _module(self) -> Any:
        return importlib.import_module(f"tests.benchmarks.store.{self.module}")


LIMIT, PRODUCT = Entry("limit", "limit"), Entry("product", "product")
PEERS = (
    Entry("langchain-postgres", "langchain_peer", "langchain_postgres"),
    Entry("llama-index", "llama_index_peer", "llama_index"),
    Entry("haystack", "haystack_peer", "haystack_integrations"),
)
