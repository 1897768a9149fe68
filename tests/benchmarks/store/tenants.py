"""Two hundred tenants of very different sizes in one database: does each find all that is its own, and nothing else?

    python -m tests.benchmarks.store.tenants [--chunks 100000] [--json]

starts a PostgreSQL of its own in a temporary directory, loads the tenants' documents in mixed order, has the product's
maintenance index the large ones, asks a sample of every class of size, stops it. What the figures mean stands in
docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rag.deadline import Deadline
from rag.settings import Settings
from rag.store.maintenance import IndexMaintenance
from rag.types import Scope
from tests.benchmarks.store import synthetic
from tests.benchmarks.store.__main__ import _machine, say
from tests.benchmarks.store.asking import Asking, Kind, Series, timed
from tests.benchmarks.store.bulk import Bulk, Document, Place
from tests.benchmarks.store.corpus import SEED, Question
from tests.benchmarks.store.exact import Answer, Exact
from tests.benchmarks.store.report import _table
from tests.benchmarks.store.server import OWNER, PRODUCT, Server, server
from tests.benchmarks.store.workspace import printed, workspace

JSON = dict[str, Any]
LARGEST, SMALLEST = 0.17, 0.0006  # shares of all chunks
SMALL_TENANTS = 0.6  # share of all tenants
CHUNKS_PER_DOCUMENT = 5
TAGGED = 0.01  # share of a tenant's documents; one at least

KINDS: dict[str, Kind] = {
    f"{mode}{' 1 %' if filtered else ''}": (mode, filtered)
    for filtered in (False, True)
    for mode in ("dense", "lexical", "hybrid")
}
IN_A_ROW, WARM_UP = 5, 5
# What is aimed at where a collection is indexed; below the threshold recall is 1. Lists are short nowhere.
LEAST_RECALL, MOST_LOSS = 0.98, 0.003


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant's chunks by their numbers, and its documents."""

    number: int
    place: range
    documents: list[Document]

    @property
    def tagged(self) -> list[int]:
        """The chunks that the filter lets through."""
        return [chunk for one in self.documents if one.tagged for chunk in range(one.start, one.stop)]


@dataclass(frozen=True, slots=True)
class Examined:
    """A tenant of the sample with its questions, those with the filter apart, as their answers are."""

    tenant: Tenant
    title: str
    questions: dict[bool, list[Question]]


def sizes(chunks: int, tenants: int) -> list[int]:
    """How many chunks each tenant has, largest first; `chunks` in all, but for rounding.

    The first has 17 %, the last 60 % of them 0.06 % each, and those between follow a power law whose exponent is what
    the sum leaves, cut at 90, 80, 70, 60 and then 50 % of the largest.
    """
    largest, smallest = round(LARGEST * chunks), max(round(SMALLEST * chunks), 1)
    small = round(SMALL_TENANTS * tenants)
    ranks = np.arange(1, tenants - small)

    def between(exponent: float) -> list[int]:
        law = smallest * (len(ranks) / ranks) ** exponent
        return [int(size) for size in np.minimum(law, largest * np.maximum(1 - 0.1 * ranks, 0.5))]

    low, high = 0.0, 8.0
    for _ in range(50):
        middle = (low + high) / 2
        enough = largest + sum(between(middle)) + small * smallest >= chunks
        low, high = (low, middle) if enough else (middle, high)
    return [largest, *between(high), *[smallest] * small]


def portioned(chunks: int, tenants: int) -> list[Tenant]:
    """The tenants with their numbers of chunks and documents, one tenant after the other."""
    random = np.random.default_rng([SEED, chunks, tenants])
    made: list[Tenant] = []
    first, document = 0, 0
    for number, size in enumerate(sizes(chunks, tenants)):
        starts = range(first, first + size, CHUNKS_PER_DOCUMENT)
        chosen = set(random.choice(len(starts), max(round(TAGGED * len(starts)), 1), replace=False).tolist())
        documents = [
            Document(document + n, start, min(start + CHUNKS_PER_DOCUMENT, first + size), n in chosen)
            for n, start in enumerate(starts)
        ]
        made.append(Tenant(number, range(first, first + size), documents))
        first, document = first + size, document + len(starts)
    return made


