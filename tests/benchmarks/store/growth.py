"""One collection that grows: what a question costs and what it finds, from ten thousand chunks to a million.

    python -m tests.benchmarks.store.growth [--sizes 10000,30000,100000,300000,1000000] [--json] [--plot growth.png]

starts a PostgreSQL of its own in a temporary directory, loads one collection further and further, has the product's
maintenance index it at each size, asks, stops it. A million chunks take about 8 GB of disk. What the figures mean
stands in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from rag.deadline import Deadline
from rag.settings import Settings
from rag.store.maintenance import LEXEMES, VECTORS, IndexMaintenance
from rag.types import Scope
from tests.benchmarks.store import synthetic
from tests.benchmarks.store.__main__ import _load, _machine, _numbers, _picture, say
from tests.benchmarks.store.asking import Asking, Kind, Series, timed
from tests.benchmarks.store.bulk import Bulk, Document, Place
from tests.benchmarks.store.corpus import CHUNKS_PER_DOCUMENT, SEED, Question, document_of, tagged
from tests.benchmarks.store.exact import Answer, Exact
from tests.benchmarks.store.report import _table
from tests.benchmarks.store.server import OWNER, PRODUCT, Server, server
from tests.benchmarks.store.workspace import printed, workspace

JSON = dict[str, Any]
KINDS: dict[str, Kind] = {
    "dense": ("dense", False),
    "hybrid": ("hybrid", False),
    "lexical": ("lexical", False),
    "dense 1 %": ("dense", True),
    "hybrid 1 %": ("hybrid", True),
}
SIZES = [10_000, 30_000, 100_000, 300_000, 1_000_000]
IN_A_ROW, WARM_UP = 10, 20
# What is aimed at: cost at the largest size by cost at the smallest, and the recall of the dense leg at each.
MOST_GROWTH, LEAST_RECALL = 3.0, 0.95

_INDEXES = """
    select relname::text, pg_relation_size(oid) from pg_class where relname ~ %s and relkind = 'i'
