"""The store beside the bare SQL and beside other stores on PostgreSQL.

    python -m tests.benchmarks.store [--chunks 10000,100000] [--dimensions 384,1536] [--json] [--plot cost.png]

starts a PostgreSQL of its own in a temporary directory, fills it once per contestant, asks, stops it. What the figures
mean stands in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform as machine
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rag.settings import Settings
from tests.benchmarks.store import corpus, measuring, report, truth
from tests.benchmarks.store.client import Client, clients
from tests.benchmarks.store.contestant import LIMIT, PEERS, PRODUCT, Entry, Place
from tests.benchmarks.store.server import Server, server

JSON = dict[str, Any]
CLIENTS = 8
ADDED = 2_000


def run(directory: Path, options: argparse.Namespace) -> JSON:
    """Everything that is measured, as JSON."""
    entries = contestants(peers=options.peers, only=options.only)
    result: JSON = {"machine": _machine(), "settings": _settings(options), "sizes": []}
    with server(directory) as started:
        for dimensions in options.dimensions:
            for chunks in options.chunks:
                result["sizes"].append(_size(directory, started, entries, chunks, dimensions, options))
    result["machine"]["load_after"] = _load()
    return result


def contestants(*, peers: bool, only: Sequence[str] = ()) -> list[Entry]:
    """Limit and product, and those peers that are installed."""
    installed = [peer for peer in PEERS if peer.installed] if peers else []
    if peers and len(installed) < len(PEERS):
        absent = ", ".join(peer.name for peer in PEERS if not peer.installed)
        say(f"not installed: {absent}; `uv sync --group peers` installs them. Going on without")
    return [entry for entry in (LIMIT, PRODUCT, *installed) if not only or entry.name in only]


def _size(
    directory: Path,
    started: Server,
    entries: Sequence[Entry],
    chunks: int,
    dimensions: int,
    options: argparse.Namespace,
) -> JSON:
    title = f"{chunks:,} × {dimensions}"
    say(f"{title}: making texts, vectors and exact answers")
    made = corpus.generate(chunks, dimensions, options.queries, extra=ADDED)
    made.save(directory)
    exact = truth.truths(made, chunks)
    places = {entry.name: entry.prepared(started, dimensions, options.index_chunks) for entry in entries}
    indexed = chunks > options.index_chunks  # the product searches what is smaller exactly
    size: JSON = {"chunks": chunks, "dimensions": dimensions, "product_indexed": indexed, "ingest": {}}
    for entry in entries:
        with Client(entry, places[entry.name], directory) as client:
            size["ingest"][entry.name] = _load_all(client, chunks, title)
        started.vacuum(entry.database)
    size["queries"] = _ask(directory, entries, places, made, exact, title, options)
    say(f"{title}: adding {ADDED} more")
    with ExitStack() as stack:
        ones = {e.name: stack.enter_context(Client(e, places[e.name], directory)) for e in entries}
        for name, rate in measuring.additions(ones, range(chunks, chunks + ADDED)).items():
            size["ingest"][name]["added_per_second"] = rate
    for entry in entries:
        started.drop(entry.database)
    return size


def _load_all(client: Client, chunks: int, title: str) -> dict[str, float]:
    say(f"{title}: loading {client.entry.name}")
    loading = client.call("add", range(chunks))
    indexing = client.call("index")
    say(f"{title}: {client.entry.name} took {loading:.1f} + {indexing:.1f} s")
    return {"load_seconds": round(loading, 1), "index_seconds": round(indexing, 1)}


def _ask(
    directory: Path,
    entries: Sequence[Entry],
    places: dict[str, Place],
    made: corpus.Corpus,
    exact: Sequence[truth.Truth],
    title: str,
    options: argparse.Namespace,
) -> JSON:
    with ExitStack() as stack:
        groups = {
            entry.name: stack.enter_context(clients(entry, places[entry.name], directory, CLIENTS)) for entry in entries
        }
        ones = {name: group[0] for name, group in groups.items()}
        say(f"{title}: asking {len(made.questions)} questions")
        measured = measuring.latencies(ones, made, exact)
        for count in (1, CLIENTS):
            say(f"{title}: asking as often as {count} can")
            for name, rates in measuring.throughput(groups, count, options.seconds).items():
                for kind, rate in rates.items():
                    measured[name][kind][f"qps_{count}"] = rate
    return measured


def _settings(options: argparse.Namespace) -> JSON:
    return {
        "queries": options.queries,
        "seconds": options.seconds,
        "index_chunks": options.index_chunks,
        "seed": corpus.SEED,
    }


def _machine() -> JSON:
    return {
        "system": f"{machine.system()} {machine.machine()}",
        "python": machine.python_version(),
        "cores": os.cpu_count(),
        "load_before": _load(),
    }


def _load() -> float:
    return round(os.getloadavg()[0], 1)


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _picture(text: str) -> Path:
    """What cannot be drawn is refused before the run, which may take an hour."""
    if find_spec("matplotlib") is None:
        raise argparse.ArgumentTypeError("a picture takes matplotlib, which is not installed: uv sync --group peers")
    return Path(text)


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.store", description=__doc__.splitlines()[0])
    parser.add_argument("--chunks", type=_numbers, default=[10_000], help="sizes (default 10000)")
    parser.add_argument("--dimensions", type=_numbers, default=[384], help="widths of the vectors (default 384)")
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True, help="other stores as well")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], help="these contestants (default all)")
    parser.add_argument("--queries", type=int, default=200, help="distinct questions (default 200)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each throughput (default 6)")
    parser.add_argument(
        "--index-chunks", type=int, default=Settings().index_chunks, help="RAG_INDEX_CHUNKS (default %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--plot", type=_picture, help="write a picture of cost against size")
    return parser.parse_args(arguments)


def main() -> None:
    chosen = options()
    for number in (signal.SIGINT, signal.SIGTERM):  # the first is ignored in the background
        signal.signal(number, signal.default_int_handler)
    directory = Path(tempfile.mkdtemp(prefix="rag-benchmark-"))
    directory.chmod(0o711)
    began = time.monotonic()
    try:
        result = run(directory, chosen)
    except KeyboardInterrupt:
        say("interrupted: everything was stopped and removed")
        sys.exit(130)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    result["seconds"] = round(time.monotonic() - began, 1)
    print(json.dumps(result, indent=2) if chosen.json else report.text(result), flush=True)
    if chosen.plot:
        from tests.benchmarks.store import plot

        plot.write(result, chosen.plot)


if __name__ == "__main__":
    main()