def classes(threshold: int) -> dict[str, range]:
    """Title → sizes, the smallest first; only the last is indexed."""
    bounds = [1, 101, 1_001, threshold + 1]
    exact = {f"≤ {stop - 1:,}": range(start, stop) for start, stop in itertools.pairwise(bounds)}
    return {**exact, f"> {threshold:,}": range(threshold + 1, 2**31)}


def sample(tenants: Sequence[Tenant], threshold: int, each: int) -> list[tuple[str, Tenant]]:
    """Up to `each` tenants of every class of size, spread over it."""
    chosen: list[tuple[str, Tenant]] = []
    for title, bounds in classes(threshold).items():
        inside = [tenant for tenant in tenants if len(tenant.place) in bounds]
        places = np.linspace(0, len(inside) - 1, min(each, len(inside))).round().astype(int)
        chosen += [(title, inside[place]) for place in places]
    return chosen


def run(directory: Path, options: argparse.Namespace) -> JSON:
    """Everything that is measured, as JSON."""
    tenants = portioned(options.chunks, options.tenants)
    say(f"making {tenants[-1].place.stop:,} texts and vectors")
    corpus = synthetic.generate(tenants[-1].place.stop, options.dimensions, directory)
    examined = [
        Examined(tenant, title, _questions(corpus, tenant, options.queries))
        for title, tenant in sample(tenants, options.index_chunks, options.sample)
    ]
    exact = Exact(corpus, [question for one in examined for asked in one.questions.values() for question in asked])
    result: JSON = {"machine": _machine(), "settings": _settings(options), "tenants": _shape(tenants, options)}
    with server(directory) as started:
        places = _load(started, corpus, tenants, exact)
        result["indexed"] = _index(started, options)
        say(f"asking {len(examined)} tenants")
        asking = Asking(started.url("rag_query", PRODUCT), corpus.dimensions)
        try:
            result["classes"] = _ask(asking, exact, examined, places)
        finally:
            asking.close()
    return result


def _questions(corpus: synthetic.Synthetic, tenant: Tenant, count: int) -> dict[bool, list[Question]]:
    random = np.random.default_rng([SEED, tenant.number])
    chunks = {False: list(tenant.place), True: tenant.tagged}
    return {
        filtered: corpus.questions(map(int, random.choice(among, count, replace=count > len(among))), tenant.number)
        for filtered, among in chunks.items()
    }


def _load(started: Server, corpus: synthetic.Synthetic, tenants: Sequence[Tenant], exact: Exact) -> list[Place]:
    bulk = Bulk(started, corpus.dimensions)
    try:
        places = bulk.tenants(f"tenant {tenant.number}" for tenant in tenants)
        rows = [(place, one) for place, tenant in zip(places, tenants, strict=True) for one in tenant.documents]
        say(f"loading {len(rows):,} documents of {len(tenants)} tenants")
        order = np.random.default_rng(SEED).permutation(len(rows))
        bulk.load(corpus, (rows[n] for n in order), exact.observe)
    finally:
        bulk.close()
    return places


def _index(started: Server, options: argparse.Namespace) -> int:
    """How many indexes were made."""
    say("indexing")
    owner = started.url(OWNER, PRODUCT)
    made = IndexMaintenance(owner, str, threshold=options.index_chunks, memory_mib=Settings().index_memory_mib)
    changes = made.run(Deadline.after(3600))
    started.vacuum(PRODUCT)
    return len(changes)


def _ask(asking: Asking, exact: Exact, examined: Sequence[Examined], places: Sequence[Place]) -> JSON:
    """Class → kind → figures; a few questions of every tenant in turn, so that no class has a quieter hour."""
    series = {one.title: {name: Series() for name in KINDS} for one in examined}
    answers = [_answers(exact, one) for one in examined]
    for first in range(0, len(examined[0].questions[False]), IN_A_ROW):
        for one, known in zip(examined, answers, strict=True):
            for name, kind in KINDS.items():
                _ask_some(asking, one, known, places, kind, first, series[one.title][name])
    return {
        title: {"tenants": sum(one.title == title for one in examined)}
        | {name: each.summary() for name, each in kinds.items()}
        for title, kinds in series.items()
    }