"""
_TABLES = "select c, pg_table_size(c::regclass) from unnest(array['chunks', 'embeddings']) as c"
_WORKERS = psycopg.sql.SQL("alter database rag set max_parallel_maintenance_workers = {}")
_OWN_INDEX = f"^({VECTORS}|{LEXEMES})[0-9]+$"


class Growing:
    """The collection in one server, at the size it has got to."""

    def __init__(self, started: Server, corpus: synthetic.Synthetic, options: argparse.Namespace) -> None:
        self._server = started
        self._corpus = corpus
        self._options = options
        self._questions = {size: _questions(corpus, size, options.queries) for size in options.sizes}
        self.bulk = Bulk(started, corpus.dimensions)
        self.exact = Exact(corpus, [question for asked in self._questions.values() for question in asked])
        self.bulk.connection.execute(_WORKERS.format(psycopg.sql.Literal(options.workers)))
        # The second one stays as small as the first one was, and is asked beside it: whatever else the machine does
        # hits both.
        self.place, self._small = self.bulk.tenants(["growing", "small"])
        self._least = min(options.sizes)
        self.bulk.load(corpus, _documents(self._small, self._least), lambda *_: None)
        self.asking = Asking(started.url("rag_query", PRODUCT), corpus.dimensions)
        self._answers: dict[bool, list[Answer]] = {}

    def close(self) -> None:
        self.asking.close()
        self.bulk.close()

    def grow(self, size: int) -> JSON:
        """Load what is missing, index it, ask."""
        title = f"{size:,}"
        say(f"{title}: loading")
        began = time.perf_counter()
        self._drop_indexes()
        self.bulk.load(self._corpus, _documents(self.place, size), self.exact.observe)
        loading = time.perf_counter() - began
        say(f"{title}: loaded in {loading:.0f} s; indexing")
        building = self._index()
        self._server.vacuum(PRODUCT)
        say(f"{title}: indexed in {building}; computing the exact answers")
        questions = self._questions[size]
        answers = self._exact_of_least() if size == self._least else self.answers(size)
        say(f"{title}: asking {len(questions)} questions of {len(KINDS)} kinds")
        return {
            "chunks": size,
            "load": _load(),
            "load_seconds": round(loading, 1),
            "index_seconds": building,
            "bytes": self._bytes(),
            **self.ask(questions, answers, size),
        }

    def questions(self, size: int) -> list[Question]:
        """Their chunks are among the first `size`."""
        return self._questions[size]

    def answers(self, size: int) -> dict[bool, list[Answer]]:
        """The exact ones of that size, without and with the filter."""
        place = range(size)
        document = _Documents()
        allowed = np.array([chunk for chunk in place if tagged(chunk)], dtype=np.int64)
        asked = self._questions[size]
        return {
            False: self.exact.answers(asked, place, document),
            True: self.exact.answers(asked, place, document, allowed),
        }

    def ask(self, questions: Sequence[Question], answers: Mapping[bool, Sequence[Answer]], size: int) -> JSON:
        """Every kind in turn, ten in a row, of this collection and of the small one beside it."""
        series = {name: Series() for name in KINDS}
        beside = {name: Series() for name in KINDS}
        before, exact = self._questions[self._least], self._exact_of_least()
        for kind in KINDS.values():
            for asked, place in ((questions, self.place), (before, self._small)):
                for question in asked[-WARM_UP:]:
                    self.asking.ask(Scope(place.tenant), question, kind[0], filtered=kind[1])
        for start in range(0, len(questions), IN_A_ROW):
            rows = slice(start, start + IN_A_ROW)
            for name, kind in KINDS.items():
                for question, answer in zip(questions[rows], answers[kind[1]][rows], strict=True):
                    series[name].add(*timed(self.asking, self.place.tenant, question, answer, kind, range(size)))
                for question, answer in zip(before[rows], exact[kind[1]][rows], strict=True):
                    beside[name].add(
                        *timed(self.asking, self._small.tenant, question, answer, kind, range(self._least))
                    )
        return {
            "queries": {name: one.summary() for name, one in series.items()},
            "beside": {name: one.summary() for name, one in beside.items()},
        }

    def _exact_of_least(self) -> dict[bool, list[Answer]]:
        if not self._answers:
            self._answers = self.answers(self._least)
        return self._answers

    def _index(self) -> dict[str, float]:
        """Seconds by index; none below the threshold."""
        made = IndexMaintenance(
            self._server.url(OWNER, PRODUCT),
            str,
            threshold=self._options.index_chunks,
            memory_mib=self._options.memory_mib,
        )
        seconds: dict[str, float] = {}
        with made.alone() as connection:
            assert connection is not None
            began = time.perf_counter()
            for change in made.changes(connection, Deadline.after(6 * 3600)):
                seconds[_kind_of(change.name)] = round(time.perf_counter() - began, 1)
                began = time.perf_counter()
        return seconds

    def _drop_indexes(self) -> None:
        for name, _ in self.bulk.connection.execute(_INDEXES, [_OWN_INDEX]).fetchall():
            self.bulk.connection.execute(psycopg.sql.SQL("drop index {}").format(psycopg.sql.Identifier(name)))

    def _bytes(self) -> dict[str, int]:
        indexes = self.bulk.connection.execute(_INDEXES, [_OWN_INDEX]).fetchall()
        return dict(self.bulk.connection.execute(_TABLES).fetchall()) | {_kind_of(name): size for name, size in indexes}


class _Documents(dict[int, int]):
    def __missing__(self, chunk: int) -> int:
        return document_of(chunk)


def _kind_of(index: str) -> str:
    return "vectors" if index.startswith(VECTORS) else "lexemes"


def _questions(corpus: synthetic.Synthetic, size: int, count: int) -> list[Question]:
    known = np.random.default_rng([SEED, size]).choice(size, size=count, replace=count > size)
    return corpus.questions(map(int, known), seed=size)


def _documents(place: Place, size: int) -> Iterator[tuple[Place, Document]]:
    for start in range(place.chunk_count, size, CHUNKS_PER_DOCUMENT):
        yield place, Document(document_of(start), start, min(start + CHUNKS_PER_DOCUMENT, size), tagged(start))


def run(directory: Path, options: argparse.Namespace) -> JSON:
    """Everything that is measured, as JSON."""
    result: JSON = {"machine": _machine(), "settings": _settings(options), "sizes": []}
    say(f"making {max(options.sizes):,} texts and vectors")
    corpus = synthetic.generate(max(options.sizes), options.dimensions, directory)
    with server(directory) as started:
        growing = Growing(started, corpus, options)
        try:
            for size in sorted(options.sizes):
                result["sizes"].append(growing.grow(size))
        finally:
            growing.close()
    return result


def _settings(options: argparse.Namespace) -> JSON:
    return {
        "dimensions": options.dimensions,
        "queries": options.queries,
        "index_chunks": options.index_chunks,
        "memory_mib": options.memory_mib,
        "workers": options.workers,
        "seed": SEED,
    }


def report(result: JSON) -> str:
    """Two tables, then what was aimed at."""
    asked = _table(
        "questions", ("chunks", "p50 ms", "p95", "longest", "small", "exact", "nDCG@10", "of exact", "short")
    )
    made = _table("indexes", ("load s", "vectors s", "lexemes s", "vectors MB", "lexemes MB"))
    for size in result["sizes"]:
        for name, one in size["queries"].items():
            # The chunk that a question knows is seldom one of those that the filter lets through.
            gains = () if KINDS[name][1] else ("ndcg", "ndcg_exact")
            figures = [
                f"{one[key]:.3f}" if key in ("overlap", *gains) else "" for key in ("overlap", "ndcg", "ndcg_exact")
            ]
            times = (f"{one[key]:.1f}" for key in ("p50", "p95", "longest"))
            beside = f"{size['beside'][name]['p50']:.1f}"
            asked.add_row(name, f"{size['chunks']:,}", *times, beside, *figures, f"{one['short']}")
        asked.add_section()
        seconds = (f"{size['index_seconds'].get(name, 0):.1f}" for name in ("vectors", "lexemes"))
        megabytes = (f"{size['bytes'].get(name, 0) / 1e6:.0f}" for name in ("vectors", "lexemes"))
        made.add_row(f"{size['chunks']:,}", f"{size['load_seconds']:.1f}", *seconds, *megabytes)
    return "\n".join([printed(asked, made), *_aims(result["sizes"])])


def _aims(sizes: Sequence[JSON]) -> Iterator[str]:
    last = sizes[-1]
    for name in KINDS:
        grown = last["queries"][name]["p50"] / last["beside"][name]["p50"]
        yield (
            f"{name}: p50 × {grown:.2f} at {last['chunks']:,} of what it is at {sizes[0]['chunks']:,} beside it "
            f"(aim ≤ {MOST_GROWTH:g})"
        )
    recall = min(size["queries"]["dense"]["overlap"] for size in sizes)
    yield f"least recall@10 {recall:.3f} (aim ≥ {LEAST_RECALL:g})"


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.store.growth", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--sizes", type=_numbers, default=SIZES, help="chunks, ascending (default 10000 … 1000000)")
    parser.add_argument("--dimensions", type=int, default=384, help="width of the vectors (default 384)")
    parser.add_argument("--queries", type=int, default=200, help="questions at each size (default 200)")
    parser.add_argument(
        "--index-chunks", type=int, default=Settings().index_chunks, help="RAG_INDEX_CHUNKS (default %(default)s)"
    )
    parser.add_argument("--memory-mib", type=int, default=3_000, help="RAG_INDEX_MEMORY_MIB (default 3000)")
    parser.add_argument("--workers", type=int, default=2, help="processes that help to build (default 2, PostgreSQL's)")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--plot", type=_picture, help="write a picture of cost and recall against size")
    return parser.parse_args(arguments)


def main() -> None:
    chosen = options()
    began = time.monotonic()
    with workspace() as directory:
        result = run(directory, chosen)
    result["seconds"] = round(time.monotonic() - began, 1)
    print(json.dumps(result, indent=2) if chosen.json else report(result), flush=True)
    if chosen.plot:
        from tests.benchmarks.store import growth_plot

        growth_plot.write(result, chosen.plot)


if __name__ == "__main__":
    main()
