"""`rag eval`: how well a collection is searched, in the figures of the field."""

import asyncio
import json as json_module
import math
import re
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from local.cli.failure import Failure, UsageFailure
from local.cli.output import is_terminal, note, one_line, plural, table
from local.cli.remote import Session, remote
from local.evaluation import metrics
from local.evaluation.collection import AskedOfFile, CollectionError, TestCollection, read, read_questions
from local.evaluation.language import likely_language

T = TypeVar("T")
Figures = dict[str, dict[str, float | None]]

MODES = ("lexical", "dense", "hybrid")
QUESTIONS = "questions"
CONCURRENCY = 4
# Hits are chunks: so many hold a hundred documents.
HITS = 300
ANSWER_HITS = 5
# What is said there instead of an answer, or without a passage that holds it, refuses nothing.
NO_REFUSAL = ("retrieval_only", "ungrounded")
# That no passage holds an answer is a finding about the model: nothing was missing.
NOT_MISSING = "ungrounded"
DEGRADED = "degraded"

EPILOG = """\b
Examples:
  rag eval scifact/                          # corpus.jsonl, queries.jsonl, qrels.tsv
  rag eval xquad-es/ --json > figures.json
  rag eval scifact/ --gate figures.json      # exit 1 when a figure fell
  rag eval questions.jsonl --documents docs/ # {"file", "question", "answer_substring", "page"}
"""


@remote
async def evaluate(
    session: Session,
    path: Annotated[Path, typer.Argument(metavar="DIR|FILE", help="A folder in BEIR layout, or a question file.")],
    *,
    collection: Annotated[
        str | None,
        typer.Option("--collection", metavar="NAME", help="Search this one. [default: DIR's own, or `default`]"),
    ] = None,
    language: Annotated[
        str | None,
        typer.Option("--language", metavar="NAME", help="Of the collection, when it is made. [default: DIR's]"),
    ] = None,
    documents: Annotated[
        Path | None, typer.Option("--documents", metavar="DIR", help="With FILE: put these documents in first.")
    ] = None,
    gate: Annotated[
        Path | None, typer.Option("--gate", metavar="FILE", help="Fail when a figure is below the one recorded there.")
    ] = None,
    record: Annotated[
        Path | None, typer.Option("--record", metavar="FILE", help="Write the figures there, as --json prints them.")
    ] = None,
    timeout_seconds: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="How long to wait for the documents at most.")
    ] = 7200.0,
) -> int:
    """Measure how well documents are found.

    For a folder in BEIR layout each record becomes a document that goes in as any other does, in a collection named
    after the folder and its content, in their language; what is there already is not put again. Every query is then
    searched lexically, densely and both: nDCG@10, Recall@10, Recall@100 and MRR@10. A document's rank is that of its
    best passage.

    For a question file: how often the answer stands in the first five passages, how often on the right page, and how
    often an unanswerable question is rightly not answered. Passages of other documents than a question's file do not
    count.
    """
    recorded = _recorded(gate, MODES if path.is_dir() else (QUESTIONS,)) if gate else {}
    try:
        figures = await (
            _test_collection(session, path, collection, language, timeout_seconds)
            if path.is_dir()
            else _questions(session, read_questions(path), collection or "default", documents, timeout_seconds)
        )
    except CollectionError as error:
        raise UsageFailure(f"{error}.") from error
    session.show(figures, _tell)
    if (record or gate) and any(DEGRADED in row for row in figures.values()):
        note("Neither recorded nor compared: a part was missing, and these are not the figures of the whole")
        return 1
    if record:
        record.write_text(json_module.dumps(figures, indent=2) + "\n")
    return _judged(figures, recorded)


async def _test_collection(
    session: Session, folder: Path, collection: str | None, language: str | None, timeout_seconds: float
) -> Figures:
    given = read(folder)
    name = collection or _name(folder, given)
    await _make(session, name, language, given)
    if given.empty:
        note(f"{plural(len(given.empty), 'record')} without a word left out: {', '.join(given.empty[:5])}")
    await _put(session, given.documents, name, timeout_seconds)
    figures: Figures = {}
    for mode in MODES:
        figures[mode] = await _searched(session, given, name, mode)
    return figures


async def _searched(session: Session, given: TestCollection, collection: str, mode: str) -> dict[str, float | None]:
    ranked: dict[str, list[str]] = {}
    degraded: Counter[str] = Counter()

    async def one(query: str) -> None:
        body = {"query": given.queries[query], "collection": collection, "mode": mode, "top_k": HITS}
        ranked[query] = _documents(given, await _search(session, body, degraded))

    await _all(session, f"{mode} search", one, given.queries)
    return metrics.summary(ranked, given.judgements) | _missing(degraded, plural(len(ranked), f"{mode} question"))


