"""The figures as tables, each beside the limit; the product's ratios beside their targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import StringIO
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tests.benchmarks.store.contestant import KINDS, LIMIT, PRODUCT

JSON = dict[str, Any]
WIDTH = 118
# What the product's figures are to be: title, share, at least or at most (docs/benchmarks.md).
TARGETS: dict[str, tuple[str, float]] = {
    "dense p50 / bare SQL": ("≤", 1.3),
    "hybrid p50 / bare dense SQL": ("≤", 2.5),
    "hybrid QPS at 8 / fastest AND peer": ("≥", 1.3),
    "hybrid QPS at 8 / llama-index (OR)": ("≥", 6.0),
    "added to an indexed collection / COPY": ("≥", 0.85),
    "COPY + CREATE INDEX / loaded and indexed": ("≥", 0.8),
    "best peer / loaded and indexed": ("≥", 1.8),
}


def text(result: JSON) -> str:
    """Everything that was measured: per size the questions, the ingest and the ratios."""
    out = StringIO()
    console = Console(file=out, width=WIDTH)
    machine = result["machine"]
    console.print(
        f"{machine['system']}, {machine['cores']} cores, Python {machine['python']}, "
        f"load {machine['load_before']} before and {machine['load_after']} after; "
        f"{result['settings']['queries']} questions, {result['seconds']} s in all"
    )
    for size in result["sizes"]:
        console.print(_questions(size), _ingest(size), _ratios(size))
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())


def _questions(size: JSON) -> Table:
    table = _table(
        f"questions, {size['chunks']:,} × {size['dimensions']}",
        ("p50 ms", "p95", "/ limit", "QPS at 1", "at 8", "exact", "hit@10", "MRR", "results", "short"),
    )
    for kind in KINDS:
        for name, kinds in size["queries"].items():
            if kind in kinds:
                one, limit = kinds[kind], _limit(size, kind)
                table.add_row(
                    f"{kind}: {name}",
                    f"{one['p50']:.1f}",
                    f"{one['p95']:.1f}",
                    f"{one['p50'] / limit:.2f}",
                    *(f"{one[key]:.0f}" if key in one else "" for key in ("qps_1", "qps_8")),
                    f"{one.get('recall', one.get('overlap')):.3f}",
                    *(f"{one[key]:.3f}" if key in one else "" for key in ("hit", "mrr")),
                    f"{one['results']:.1f}",
                    f"{one['short']:.0f}",
                )
        table.add_section()
    return table


def _ingest(size: JSON) -> Table:
    table = _table(
        f"ingest, {size['chunks']:,} × {size['dimensions']}",
        ("load s", "index s", "rows/s in all", "/ limit", "added rows/s", "/ limit"),
    )
    limit = size["ingest"][LIMIT.name]
    for name, one in size["ingest"].items():
        table.add_row(
            name,
            f"{one['load_seconds']:.1f}",
            f"{one['index_seconds']:.1f}",
            f"{size['chunks'] / _loaded(one):.0f}",
            f"{_loaded(limit) / _loaded(one):.2f}",
            f"{one['added_per_second']:.0f}",
            f"{one['added_per_second'] / limit['added_per_second']:.2f}",
        )
    return table


def _ratios(size: JSON) -> Table:
    table = _table(f"the product, {size['chunks']:,} × {size['dimensions']}", ("measured", "target"))
    for title, ratio in ratios(size):
        sign, target = TARGETS[title]
        table.add_row(title, f"{ratio:.2f}", f"{sign} {target:g}")
    return table


def ratios(size: JSON) -> Iterator[tuple[str, float]]:
    """Each target's title and what was measured, for those whose contestants took part.

    Without those of an index where the product makes none.
    """
    queries, ingest = size["queries"], size["ingest"]
    if PRODUCT.name not in queries or LIMIT.name not in queries:
        return
    product, limit = queries[PRODUCT.name], queries[LIMIT.name]
    yield "dense p50 / bare SQL", product["dense"]["p50"] / limit["dense"]["p50"]
    yield "hybrid p50 / bare dense SQL", product["hybrid"]["p50"] / limit["dense"]["p50"]
    rates = {name: kinds["hybrid"]["qps_8"] for name, kinds in queries.items() if "hybrid" in kinds}
    own = rates.pop(PRODUCT.name)
    any_word = rates.pop("llama-index", None)
    if rates:
        yield "hybrid QPS at 8 / fastest AND peer", own / max(rates.values())
    if any_word:
        yield "hybrid QPS at 8 / llama-index (OR)", own / any_word
    mine, bare = ingest[PRODUCT.name], ingest[LIMIT.name]
    if not size.get("product_indexed", True):
        return
    yield "added to an indexed collection / COPY", mine["added_per_second"] / bare["added_per_second"]
    yield "COPY + CREATE INDEX / loaded and indexed", _loaded(bare) / _loaded(mine)
    peers = [_loaded(one) for name, one in ingest.items() if name not in {PRODUCT.name, LIMIT.name}]
    if peers:
        yield "best peer / loaded and indexed", min(peers) / _loaded(mine)


def _limit(size: JSON, kind: str) -> float:
    """The bare SQL of the same filter; hybrid questions are held against the dense ones."""
    limit = size["queries"][LIMIT.name]
    return float(limit["dense 1 %" if kind.endswith("%") else "dense"]["p50"])


def _loaded(one: JSON) -> float:
    return float(one["load_seconds"] + one["index_seconds"])


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table
