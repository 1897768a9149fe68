"""The rounds: every kind of request in turn, a few at a time, so that whatever else the machine does hits all alike."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any

from tests.benchmarks import processes
from tests.benchmarks.bare import BareCache, BareModel
from tests.benchmarks.corpus import Question
from tests.benchmarks.inside import BareSql, Executed, redis_url
from tests.benchmarks.serving import Asked, Client

JSON = dict[str, Any]
IN_A_ROW = 10
SEARCH, UNAUTHENTICATED, CACHED = "search", "unauthenticated search", "cached query"
KINDS = (SEARCH, UNAUTHENTICATED, CACHED)


@dataclass(slots=True)
class Measured:
    """Milliseconds of each request by what was measured, CPU milliseconds by request and process, and hits.

    `times_unauthenticated` is of each question how many times as long it took as without access control.
    """

    milliseconds: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, Counter[str]] = field(default_factory=lambda: {each: Counter() for each in KINDS})
    found: int = 0
    times_unauthenticated: list[float] = field(default_factory=list)

    def add(self, name: str, milliseconds: float) -> None:
        self.milliseconds.setdefault(name, []).append(milliseconds)

    def percentiles(self) -> dict[str, dict[str, float]]:
        """p50 and p95 of each series."""
        return {
            name: {"p50": round(median(series), 2), "p95": round(quantiles(series, n=20)[-1], 2)}
            for name, series in self.milliseconds.items()
        }

    def cpu_per_request(self) -> dict[str, dict[str, float]]:
        """Mean CPU milliseconds by process; empty where the system does not tell."""
        count = len(self.milliseconds[SEARCH])
        return {
            name: {kind: round(total / count, 2) for kind, total in sorted(totals.items()) if total / count >= 0.01}
            for name, totals in self.cpu.items()
        }


def rounds(
    ready: JSON, questions: Sequence[Question], statements: Sequence[Sequence[Executed]], again: Sequence[str]
) -> Measured:
    """Search for each question once, with its parts alone beside it, and as often repeat questions that are cached."""
    measured, order = Measured(), random.Random(IN_A_ROW)
    repeated = [again[number % len(again)] for number in range(len(questions))]
    with ExitStack() as stack:
        client = stack.enter_context(Client(ready))
        model = stack.enter_context(closing(BareModel(ready)))
        cache = stack.enter_context(closing(BareCache(redis_url(ready))))
        sql = {
            "bare SQL": stack.enter_context(closing(BareSql(ready, prepared=False))),
            "bare SQL, prepared": stack.enter_context(closing(BareSql(ready, prepared=True))),
        }
        work = list(zip(questions, statements, repeated, strict=True))
        doors = {SEARCH: client.search, UNAUTHENTICATED: client.search_unauthenticated}
        for round_ in (work[start : start + IN_A_ROW] for start in range(0, len(work), IN_A_ROW)):
            known = processes.below(ready["pids"]["supervisor"]) if processes.supported() else {}
            searched: dict[str, list[Asked]] = {name: [] for name in doors}
            for question, _, _ in round_:
                # One right after the other, so that the machine is in the same mood; and none is always the first.
                for name in order.sample(list(doors), len(doors)):
                    with _cpu(measured, name, known):
                        searched[name].append(doors[name](question.text))
            with _cpu(measured, CACHED, known):
                answered = [client.query(text) for _, _, text in round_]
            alone = [model.milliseconds(question.text) for question, _, _ in round_]
            for name, bare in sql.items():
                for _, executed, _ in round_:
                    measured.add(name, bare.milliseconds(executed))
            for question, _, _ in round_:
                measured.add("bare cache", cache.milliseconds(question.text))
            _searches(measured, round_, searched[SEARCH], alone)
            _without(measured, searched)
            _answers(measured, answered)
    return measured


def _searches(
    measured: Measured, round_: Sequence[tuple[Question, Any, Any]], searched: Sequence[Asked], alone: Sequence[float]
) -> None:
    for (question, _, _), asked, bare in zip(round_, searched, alone, strict=True):
        stages = asked.answer["timings_ms"]
        measured.found += question.key in [hit["key"] for hit in asked.answer["hits"][:5]]
        measured.add(SEARCH, asked.milliseconds)
        for stage, milliseconds in stages.items():
            measured.add(f"{SEARCH}: {stage}", milliseconds)
        measured.add(f"{SEARCH}: around", asked.milliseconds - sum(stages.values()))
        measured.add(f"{SEARCH}: all but the model", asked.milliseconds - bare)
        measured.add("bare model", bare)


def _without(measured: Measured, searched: Mapping[str, Sequence[Asked]]) -> None:
    """The same questions without access control; what they find must be the same."""
    for asked, authorised in zip(searched[UNAUTHENTICATED], searched[SEARCH], strict=True):
        if _found(asked) != _found(authorised):
            raise RuntimeError("the two doors find different passages")
        measured.add(UNAUTHENTICATED, asked.milliseconds)
        measured.times_unauthenticated.append(authorised.milliseconds / asked.milliseconds)
        for stage, milliseconds in asked.answer["timings_ms"].items():
            measured.add(f"{UNAUTHENTICATED}: {stage}", milliseconds)
        measured.add(f"{UNAUTHENTICATED}: around", asked.milliseconds - sum(asked.answer["timings_ms"].values()))


def _found(asked: Asked) -> list[str]:
    return [hit["chunk_id"] for hit in asked.answer["hits"]]


def _answers(measured: Measured, answered: Sequence[Asked]) -> None:
    for asked in answered:
        stages = asked.answer["timings_ms"]
        if not asked.answer["cached"]:
            raise RuntimeError("an answer that was given before did not come from the cache")
        measured.add(CACHED, asked.milliseconds)
        for stage, milliseconds in stages.items():
            measured.add(f"{CACHED}: {stage}", milliseconds)
        measured.add(f"{CACHED}: around", asked.milliseconds - sum(stages.values()))


@contextmanager
def _cpu(measured: Measured, name: str, known: Mapping[int, str]) -> Iterator[None]:
    before = processes.cpu_milliseconds(known)
    yield
    after = processes.cpu_milliseconds(known)
    for kind in after:
        measured.cpu[name][kind] += after[kind] - before[kind]
