"""`rag put`: files and folders go in; each one ends `ready` or `failed` with a reason."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from local.cli import expressions
from local.cli.output import note, safe, size, table
from local.cli.progress import Meter, meter
from local.cli.remote import CollectionName, Session, remote
from local.cli.sources import Source, find
from local.cli.uploading import Upload, send, settle

CONCURRENCY = 4

EPILOG = """\b
Examples:
  rag put handbook.pdf                       # its key is handbook.pdf
  rag put docs/                              # docs/hr/travel.md has the key hr/travel.md
  rag put docs/ --prefix 2026 --no-wait      # 2026/hr/travel.md; return after the upload
  rag put report.pdf --meta year=2026 --meta tags=audit --meta tags=eu
  rag put payroll.xlsx --allow group:finance --allow user:ann@example.com   # for nobody else but admins
  rag put *.docx --collection legal --json   # JSON for scripts; exit 1 if one failed
"""


@remote
async def put(
    session: Session,
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH", help="Files, and folders to be read with all below them.")
    ],
    *,
    collection: CollectionName = "default",
    prefix: Annotated[str, typer.Option("--prefix", metavar="TEXT", help="Put the keys below this one.")] = "",
    metadata: Annotated[
        Path | None, typer.Option("--metadata", metavar="FILE", help="A JSON object to describe each of them with.")
    ] = None,
    meta: Annotated[
        list[str] | None,
        typer.Option(
            "--meta",
            metavar="NAME=VALUE",
            help="Describe each of them; a name given twice is a list. 2020 and true are no text, '\"2020\"' is.",
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="WHO",
            help="Only for user:…, group:… or key:…, and admins; for several, give it several times.",
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until each document is ready or failed.")] = True,
    timeout_seconds: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="How long to wait at most.")
    ] = 900.0,
) -> int:
    """Upload files and folders.

    Then wait until each can be searched, or failed with a reason. A file's key is its name; a file in a given folder
    has its path below that folder as its key. Hidden files are left out. Putting a key again replaces the document.
    A file NAME.metadata.json holds the metadata of the document NAME, and who may see it. A document that is not for
    you is not waited for: you could not see it.
    """
    described = expressions.metadata(metadata, meta or []) or {}
    # In the file it stands as it would in a sidecar.
    told = described.pop("allowed_principals", None)
    uploads = await put_all(
        session,
        find(paths, prefix),
        collection,
        wait_seconds=timeout_seconds if wait else None,
        metadata=described,
        allowed=allow or told,
    )
    session.show(
        {
            "documents": [upload.as_json() for upload in uploads],
            "ready": sum(upload.status == "ready" for upload in uploads),
            "failed": sum(upload.status == "failed" for upload in uploads),
        },
        lambda _: tell(uploads, waited=wait),
    )
    return 0 if all(upload.is_done or (not wait and upload.status == "uploaded") for upload in uploads) else 1


async def put_all(
    session: Session,
    sources: Sequence[Source],
    collection: str,
    *,
    wait_seconds: float | None,
    metadata: dict[str, Any] | None = None,
    allowed: Any = None,
) -> list[Upload]:
    """Upload all, at most four at a time, and unless `wait_seconds` is None follow each to its end."""
    uploads = [Upload(source, collection, metadata=metadata, allowed=allowed) for source in sources]
    with meter(quiet=session.json, total_bytes=sum(source.size for source in sources), files=len(sources)) as progress:
        try:
            # What describes a document is there before it, so that whoever is ready has its metadata.
            for described in (True, False):
                await _send_all(session, [one for one in uploads if one.is_sidecar == described], progress)
            if wait_seconds is not None:
                await settle(session.client, uploads, progress, timeout_seconds=wait_seconds)
        except asyncio.CancelledError:
            _say_what_goes_on(uploads)
            raise
    return uploads


async def _send_all(session: Session, uploads: Sequence[Upload], progress: Meter) -> None:
    gate = asyncio.Semaphore(CONCURRENCY)

    async def one(upload: Upload) -> None:
        async with gate:
            await send(session.client, upload, progress)

    tasks = [asyncio.ensure_future(one(upload)) for upload in uploads]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _say_what_goes_on(uploads: Sequence[Upload]) -> None:
    arrived = [upload for upload in uploads if upload.status in {"uploaded", "processing"}]
    absent = sum(upload.status == "waiting" for upload in uploads)
    note(f"\nStopped; {f'{absent} of {len(uploads)} files were not' if absent else 'every file was'} uploaded.")
    if arrived:
        note(f"The platform goes on with {len(arrived)} that arrived; `rag documents` shows how far they are.")


def tell(uploads: Sequence[Upload], *, waited: bool) -> None:
    """The table of what became of each file, and one line to sum up."""
    rows = [
        (upload.key, upload.status, size(upload.source.size), upload.chunk_count or "", upload.reason)
        for upload in uploads
    ]
    table(("key", "status", "size", "chunks", "reason"), rows)
    count = {status: sum(upload.status == status for upload in uploads) for status in ("ready", "failed")}
    described = sum(upload.is_sidecar and upload.is_done for upload in uploads) if waited else 0
    hidden = sum(not upload.visible and upload.is_done for upload in uploads) if waited else 0
    unsettled = len(uploads) - count["ready"] - count["failed"] - described - hidden
    parts = [f"{count['ready']} ready", f"{count['failed']} failed"] if waited else []
    parts += [f"{described} with metadata"] if described else []
    parts += [f"{hidden} for others"] if hidden else []
    parts += [f"{unsettled} {'not finished' if waited else 'uploaded'}"] if unsettled or not waited else []
    print(safe(", ".join(parts)))
