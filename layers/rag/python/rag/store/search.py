"""What a question reads: both legs and the passages' text, from one snapshot."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pgvector import HalfVector, SparseVector

from rag import lexical
from rag.store.collections import DEFAULT_LANGUAGE, existing_collection, searched_collection
from rag.store.filters import parameters
from rag.types import Candidate, Collection, EmbeddingSpace, Filters, Hit, Mode, Whereabouts

if TYPE_CHECKING:
    import uuid

    from rag.store.database import Database, Transaction
    from rag.types import Vector

# As many chunks as are looked at one by one rather than by index.
EXACT_CHUNKS = 10_000
# As many chunks as the lexical leg of a large collection looks at.
LEXICAL_BUDGET = 2_000

# As many candidates as bring their passages along.
PASSAGES_AT_ONCE = 40
REMEMBERED_LANGUAGES = 10_000

# (candidates, what else their snapshot can tell) → the best of them with their scores, best first.
Ranking = Callable[[Sequence[Candidate], "Snapshot"], Sequence[tuple[Candidate, float]]]
# (collection, chunk count) → what the lexical leg needs to ask and to answer.
Weighing = Callable[[Mapping[int, int], int], Mapping[int, float]]


@dataclass(frozen=True, slots=True)
class SearchStore:
    """Reads as the role rag_query, which can write neither documents nor chunks."""

    database: Database
    space: EmbeddingSpace
    # So that a question's lexemes are known before its collection is: one round trip less.
    _languages: dict[tuple[uuid.UUID, str], str] = field(default_factory=dict, repr=False, compare=False)

    def search(
        self,
        tenant_id: uuid.UUID,
        collection: str,
        *,
        embedding: Vector | None,
        lexemes: Callable[[str], Sequence[int]],
        weigh: Weighing,
        rank: Ranking,
        mode: Mode,
        filters: Filters,
        depth: int,
    ) -> tuple[list[Hit], str]:
        """Return hits, best first, and the collection's language; each leg gives its `depth` best chunks to `rank`.

        `lexemes` gets the collection's language, `weigh` each lexeme's chunk frequency and the number of chunks.
        NotFoundError when there is no such collection.
        """

        def work(transaction: Transaction) -> tuple[list[Hit], str]:
            if mode == "dense":
                place = existing_collection(transaction, self.space, collection)
                question, frequencies = dict[int, float](), dict[int, int]()
            else:
                place, question, frequencies = self._weighed(transaction, collection, lexemes, weigh)
            ask = _Ask(transaction, place, embedding if mode != "lexical" else None, question, filters, depth)
            found = ask.found(frequencies)
            ranked = rank([candidate for candidate, _ in found], Snapshot(ask))
            return _hits(transaction, place, ranked, found), place.language

        return self.database.read(tenant_id, work)

    def _weighed(
        self, transaction: Transaction, name: str, lexemes: Callable[[str], Sequence[int]], weigh: Weighing
    ) -> tuple[Collection, dict[int, float], dict[int, int]]:
        """The collection, the question's weights in it, and in how many of its chunks each lexeme stands.

        In one round trip where the collection's language is known; it never changes, but a collection may be made anew.
        """
        place = transaction.tenant_id, name
        known = self._languages.get(place, DEFAULT_LANGUAGE)
        found, chunk_count, frequencies = searched_collection(transaction, self.space, name, lexemes(known))
        if found.language != known:
            wanted = lexemes(found.language)
            found, chunk_count, frequencies = searched_collection(transaction, self.space, name, wanted)
        if len(self._languages) >= REMEMBERED_LANGUAGES:
            self._languages.clear()
        self._languages[place] = found.language
        return found, dict(weigh(frequencies, chunk_count)), frequencies


# What a passage has beside its candidate: key, title, page, heading, position, content.
Passage = tuple[str, str | None, int | None, str | None, int, str]
# A candidate, with its passage where the two were read together.
Found = list[tuple[Candidate, Passage | None]]


@dataclass(frozen=True, slots=True)
class _Ask:
    """One question to one collection; a leg without its part of the question is not asked."""

    transaction: Transaction
    collection: Collection
    embedding: Vector | None
    question: Mapping[int, float]
    filters: Filters
    depth: int

    def found(self, frequencies: Mapping[int, int]) -> Found:
        """By the collection's indexes, where it has them and enough is found by them; else exactly."""
        if not self.collection.indexed:
            return self._rows(self.filters)
        matching, few = self._matching() if self.filters.any else (self.depth, None)
        if few is not None:
            return self._rows(Filters(), within=few)
        rare = rarest(frequencies, LEXICAL_BUDGET, least=self.depth)
        found = self._rows(self.filters, rare=rare)
        seen_all = self.embedding is None and len(rare) == len(frequencies)
        if len(found) < min(matching, self.depth) and not seen_all:
            return self._rows(self.filters)
        return found

    def _matching(self) -> tuple[int, list[uuid.UUID] | None]:
        """How many chunks the filters let through; where these are few enough to be looked at, of which documents."""
        [(matching, few)] = self.transaction.rows(
            "filtered_chunks",
            binary=True,
            collection=self.collection.id,
            most=EXACT_CHUNKS,
            **parameters(self.filters),
        )
        return matching, few if matching else []

    def _rows(self, filters: Filters, *, within: list[uuid.UUID] | None = None, rare: list[int] | None = None) -> Found:
        """By index when the question's `rare` lexemes are given, else exactly, only `within` these documents if given.

        Few rows bring their passages along: that is cheaper than to come back for them.
        """
        given = {
            "dense": self.embedding is not None,
            "lexical": bool(self.question),
            "filtered": filters.any,
            "within": within is not None,
            "passages": self.depth <= PASSAGES_AT_ONCE,
        }
        parts = frozenset(part for part, there in given.items() if there)
        if not parts & {"dense", "lexical"}:
            return []
        asked = {"limit": self.depth, "within": within, "rare": rare, **self.parameters, **parameters(filters)}
        if rare is None:
            rows = self.transaction.rows("exact_candidates", binary=True, parts=parts, **asked)
        else:
            width = self.collection.dimensions
            rows = self.transaction.rows("indexed_candidates", binary=True, parts=parts, width=width, **asked)
        return [(Candidate(*row[:5]), row[5:] or None) for row in rows]

    @property
    def parameters(self) -> dict[str, Any]:
        """Of the statements that score: where, and the two parts of the question."""
        return {
            "collection": self.collection.id,
            "space": self.collection.space_id,
            "embedding": HalfVector(self.embedding.tolist()) if self.embedding is not None else None,
            "question": sparse(self.question),
        }


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a ranking may still read, in the transaction that its candidates come from; a statement or two each."""

    _ask: _Ask

    def vectors(self, chunks: Sequence[uuid.UUID]) -> dict[uuid.UUID, Vector]:
        """The chunks' embeddings in the collection's space, in half precision."""
        ask = self._ask
        rows = ask.transaction.rows(
            "candidate_embeddings", binary=True, space=ask.collection.space_id, chunks=list(chunks)
        )
        return {chunk: array("f", HalfVector.from_binary(halves).to_list()) for chunk, halves in rows}

    def keys(self, documents: Sequence[uuid.UUID]) -> dict[uuid.UUID, str]:
        """The documents' keys."""
        return dict(self._ask.transaction.rows("document_keys", documents=list(documents)))

    def whereabouts(self, document: uuid.UUID) -> Whereabouts | None:
        """Where this search could have seen the document; None for an absent and for a foreign one alike."""
        ask = self._ask
        place = {"document": document, **ask.parameters}
        found = ask.transaction.rows("whereabouts", **place, **parameters(ask.filters))
        if not found:
            return None
        legs: dict[str, Any] = {"dense": ask.embedding is not None, "lexical": bool(ask.question)}
        best = ask.transaction.rows("best_of_document", binary=True, **place, **legs)
        [(status, error_code, in_collection, in_filters)] = found
        chunks = tuple(Candidate(*row) for row in best)
        return Whereabouts(document, status, error_code, in_collection, in_filters, chunks)