async def _search(session: Session, body: dict[str, Any], degraded: Counter[str]) -> list[dict[str, Any]]:
    reply = await session.client.call("POST", "/v1/search", body=body)
    degraded.update([reply["degraded"]] if reply["degraded"] else [])
    hits: list[dict[str, Any]] = reply["hits"]
    return hits


def _missing(degraded: Counter[str], of: str) -> dict[str, float | None]:
    """How often a part was missing, which is said; nothing where it never was."""
    if not degraded:
        return {}
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(degraded.items()))
    note(f"Of {of} {degraded.total()} degraded: {reasons}")
    missing = degraded.total() - degraded[NOT_MISSING]
    return {DEGRADED: missing} if missing else {}


async def _make(session: Session, name: str, language: str | None, given: TestCollection) -> None:
    """Make the collection; one that is there already keeps its language unless another is asked for, which fails."""
    there = (await session.client.call("GET", "/v1/collections"))["collections"]
    if language is None and name in [collection["name"] for collection in there]:
        return
    if language is None:
        language = likely_language(given.documents.values())
        note(f"The documents are taken for {language}; say --language if they are not")
    await session.client.call("POST", "/v1/collections", body={"name": name, "language": language})


def _documents(given: TestCollection, hits: Iterable[Mapping[str, Any]]) -> list[str]:
    """In the order of their best passages."""
    return list(dict.fromkeys(given.identities.get(hit["key"], hit["key"]) for hit in hits))


async def _put(session: Session, documents: Mapping[str, bytes], collection: str, timeout_seconds: float) -> None:
    """Upload what is not there yet, and wait until all is ready; Failure names what cannot be."""
    known = await _states(session, collection)
    absent = [key for key in documents if key not in known or known[key]["status"] == "failed"]

    async def one(key: str) -> None:
        body = {"key": key, "collection": collection, "size": len(documents[key])}
        place = await session.client.call("POST", "/v1/documents", body=body)
        await session.client.upload(place["upload"], BytesIO(documents[key]), key)

    await _all(session, "uploading", one, absent)
    end = time.monotonic() + timeout_seconds
    with _bar(session, "indexing", len(documents)) as progress:
        while True:
            known = await _states(session, collection)
            ready = sum(known.get(key, {}).get("status") == "ready" for key in documents)
            progress(ready)
            if ready == len(documents):
                return
            failed = [key for key in documents if known.get(key, {}).get("status") == "failed"]
            if ready + len(failed) == len(documents):
                raise Failure(f"{plural(len(failed), 'document')} failed: {_reasons(failed, known)}")
            if time.monotonic() > end:
                raise Failure(
                    f"{len(documents) - ready} of {plural(len(documents), 'document')} are not ready in time."
                )
            await asyncio.sleep(1)


async def _states(session: Session, collection: str) -> dict[str, dict[str, Any]]:
    return {each["key"]: each async for each in session.client.documents(collection=collection, limit=500)}


def _reasons(failed: Sequence[str], known: Mapping[str, Mapping[str, Any]]) -> str:
    return "; ".join(f"{key} ({(known[key]['error'] or {}).get('code')})" for key in failed[:5])


async def _questions(
    session: Session, questions: Sequence[AskedOfFile], collection: str, documents: Path | None, timeout_seconds: float
) -> Figures:
    if documents:
        from local.cli.put import put_all  # noqa: PLC0415
        from local.cli.sources import find  # noqa: PLC0415

        await put_all(session, find([documents]), collection, wait_seconds=timeout_seconds)
    found: list[tuple[AskedOfFile, bool, bool, bool]] = []
    searches: Counter[str] = Counter()
    answers: Counter[str] = Counter()

    async def one(asked: AskedOfFile) -> None:
        body = {"query": asked.question, "collection": collection, "top_k": ANSWER_HITS}
        hits = await _search(session, body, searches)
        holding = [hit for hit in hits if asked.of(hit["key"]) and _holds(hit, asked.answer)]
        paged = any(hit["page"] in asked.pages for hit in holding)
        abstained = asked.answer is None and await _abstains(session, asked, collection, answers)
        found.append((asked, bool(holding), paged, abstained))

    await _all(session, "asking", one, questions)
    answerable = [row for row in found if row[0].answer]
    paged = [row for row in answerable if row[0].pages]
    unanswerable = [row for row in found if not row[0].answer]
    missing = [
        *_missing(searches, plural(len(questions), "searched question")).values(),
        *_missing(answers, plural(len(unanswerable), "answer")).values(),
    ]
    return {
        QUESTIONS: {
            f"answer_hit_rate@{ANSWER_HITS}": metrics.share(sum(row[1] for row in answerable), len(answerable)),
            f"page_accuracy@{ANSWER_HITS}": metrics.share(sum(row[2] for row in paged), len(paged)),
            "abstention_rate": metrics.share(sum(row[3] for row in unanswerable), len(unanswerable)),
        }
        | ({DEGRADED: sum(count or 0 for count in missing)} if missing else {})
    }