def _ask_some(
    asking: Asking,
    one: Examined,
    known: Mapping[bool, Sequence[Answer]],
    places: Sequence[Place],
    kind: Kind,
    first: int,
    series: Series,
) -> None:
    tenant = places[one.tenant.number].tenant
    questions, answers = one.questions[kind[1]], known[kind[1]]
    if first == 0:
        for question in questions[-WARM_UP:]:
            asking.ask(Scope(tenant), question, kind[0], filtered=kind[1])
    rows = slice(first, first + IN_A_ROW)
    for question, answer in zip(questions[rows], answers[rows], strict=True):
        series.add(*timed(asking, tenant, question, answer, kind, one.tenant.place))


def _answers(exact: Exact, one: Examined) -> dict[bool, list[Answer]]:
    place = one.tenant.place
    document = {chunk: each.number for each in one.tenant.documents for chunk in range(each.start, each.stop)}
    allowed = np.array(one.tenant.tagged, dtype=np.int64)
    return {
        False: exact.answers(one.questions[False], place, document),
        True: exact.answers(one.questions[True], place, document, allowed),
    }


def _settings(options: argparse.Namespace) -> JSON:
    names = ("chunks", "tenants", "dimensions", "queries", "sample", "index_chunks")
    return {name: getattr(options, name) for name in names} | {"seed": SEED}


def _shape(tenants: Sequence[Tenant], options: argparse.Namespace) -> JSON:
    every = [len(tenant.place) for tenant in tenants]
    return {
        "chunks": sum(every),
        "largest": every[:5],
        "median": int(np.median(every)),
        "classes": {
            title: sum(size in bounds for size in every) for title, bounds in classes(options.index_chunks).items()
        },
    }


def report(result: JSON) -> str:
    """A table, then the aims that were missed."""
    shape = result["tenants"]
    largest = ", ".join(f"{size:,}" for size in shape["largest"])
    table = _table(
        f"{shape['chunks']:,} chunks, largest {largest}, median {shape['median']}; {result['indexed']} indexes",
        ("size", "asked", "p50 ms", "p95", "exact", "nDCG@10", "of exact", "short", "foreign"),
    )
    for title, kinds in result["classes"].items():
        for name in KINDS:
            one = kinds[name]
            times = (f"{one[key]:.1f}" for key in ("p50", "p95"))
            figures = (f"{one[key]:.4f}" for key in ("overlap", "ndcg", "ndcg_exact"))
            table.add_row(name, title, f"{one['questions']}", *times, *figures, f"{one['short']}", f"{one['foreign']}")
        table.add_section()
    return "\n".join([printed(table), *(list(misses(result)) or ["every aim is met"])])


def misses(result: JSON) -> Iterator[str]:
    """The aims that were not met."""
    *_, indexed = classes(result["settings"]["index_chunks"])
    for title, kinds in result["classes"].items():
        for name in KINDS:
            one, place = kinds[name], f"{title}, {name}"
            if one["short"] or one["foreign"]:
                yield f"{place}: {one['short']} short lists, {one['foreign']} rows of others"
            if name.startswith("dense") and one["overlap"] < (LEAST_RECALL if title == indexed else 1.0):
                yield f"{place}: recall {one['overlap']}"
            if name.startswith("lexical") and one["ndcg_exact"] - one["ndcg"] > MOST_LOSS:
                yield f"{place}: nDCG@10 {one['ndcg']}, exact {one['ndcg_exact']}"


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.store.tenants", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--chunks", type=int, default=100_000, help="of all tenants together (default 100000)")
    parser.add_argument("--tenants", type=int, default=200, help="how many (default 200)")
    parser.add_argument("--dimensions", type=int, default=384, help="width of the vectors (default 384)")
    parser.add_argument("--sample", type=int, default=8, help="tenants asked of each class of size (default 8)")
    parser.add_argument("--queries", type=int, default=40, help="questions to each, as many with a filter (default 40)")
    parser.add_argument(
        "--index-chunks", type=int, default=Settings().index_chunks, help="RAG_INDEX_CHUNKS (default %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON only")
    return parser.parse_args(arguments)


def main() -> None:
    chosen = options()
    began = time.monotonic()
    with workspace() as directory:
        result = run(directory, chosen)
    result["seconds"] = round(time.monotonic() - began, 1)
    print(json.dumps(result, indent=2) if chosen.json else report(result), flush=True)


if __name__ == "__main__":
    main()
