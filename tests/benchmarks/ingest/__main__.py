"""Documents and pages per second through the whole local platform, beside the time of the model server alone.

    python -m tests.benchmarks.ingest [--documents 1000] [--pages 300] [--model-milliseconds 0,200] [--json]

starts a platform of its own in a temporary directory, with a model server whose vectors cost nothing; uploads, waits
until everything is ready, stops it. What the figures mean stands in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform as machine
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg

from functions.table import INGEST
from local import environment
from rag.settings import Settings
from tests.benchmarks import processes, serving
from tests.benchmarks.ingest.documents import SEED, note, report
from tests.benchmarks.ingest.fast_model import DIMENSIONS
from tests.benchmarks.inside import superuser_url
from tests.benchmarks.serving import Client

JSON = dict[str, Any]
UPLOADS = 4
LIMIT_SECONDS = 1800
POLL_SECONDS = 0.2
PASSAGE = "x" * 660
STAGES = ("fetch", "parse", "embed", "store")
THREADS = Settings().ingest_threads
AT_ONCE = environment.CONCURRENCY[INGEST] * THREADS


def run(directory: Path, options: argparse.Namespace) -> JSON:
    """Everything that is measured, as JSON."""
    result: JSON = {"machine": _machine(), "seed": SEED, "runs": []}
    with fast_model() as port, _told(port), serving.platform(directory) as ready:
        model = Model(port)
        _warm(ready, model)
        for number, milliseconds in enumerate(options.model_milliseconds):
            model.pause(milliseconds / 1000)
            notes = [(f"{number}/notes/{place}.md", note(place, number)) for place in range(options.documents)]
            measured = _measured(ready, model, notes, milliseconds)
            result["runs"].append({"what": f"{options.documents:,} documents", "documents": len(notes), **measured})
            model.pause(milliseconds / 1000)
            long = [(f"{number}/report.pdf", report(options.pages, number))]
            measured = _measured(ready, model, long, milliseconds)
            result["runs"].append({"what": f"a PDF of {options.pages} pages", "pages": options.pages, **measured})
    result["machine"]["load_after"] = _load()
    return result


class Model:
    """The fast model server, driven by hand."""

    def __init__(self, port: int) -> None:
        self._port = port

    def pause(self, seconds: float) -> None:
        self._ask("POST", "/pause", seconds)

    def asked(self) -> tuple[list[int], float]:
        """How many texts each request had, and for how many seconds there was one under way at least."""
        counted = self._ask("GET", "/requests")
        return counted["texts"], counted["busy_seconds"]

    def alone(self, requests: Sequence[int], at_once: int) -> float:
        """Seconds that the same requests take when nothing else is asked of anybody."""
        started = time.perf_counter()
        with ThreadPoolExecutor(at_once) as threads:
            for _ in threads.map(
                lambda count: self._ask("POST", "/embeddings", {"input": [PASSAGE] * count}), requests
            ):
                pass
        return time.perf_counter() - started

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


@contextmanager
def fast_model() -> Iterator[int]:
    """A process of its own, so that nobody shares its interpreter's lock; its port."""
    command = [sys.executable, "-m", "tests.benchmarks.ingest.fast_model"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


@contextmanager
def _told(port: int) -> Iterator[None]:
    """The shell of somebody with a model server of their own."""
    told = {
        "OPENAI_API_KEY": "fast",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{port}",
        "RAG_EMBEDDING_MODEL": "fast",
        "RAG_EMBEDDING_DIMENSIONS": str(DIMENSIONS),
    }
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _warm(ready: JSON, model: Model) -> None:
    """Have every sandbox started and every client made, as on a platform that is in use."""
    model.pause(0.05)
    _ingested(ready, [(f"warm/{number}.md", note(-1 - number)) for number in range(10 * AT_ONCE)])


def _measured(ready: JSON, model: Model, files: Sequence[tuple[str, bytes]], milliseconds: float) -> JSON:
    known = processes.below(ready["pids"]["supervisor"]) if processes.supported() else {}
    cpu = processes.cpu_milliseconds(known)
    _say(f"{len(files)} documents, the model waits {milliseconds:g} ms")
    uploaded, wall = _ingested(ready, files)
    spent = processes.cpu_milliseconds(known)
    requests, busy = model.asked()
    model.pause(milliseconds / 1000)
    # A sandbox asks for as much at once of one document as of several.
    alone = model.alone(requests, min(AT_ONCE, THREADS * len(files)))
    stages, chunks = _stages(ready, [key for key, _ in files])
    return {
        "model_milliseconds": milliseconds,
        "seconds": round(wall, 2),
        "upload_seconds": round(uploaded, 2),
        "model_requests": len(requests),
        "model_alone_seconds": round(alone, 2),
        "not_embedding": round(1 - alone / wall, 3),
        "nothing_embedding": round(1 - busy / wall, 3),
        "chunks": chunks,
        "stage_seconds": stages,
        "cpu_seconds": {kind: round((spent[kind] - cpu[kind]) / 1000, 2) for kind in spent},
    }


def _ingested(ready: JSON, files: Sequence[tuple[str, bytes]]) -> tuple[float, float]:
    """Seconds until all is uploaded, and until all of it is ready."""
    started = time.perf_counter()
    with ThreadPoolExecutor(UPLOADS) as threads:
        for _ in threads.map(lambda part: _uploaded(ready, files[part::UPLOADS]), range(UPLOADS)):
            pass
    uploaded = time.perf_counter() - started
    with psycopg.connect(superuser_url(ready), autocommit=True) as connection:
        while time.perf_counter() - started < LIMIT_SECONDS:
            states = dict(_statuses(connection, [key for key, _ in files]))
            if "failed" in states:
                raise RuntimeError("a document failed; see `rag documents`")
            if states.get("ready", 0) == len(files):
                return uploaded, time.perf_counter() - started
            time.sleep(POLL_SECONDS)
    raise RuntimeError(f"not everything was ready within {LIMIT_SECONDS} s")


def _uploaded(ready: JSON, files: Sequence[tuple[str, bytes]]) -> None:
    with Client(ready) as client, httpx.Client(trust_env=False) as http:
        for key, content in files:
            upload = client.ask("POST", "/v1/documents", {"key": key}).answer["upload"]
            http.post(upload["url"], data=upload["fields"], files={"file": content}).raise_for_status()


def _statuses(connection: psycopg.Connection[Any], keys: Sequence[str]) -> list[tuple[str, int]]:
    query = "select status, count(*) from documents where key = any (%s) group by status"
    return connection.execute(query, [list(keys)]).fetchall()


def _stages(ready: JSON, keys: Sequence[str]) -> tuple[JSON, int]:
    """Seconds of each stage, summed over all documents, of which several are under way at once; and their chunks."""
    sums = ", ".join(f"coalesce(sum({stage}_ms), 0)" for stage in STAGES)
    with psycopg.connect(superuser_url(ready)) as connection:
        query = f"select {sums}, coalesce(sum(chunk_count), 0) from ingestions where key = any (%s)"
        [(*milliseconds, chunks)] = connection.execute(query.encode(), [list(keys)]).fetchall()
    return {stage: round(float(spent) / 1000, 2) for stage, spent in zip(STAGES, milliseconds, strict=True)}, int(
        chunks
    )


def text(result: JSON) -> str:
    """The result for a person."""
    about = result["machine"]
    circumstances = f"{about['system']}, {about['cores']} cores, Python {about['python']}"
    loads = f"load {about['load_before']} before and {about['load_after']} after"
    lines = [f"{circumstances}, {loads}; {AT_ONCE} documents at once"]
    for each in result["runs"]:
        count, unit = (each["documents"], "documents") if "documents" in each else (each["pages"], "pages")
        stages = ", ".join(f"{stage} {seconds:g}" for stage, seconds in each["stage_seconds"].items())
        cpu = ", ".join(f"{kind} {seconds:g}" for kind, seconds in each["cpu_seconds"].items() if seconds >= 0.05)
        lines += [
            "",
            f"{each['what']} ({each['chunks']:,} chunks), {each['model_milliseconds']:g} ms for each call of the model",
            f"  {count / each['seconds']:.1f} {unit}/s: {each['seconds']:g} s, uploaded in {each['upload_seconds']:g}",
            f"  the model server alone: {each['model_alone_seconds']:g} s for {each['model_requests']} requests",
            f"  not embedding: {each['not_embedding']:.0%} of the wall time is beyond that",
            f"  nothing embedding: during {each['nothing_embedding']:.0%} of the wall time no request was under way",
            f"  seconds by stage, summed over the documents: {stages}",
            *([f"  CPU seconds: {cpu}"] if cpu else []),
        ]
    return "\n".join(lines)


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


def _numbers(given: str) -> list[float]:
    return [float(part) for part in given.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.ingest", description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=1_000, help="small documents (default 1000)")
    parser.add_argument("--pages", type=int, default=300, help="pages of the PDF (default 300)")
    parser.add_argument(
        "--model-milliseconds", type=_numbers, default=[0, 200], help="how long the model thinks (default 0,200)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON only")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="rag-benchmark-"))
    try:
        result = run(directory, options)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(json.dumps(result, indent=2) if options.json else text(result))


if __name__ == "__main__":
    main()
