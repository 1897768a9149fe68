"""The rounds: every contestant and kind in turn, a few questions each, so that whatever else happens hits all alike."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median, quantiles
from typing import Any

from tests.benchmarks.store.client import Client
from tests.benchmarks.store.contestant import KINDS, Kind
from tests.benchmarks.store.corpus import Corpus
from tests.benchmarks.store.truth import Truth, quality

JSON = dict[str, Any]
IN_A_ROW = 10
ROUNDS = 3
ADDED_AT_ONCE = 500
HEAD_START_SECONDS = 0.3


def latencies(ones: Mapping[str, Client], corpus: Corpus, exact: Sequence[Truth]) -> JSON:
    """Contestant → kind → p50 and p95 in milliseconds with one client, and how good the answers are."""
    kinds = {name: client.call("kinds") for name, client in ones.items()}
    milliseconds: defaultdict[tuple[str, Kind], list[float]] = defaultdict(list)
    found: defaultdict[tuple[str, Kind], dict[int, list[int]]] = defaultdict(dict)
    count = len(corpus.questions)
    for start in range(0, count, IN_A_ROW):
        numbers = list(range(start, min(start + IN_A_ROW, count)))
        for kind in KINDS:
            for name, client in ones.items():
                if kind not in kinds[name]:
                    continue
                for number, (spent, answered) in zip(numbers, client.call("ask", kind, numbers), strict=True):
                    milliseconds[name, kind].append(spent)
                    found[name, kind][number] = answered
    return {
        name: {
            kind: _percentiles(milliseconds[name, kind])
            | {
                figure: round(value, 4)
                for figure, value in quality(kind, found[name, kind], exact, corpus.questions).items()
            }
            for kind in kinds[name]
        }
        for name in ones
    }


def throughput(groups: Mapping[str, Sequence[Client]], count: int, seconds: float, limit: int = 3) -> JSON:
    """Contestant → kind → questions per second with `count` clients: the median of the rounds, `seconds` in all."""
    kinds = {name: clients[0].call("kinds")[:limit] for name, clients in groups.items()}
    rates: defaultdict[tuple[str, Kind], list[float]] = defaultdict(list)
    for turn in range(ROUNDS):
        for kind in KINDS:
            for name, clients in groups.items():
                if kind in kinds[name]:
                    rates[name, kind].append(_rate(clients[:count], kind, seconds / ROUNDS, turn))
    return {name: {kind: round(median(rates[name, kind]), 1) for kind in kinds[name]} for name in groups}


def _rate(clients: Sequence[Client], kind: Kind, seconds: float, turn: int) -> float:
    start = time.time() + HEAD_START_SECONDS
    for place, client in enumerate(clients):
        client.send("run", kind, start, seconds, 1000 * turn + 25 * place)
    return float(sum(client.receive() for client in clients)) / seconds


def additions(ones: Mapping[str, Client], chunks: range) -> dict[str, float]:
    """Contestant → rows per second that are added to what is indexed already, in rounds."""
    spent: defaultdict[str, float] = defaultdict(float)
    for start in range(chunks.start, chunks.stop, ADDED_AT_ONCE):
        for name, client in ones.items():
            spent[name] += client.call("add", range(start, min(start + ADDED_AT_ONCE, chunks.stop)))
    return {name: round(len(chunks) / seconds, 1) for name, seconds in spent.items()}


def _percentiles(series: Sequence[float]) -> dict[str, float]:
    return {"p50": round(median(series), 2), "p95": round(quantiles(series, n=20)[-1], 2)}