async def _abstains(session: Session, asked: AskedOfFile, collection: str, degraded: Counter[str]) -> bool:
    reply = await session.client.call("POST", "/v1/query", body={"question": asked.question, "collection": collection})
    degraded.update([reply["degraded"]] if reply["degraded"] else [])
    return not reply["citations"] and reply["degraded"] not in NO_REFUSAL


def _holds(hit: Mapping[str, Any], answer: str | None) -> bool:
    return answer is not None and _plain(answer) in _plain(hit["content"])


def _plain(text: str) -> str:
    """White space and the shape of apostrophes are the typesetter's."""
    return " ".join(text.replace("\u2019", "'").split())


async def _all(session: Session, what: str, work: Callable[[T], Awaitable[None]], items: Iterable[T]) -> None:
    """Do all the work, some at a time; the first failure ends the rest."""
    every = list(items)
    waiting, done = iter(every), 0
    with _bar(session, what, len(every)) as progress:

        async def worker() -> None:
            nonlocal done
            for item in waiting:
                await work(item)
                done += 1
                progress(done)

        tasks = [asyncio.ensure_future(worker()) for _ in range(CONCURRENCY)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def _bar(session: Session, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """How far it is, on stderr: a bar on a terminal, else a line for each tenth; nothing with --json."""
    if session.json or total == 0:
        yield lambda _: None
    elif is_terminal(sys.stderr):
        from rich.console import Console  # noqa: PLC0415 (rich costs 0.2 s)
        from rich.progress import Progress  # noqa: PLC0415

        with Progress(console=Console(stderr=True), transient=True) as bars:
            bar = bars.add_task(what, total=total)
            yield lambda done: bars.update(bar, completed=done)
    else:
        told = -1

        def tell(done: int) -> None:
            nonlocal told
            tenth = 10 * done // total
            if tenth > told:
                told = tenth
                note(f"{what:<15} {done} of {total}")

        yield tell


def _name(folder: Path, given: TestCollection) -> str:
    """A collection's name that changes with the content: what is in it needs no second look."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", folder.resolve().name.lower()).strip("-._")[:40]
    return f"eval-{plain or 'collection'}-{given.digest}"


def _tell(figures: Mapping[str, Mapping[str, float | None]]) -> None:
    names = list(dict.fromkeys(name for row in figures.values() for name in row))
    rows = [(mode, *(_shown(name, row.get(name)) for name in names)) for mode, row in figures.items()]
    table(("", *names), rows)


def _shown(name: str, value: float | None) -> str:
    return str(value or 0) if name == DEGRADED else _figure(value)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _recorded(path: Path, measured: Sequence[str]) -> dict[str, dict[str, float]]:
    """The figures to hold to; UsageFailure where none of them is of what is measured."""
    hint = "`--record FILE` writes them: record a run of what is measured here, and hold to that."
    try:
        found = json_module.loads(path.read_text())
        rows = {
            mode: {name: float(figure) for name, figure in row.items() if figure is not None}
            for mode, row in found.items()
        }
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UsageFailure(f"{path} holds no figures: {one_line(error)}.", hint=hint) from error
    if any(math.isnan(figure) for row in rows.values() for figure in row.values()):
        raise UsageFailure(f"{path} holds no figures: with NaN nothing compares.", hint=hint)
    if not any(rows.get(mode) for mode in measured):
        raise UsageFailure(f"{path} holds no figures of {' or '.join(measured)} to compare with.", hint=hint)
    return rows


def _judged(figures: Mapping[str, Mapping[str, float | None]], recorded: Mapping[str, Mapping[str, float]]) -> int:
    """The exit code; what fell is named."""
    fell = [
        f"{mode} {name}: {_figure(figures.get(mode, {}).get(name))}, recorded {_figure(least)}"
        for mode, row in recorded.items()
        for name, least in row.items()
        if (figures.get(mode, {}).get(name) or 0.0) < least
    ]
    for line in fell:
        note(f"fell: {line}")
    return 1 if fell else 0