def rarest(frequencies: Mapping[int, int], budget: int, *, least: int) -> list[int]:
    """The lexemes that tell most, rarest first, as long as they stand in no more than `budget` chunks together.

    As many at least as it takes to stand in `least` chunks: a shorter list would be filled by looking at every chunk,
    for a second at a million. Measured on 32,686 passages: nDCG@10 0.601 with 2,000, exact 0.602 (docs/decisions/0007).
    """
    chosen: list[int] = []
    reached = 0
    for lexeme, frequency in sorted(frequencies.items(), key=lambda pair: (pair[1], pair[0])):
        if reached >= least and reached + frequency > budget:
            break
        reached += frequency
        chosen.append(lexeme)
    return chosen


def _hits(
    transaction: Transaction, collection: Collection, ranked: Sequence[tuple[Candidate, float]], found: Found
) -> list[Hit]:
    """With the passages that were read along, or are read now."""
    passages = {candidate.chunk_id: passage for candidate, passage in found if passage}
    if ranked and not passages:
        rows = transaction.last_rows("passages", chunks=[candidate.chunk_id for candidate, _ in ranked])
        passages = {row[0]: row[1:] for row in rows}
    return [
        _hit(collection.name, candidate, score, *passages[candidate.chunk_id])
        for candidate, score in ranked
        if candidate.chunk_id in passages
    ]


def _hit(  # one argument per column
    collection: str,
    candidate: Candidate,
    score: float,
    key: str,
    title: str | None,
    page: int | None,
    heading: str | None,
    position: int,
    content: str,
) -> Hit:
    return Hit(
        chunk_id=candidate.chunk_id,
        document_id=candidate.document_id,
        collection=collection,
        key=key,
        title=title,
        page=page,
        heading=heading,
        position=position,
        content=content,
        content_hash=candidate.content_hash,
        score=score,
        cosine=candidate.cosine,
        bm25=candidate.bm25,
    )


def sparse(weights: Mapping[int, float]) -> SparseVector:
    """Lexeme id (1 … 10⁹) → weight, as pgvector has it; its own indices begin at 0 here and at 1 in SQL."""
    return SparseVector({lexeme - 1: weight for lexeme, weight in weights.items()}, lexical.DIMENSIONS)
