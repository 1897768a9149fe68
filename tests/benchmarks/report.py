"""The result as tables for a person."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

JSON = dict[str, Any]

_LATENCIES = (
    ("search", "/v1/search, uncached", 60.0),
    ("search: around", "  client, gateway, Runtime API, FastAPI", None),
    ("search: embed", "  embed: cache get, model, cache set", None),
    ("search: search", "  SQL transaction", None),
    ("search: all but the model", "  all but the model by itself", 20.0),
    ("unauthenticated search", "the same without access control", None),
    ("unauthenticated search: around", "  client, gateway, Runtime API, FastAPI", None),
    ("unauthenticated search: embed", "  embed: cache get, model, cache set", None),
    ("unauthenticated search: search", "  SQL transaction", None),
    ("cached query", "/v1/query, cached", 25.0),
    ("cached query: around", "  client, gateway, Runtime API, FastAPI", None),
    ("cached query: embed", "  embed: out of the cache", None),
    ("cached query: search", "  SQL transaction", None),
    ("cached query: model", "  answer: out of the cache", None),
    ("cached query: cite", "  citations verified", None),
    ("bare SQL", "bare SQL: the same statements", None),
    ("bare SQL, prepared", "bare SQL, prepared", None),
    ("bare model", "bare model: one POST", None),
    ("bare cache", "bare cache: one GET, one SET", None),
)
_RATIOS = (
    ("SQL transaction / bare SQL", ("search: search",), ("bare SQL",)),
    ("embed / bare model + cache", ("search: embed",), ("bare model", "bare cache")),
    ("search / bare SQL + model + cache", ("search",), ("bare SQL", "bare model", "bare cache")),
    ("cached query / bare SQL", ("cached query",), ("bare SQL",)),
)


def text(result: JSON) -> str:
    """Everything that was measured, in five tables."""
    return "\n\n".join(
        [
            _circumstances(result),
            _table(("milliseconds", "p50", "p95", "target p50"), _latencies(result["milliseconds"])),
            _table(("ratio", "", "target"), _ratios(result)),
            _columns("CPU milliseconds per request", result["cpu_milliseconds"]),
            _columns("round trips per request", result["round_trips"]),
            _columns("first question after a start, ms", result["first_question"]),
        ]
    )


def _circumstances(result: JSON) -> str:
    machine = result["machine"]
    return (
        f"{machine['system']}, {machine['cores']} cores, Python {machine['python']}, "
        f"load {machine['load_before']} before and {machine['load_after']} after\n"
        f"{result['corpus']['chunks']} chunks, {result['questions']} questions, "
        f"{result['found_in_top_5']} with the right document in the top 5; {result['seconds']} s in all"
    )


def _latencies(measured: JSON) -> Iterable[Sequence[object]]:
    for name, title, target in _LATENCIES:
        if name in measured:
            yield title, f"{measured[name]['p50']:.1f}", f"{measured[name]['p95']:.1f}", f"{target:g}" if target else ""


def _ratios(result: JSON) -> Iterable[Sequence[object]]:
    yield "search / the same without access control", f"{result['times_unauthenticated']:.2f}", "1.15"
    measured = result["milliseconds"]
    for title, above, below in _RATIOS:
        ratio = sum(measured[name]["p50"] for name in above) / sum(measured[name]["p50"] for name in below)
        yield title, f"{ratio:.2f}", ""


def _columns(title: str, cells: dict[str, dict[str, float]]) -> str:
    """One column per kind of request, one row per whatever any of them has."""
    rows = list(dict.fromkeys(row for column in cells.values() for row in column))
    return _table((title, *cells), ((row, *(column.get(row, "") for column in cells.values())) for row in rows))


def _table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    lines = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    ruled = [lines[0], ["-" * width for width in widths], *lines[1:]]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *map(_right, row[1:], widths[1:])]).rstrip() for row in ruled)


def _right(cell: str, width: int) -> str:
    return cell.rjust(width)
