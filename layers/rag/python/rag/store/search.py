"""What a question reads: both legs and the passages' text, from one snapshot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from pgvector import SparseVector

from rag import lexical
from rag.store.binary import Binary, integers, single_vector, vector
from rag.store.collections import DEFAULT_LANGUAGE, of_this_deployment, searched_collection
from rag.store.filters import parameter
from rag.types import Candidate, Collection, EmbeddingSpace, Filters, Hit, Mode, Retrieved, Scope, Whereabouts

if TYPE_CHECKING:
    import uuid

    from rag.store.database import Database, Row, Transaction
    from rag.types import Vector

# As many chunks as are looked at one by one rather than by index.
EXACT_CHUNKS = 10_000
# As many chunks as the lexical leg of a large collection looks at, at most; and of them for one word alone.
LEXICAL_BUDGET = 2_500
ALONE_BUDGET = 150
# How wide the graph of up to a hundred thousand chunks is searched for the nearest, of a million three eighths
# wider; beside the words less does, which are looked for in more chunks instead.
EF_SEARCH = 100
HYBRID_EF_SEARCH = 90

REMEMBERED_LANGUAGES = 10_000
_EVERY_DOCUMENT, _ANY_NUMBER = "{}", 2**31 - 1

# The columns of a row that say what a candidate is; `Candidate._make` is a call of Python for each.
_CANDIDATE = itemgetter(slice(1, 6))
_MADE = partial(tuple.__new__, Candidate)

# (candidates, what else their snapshot can tell) → the best of them with their scores, best first.
Ranking = Callable[[Sequence[Candidate], "Snapshot"], Sequence[tuple[Candidate, float]]]


class _UnreadError(Exception):
    """A ranking wants what was not read."""


@dataclass(frozen=True, slots=True)
class SearchStore:
    """Reads as the role rag_query, which can write neither documents nor chunks."""

    database: Database
    space: EmbeddingSpace
    # So that a question's lexemes are known before its collection is: one round trip less.
    _languages: dict[tuple[uuid.UUID, str], str] = field(default_factory=dict, repr=False, compare=False)

    def search(
        self,
        scope: Scope,
        collection: str,
        *,
        embedding: Vector | None,
        lexemes: Callable[[str], Mapping[int, int]],
        rank: Ranking,
        mode: Mode,
        filters: Filters,
        depth: int,
        shown: int | None = None,
        reads_more: bool = False,
    ) -> Retrieved:
        """Return hits, best first; each leg gives its `depth` best chunks to `rank`.

        `lexemes` gets the collection's language and says how often the question has each. Passages are read of about
        the best `shown` candidates, all where that is not said; should `rank` choose another, it is asked again with
        all. It may read on in the candidates' snapshot when that is said. NotFoundError when there is no such
        collection.
        """
        asked = Binary(single_vector(embedding)) if embedding is not None and mode != "lexical" else None
        wanted = _Wanted(collection, mode, asked, parameter(filters), depth)
        every = 2 * depth

        def work(transaction: Transaction) -> Retrieved:
            try:
                return self._retrieved(transaction, wanted, lexemes, rank, min(shown or every, every))
            except _UnreadError:
                return self._retrieved(transaction, wanted, lexemes, rank, every)

        # All comes from one statement: only what is read beside it needs a transaction around.
        read = self.database.read if reads_more else self.database.by_statement
        return read(scope, work)

    def _retrieved(
        self,
        transaction: Transaction,
        wanted: _Wanted,
        lexemes: Callable[[str], Mapping[int, int]],
        rank: Ranking,
        shown: int,
    ) -> Retrieved:
        """In one round trip where the collection's language is known; it never changes, but one may be made anew."""
        name = transaction.scope.tenant_id, wanted.collection
        known = self._languages.get(name, DEFAULT_LANGUAGE)
        counts = lexemes(known) if wanted.mode != "dense" else {}
        collection, head, rows = self._rows(transaction, wanted, known, counts, shown)
        if collection.language != known and counts:
            counts = lexemes(collection.language)
            collection, head, rows = self._rows(transaction, wanted, collection.language, counts, shown)
        if len(self._languages) >= REMEMBERED_LANGUAGES:
            self._languages.clear()
        self._languages[name] = collection.language
        candidates = list(map(_MADE, map(_CANDIDATE, rows)))
        if wanted.mode == "dense" and head["collection"]["indexed"] and _all_as_near(candidates, wanted.depth):
            collection, head, rows = self._rows(transaction, replace(wanted, exactly=True), known, counts, shown)
            candidates = list(map(_MADE, map(_CANDIDATE, rows)))
        if not counts and len(rows) == shown < wanted.depth and _repeated(candidates):
            raise _UnreadError
        snapshot = Snapshot(transaction, wanted, collection, head["question"], rows)
        hits = _hits(collection, rank(candidates, snapshot), rows)
        frequencies = dict(zip(counts, head["frequencies"] or (), strict=True)) if counts else {}
        return Retrieved(hits, collection.language, frequencies, head["chunk_count"] or 0)

    def _rows(
        self, transaction: Transaction, wanted: _Wanted, language: str, counts: Mapping[int, int], shown: int
    ) -> tuple[Collection, dict[str, Any], Sequence[Row]]:
        """The collection, what BM25 weighs with, and a row per candidate."""
        dense_alone = wanted.mode == "dense"
        head, rows = searched_collection(
            transaction,
            wanted.collection,
            language=language,
            embedding=wanted.embedding,
            lexemes=integers(counts) if counts else None,
            counts=integers(counts.values()) if counts else None,
            filters=wanted.filters or (_EVERY_DOCUMENT if wanted.exactly else None),
            depth=wanted.depth,
            shown=shown if counts or dense_alone else 2 * wanted.depth,
            exact_chunks=_ANY_NUMBER if wanted.exactly else EXACT_CHUNKS,
            budget=LEXICAL_BUDGET,
            alone=ALONE_BUDGET,
            ef_search=EF_SEARCH if dense_alone else HYBRID_EF_SEARCH,
        )
        return of_this_deployment(self.space, head["collection"].values()), head, rows


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One question to one collection; a leg without its part of the question is not asked."""

    collection: str
    mode: Mode
    embedding: Binary | None
    filters: str | None
    depth: int
    # Read from the collection's beginning to its end, whatever indexes it has.
    exactly: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a ranking may still read, in the transaction that its candidates come from; a statement or two each."""

    _transaction: Transaction
    _wanted: _Wanted
    _collection: Collection
    _question: str | None
    _rows: Sequence[Row]

    def vectors(self, chunks: Sequence[uuid.UUID]) -> dict[uuid.UUID, Vector]:
        """The chunks' embeddings in the collection's space, in half precision."""
        rows = self._transaction.rows(
            "candidate_embeddings", binary=True, space=self._collection.space_id, chunks=list(chunks)
        )
        return {chunk: vector(halves) for chunk, halves in rows}

    def keys(self, documents: Sequence[uuid.UUID]) -> dict[uuid.UUID, str]:
        """The keys of candidates' documents."""
        keys = {row[2]: row[6] for row in self._rows if row[6] is not None}
        if any(document not in keys for document in documents):
            raise _UnreadError
        return {document: keys[document] for document in documents}

    def whereabouts(self, document: uuid.UUID) -> Whereabouts | None:
        """Where this search could have seen the document; None for an absent and for a foreign one alike."""
        asked: dict[str, Any] = {
            "document": document,
            "collection": self._collection.id,
            "space": self._collection.space_id,
            "embedding": self._wanted.embedding,
            "question": self._question,
        }
        found = self._transaction.rows("whereabouts", **asked, filters=self._wanted.filters)
        if not found:
            return None
        legs: dict[str, Any] = {"dense": self._wanted.embedding is not None, "lexical": self._question is not None}
        best = self._transaction.rows("best_of_document", binary=True, **asked, **legs)
        [(status, error_code, in_collection, in_filters)] = found
        chunks = tuple(Candidate(*row) for row in best)
        return Whereabouts(document, status, error_code, in_collection, in_filters, chunks)


def _all_as_near(candidates: Sequence[Candidate], depth: int) -> bool:
    """Whether an index may see nothing but one vector: equal ones have edges to each other, and to no other."""
    return len(candidates) == depth and len({one.cosine for one in candidates}) == 1


def _repeated(candidates: Sequence[Candidate]) -> bool:
    """Whether any text is there twice, which ranking puts behind what there was no room for."""
    return len({one.content_hash for one in candidates}) < len(candidates)


def _hits(collection: Collection, ranked: Sequence[tuple[Candidate, float]], rows: Sequence[Row]) -> list[Hit]:
    read = {row[1].int: row for row in rows}
    return [_hit(collection.name, candidate, score, *read[candidate.chunk_id.int][6:]) for candidate, score in ranked]


def _hit(  # one argument per column
    collection: str,
    candidate: Candidate,
    score: float,
    key: str | None,
    title: str | None,
    page: int | None,
    heading: str | None,
    position: int,
    content: str,
) -> Hit:
    if key is None:
        raise _UnreadError
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
