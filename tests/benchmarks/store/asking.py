"""Questions through the product's store, as the role that searches."""

from __future__ import annotations

import time
import uuid
from array import array
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any, TypeAlias

from rag import searching
from rag.store.database import Database
from rag.store.search import SearchStore
from rag.types import Condition, EmbeddingSpace, Filters, Hit, Mode, Scope
from tests.benchmarks.store.bulk import number
from tests.benchmarks.store.corpus import FIELD, TAG, Question
from tests.benchmarks.store.exact import Answer
from tests.benchmarks.store.product import MODEL

JSON = dict[str, Any]
Kind: TypeAlias = tuple[Mode, bool]  # whether the filter to 1 % is on
FILTER = Filters((Condition(FIELD, "eq", TAG),))


class Asking:
    """One function's connection, made on first use."""

    def __init__(self, url: str, dimensions: int) -> None:
        self._database = Database(url, str)
        self._store = SearchStore(self._database, EmbeddingSpace(MODEL, dimensions))

    def close(self) -> None:
        self._database.close()

    def ask(self, scope: Scope, question: Question, mode: Mode, *, filtered: bool) -> list[Hit]:
        """As `searching.search` does once it has the vector."""
        wanted = searching.Question(scope, question.text, mode=mode, filters=FILTER if filtered else Filters())
        asked, selection = searching.Asked(question.text), searching.Selection(wanted, mode)
        return self._store.search(
            wanted.scope,
            wanted.collection,
            embedding=array("f", question.vector.tobytes()) if mode != "lexical" else None,
            lexemes=asked.lexemes,
            rank=selection.rank,
            mode=mode,
            filters=wanted.filters,
            depth=selection.depth,
            shown=selection.shown,
            reads_more=selection.reads_more,
        ).hits


@dataclass(slots=True)
class Series:
    """What one kind of question took, and how good its answers were."""

    milliseconds: list[float] = field(default_factory=list)
    _figures: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, milliseconds: float, figures: Mapping[str, float]) -> None:
        self.milliseconds.append(milliseconds)
        for name, value in figures.items():
            self._figures[name].append(value)

    def summary(self) -> JSON:
        """p50, p95 and the longest in milliseconds; counts of short lists and foreign rows; means of the rest."""
        sums = {name: sum(values) for name, values in self._figures.items()}
        count = len(self.milliseconds)
        return {
            "questions": count,
            "p50": round(median(self.milliseconds), 2),
            "p95": round(quantiles(self.milliseconds, n=20)[-1], 2),
            "longest": round(max(self.milliseconds), 2),
            **{
                name: int(value) if name in {"short", "foreign"} else round(value / count, 4)
                for name, value in sums.items()
            },
        }


def timed(
    asking: Asking, tenant: uuid.UUID, question: Question, answer: Answer, kind: Kind, place: range
) -> tuple[float, dict[str, float]]:
    """Milliseconds, and the figures of the answer; `foreign` counts hits that are not in `place`."""
    mode, filtered = kind
    started = time.perf_counter()
    hits = asking.ask(Scope(tenant), question, mode, filtered=filtered)
    milliseconds = (time.perf_counter() - started) * 1000
    listed: Sequence[int] = [number(hit.chunk_id) for hit in hits]
    return milliseconds, {**answer.found(mode, listed), "foreign": float(sum(n not in place for n in listed))}
