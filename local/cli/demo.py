"""`rag demo`: the whole product once, with documents of its own, in a directory that is gone afterwards."""

import asyncio
import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from local.cli.connection import Connection, program
from local.cli.failure import Failure
from local.cli.output import as_json, milliseconds, note, wrapped
from local.cli.remote import AsJson, Data, Given, Session

SAMPLES = Path(__file__).resolve().parents[1] / "samples"
QUESTIONS = (
    "Why did the gauge on Kelder Rock fail?",
    "Who approves a flight that costs more than 800 euros?",
    "How much does the heated radar gauge cost?",
)

EPILOG = """\b
Examples:
  rag demo
  rag demo --keep                            # then: rag up --data DIR, with the documents still in it
  rag demo --json | jq '.answers[].answer'
"""


def demo(
    ctx: typer.Context,
    *,
    data: Data = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the data directory.")] = False,
    json: AsJson = False,
) -> int:
    """Show everything once, with sample documents.

    It starts the platform in a temporary directory, puts eight documents in, asks three questions, stops the platform
    and removes the directory. Nothing outside it is touched, and nothing is sent anywhere: it uses the built-in model
    even where OPENAI_API_KEY is set.
    """
    before = ctx.obj or Given()
    chosen = data or before.wanted.data
    directory = chosen or Path(tempfile.mkdtemp(prefix="rag-demo-"))
    try:
        result = asyncio.run(_show(directory, json=json or before.json))
    except (asyncio.CancelledError, KeyboardInterrupt):
        _remove(directory, kept=keep or chosen is not None)
        note("Stopped.")
        return 130
    except Exception as problem:
        raise Failure(f"The demo broke off: {problem}", hint=f"The logs are in {directory / 'logs'}.") from problem
    _remove(directory, kept=keep or chosen is not None)
    if json or before.json:
        print(as_json(result))
    else:
        _tell_end(result["seconds"], directory if keep or chosen else None)
    return 0


def _remove(directory: Path, *, kept: bool) -> None:
    if not kept:
        shutil.rmtree(directory, ignore_errors=True)


async def _show(directory: Path, *, json: bool) -> dict[str, Any]:
    from local.cli.client import Client  # noqa: PLC0415 (httpx and the services cost seconds that --help need not wait)
    from local.cli.starting import started, stop_on_signals  # noqa: PLC0415
    from local.shell import Shell  # noqa: PLC0415

    stop_on_signals()
    began = time.monotonic()
    _say(f"Starting the platform in {directory}", quiet=json)
    # An empty shell: neither a model server nor settings of the user's.
    async with started(directory, quiet=json, shell=Shell()) as ready:
        async with Client(Connection(ready["url"], ready["api_key"], directory)) as client:
            session = Session(client, json)
            documents = await _put_samples(session)
            answers = [await _ask(session, question) for question in (*QUESTIONS, QUESTIONS[0])]
        _say("Stopping", quiet=json)
    return {"documents": documents, "answers": answers, "seconds": round(time.monotonic() - began, 2)}


async def _put_samples(session: Session) -> list[dict[str, Any]]:
    from local.cli.put import put_all, tell  # noqa: PLC0415
    from local.cli.sources import find  # noqa: PLC0415

    _say(f"\nPutting in the documents of {SAMPLES.parent.name}/{SAMPLES.name}\n", quiet=session.json)
    sources = [source for source in find([SAMPLES]) if source.key != "README.md"]
    uploads = await put_all(session, sources, "default", wait_seconds=120.0)
    if not session.json:
        tell(uploads, waited=True)
    if any(upload.status != "ready" for upload in uploads):
        raise Failure("not every sample document became ready.")
    return [upload.as_json() for upload in uploads]


async def _ask(session: Session, question: str) -> dict[str, Any]:
    from local.cli.ask import tell_answer  # noqa: PLC0415

    started = time.perf_counter()
    reply = await session.client.call("POST", "/v1/query", body={"question": question})
    total_ms = (time.perf_counter() - started) * 1000
    if not reply["citations"]:
        raise Failure(f"“{question}” found no answer in the samples.")
    if not session.json:
        again = "The same question again\n" if reply["cached"] else ""
        print(f"\n{again}{wrapped(question, first='> ', indent='  ')}\n")
        tell_answer(reply)
        print(f"{milliseconds(total_ms)} from question to answer")
    return {"question": question, "total_ms": round(total_ms, 2), **reply}


def _say(message: str, *, quiet: bool) -> None:
    if not quiet:
        note(message)


def _tell_end(seconds: float, kept: Path | None) -> None:
    rag, where = program(), f"Its data is kept in {kept}." if kept else "Everything it made is removed."
    print(f"\nThat was all, in {seconds:.1f} s. {where}\n\nNow with your own documents:")
    for command in ("up", "put PATH", 'ask "What does it say about …?"'):
        print(f"  {rag} {command}")
