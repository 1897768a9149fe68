"""Latency of search and query beside the bare SQL.

    python -m tests.benchmarks [--json] [--questions 400]

starts a platform of its own in a temporary directory, fills it, asks, stops it. What the figures mean stands in
docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform as machine
import shutil
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from local.cli.demo import SAMPLES
from tests.benchmarks import corpus, door, measuring, report, serving
from tests.benchmarks.corpus import Question
from tests.benchmarks.inside import Function, analyse, function
from tests.benchmarks.serving import Client

MANUALS, MACHINES_EACH = 16, 20
WARM_UP, CACHED, COUNTED = 20, 20, 5
SETTLED_SECONDS = 5.0

JSON = dict[str, Any]


def run(directory: Path, count: int) -> JSON:
    """Everything that is measured, as JSON."""
    every = corpus.questions(MANUALS, MACHINES_EACH)
    warm_up, again, counted, first, asked = (
        list(islice(every, number)) for number in (WARM_UP, CACHED, COUNTED, 2, count)
    )
    result: JSON = {"machine": _machine()}
    with serving.platform(directory) as ready:
        began = time.monotonic()
        samples = sorted(path for path in SAMPLES.iterdir() if path.name != "README.md")
        _say("ingesting")
        chunks = serving.ingest(ready, corpus.manuals(MANUALS, MACHINES_EACH), samples)
        result["corpus"] = {"chunks": chunks, "seed": corpus.SEED, "ingest_seconds": round(time.monotonic() - began, 1)}
        analyse(ready)
        _say("warming up")
        answered = _warmed(ready, warm_up, again)
        with function(ready) as inside:
            result["round_trips"] = _round_trips(inside, counted)
            statements = inside.statements([question.text for question in asked])
        _say(f"asking {count} questions")
        measured = measuring.rounds(ready, asked, statements, answered)
        result |= {
            "questions": count,
            "found_in_top_5": measured.found,
            "milliseconds": measured.percentiles(),
            "times_unauthenticated": round(median(measured.times_unauthenticated), 3),
            "cpu_milliseconds": measured.cpu_per_request(),
        }
    _say("starting anew, for the first question")
    result["first_question"] = {
        "at once": _first(directory, first[0], pause_seconds=0),
        f"{SETTLED_SECONDS:g} s later": _first(directory, first[1], pause_seconds=SETTLED_SECONDS),
    }
    result["machine"]["load_after"] = _load()
    return result


def _warmed(ready: JSON, warm_up: list[Question], again: list[Question]) -> list[str]:
    """Ask for a while, then have some answers cached; those questions come back."""
    with Client(ready) as client:
        for question in warm_up:
            client.search(question.text)
            client.search_unauthenticated(question.text)
        replies = {question.text: client.query(question.text).answer for question in again}
    return [text for text, reply in replies.items() if reply["model"]]


def _round_trips(inside: Function, questions: list[Question]) -> JSON:
    """By kind of request and server; the same for every question, or the count would be no property of the code."""
    first, *others = [question.text for question in questions]
    inside.round_trips(door.PATH, {"query": first})
    inside.round_trips("/v1/query", {"question": first})  # connections are made
    answered = [text for text in others if inside.round_trips("/v1/query", {"question": text})[1]["cached"] is False]
    asked, *_ = answered
    counts = {"query, cached in the sandbox": inside.round_trips("/v1/query", {"question": asked})[0]}
    inside.forget()
    counts["query, cached in Valkey"] = inside.round_trips("/v1/query", {"question": asked})[0]
    counts["search, uncached"] = inside.round_trips("/v1/search", {"query": f"{asked} Please."})[0]
    counts["unauthenticated search"] = inside.round_trips(door.PATH, {"query": f"{asked} I beg you."})[0]
    counts["query, uncached"] = inside.round_trips("/v1/query", {"question": f"{asked} Thank you."})[0]
    return counts


def _first(directory: Path, question: Question, *, pause_seconds: float) -> JSON:
    with serving.platform(directory) as ready, Client(ready) as client:
        time.sleep(pause_seconds)
        asked = client.query(question.text)
    stages = asked.answer["timings_ms"]
    around = asked.milliseconds - sum(stages.values())
    return {"total": round(asked.milliseconds, 1), **stages, "around": round(around, 1)}


def _machine() -> JSON:
    return {
        "system": f"{machine.system()} {machine.machine()}",
        "python": machine.python_version(),
        "cores": os.cpu_count(),
        "load_before": _load(),
    }


def _load() -> float:
    return round(os.getloadavg()[0], 1)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--questions", type=int, default=400, help="how many distinct ones (default 400)")
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="rag-benchmark-"))
    began = time.monotonic()
    try:
        result = run(directory, arguments.questions)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    result["seconds"] = round(time.monotonic() - began, 1)
    print(json.dumps(result, indent=2) if arguments.json else report.text(result))


if __name__ == "__main__":
    main()
