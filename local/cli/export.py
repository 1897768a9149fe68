"""`rag export`: all that is kept of a tenant or of one person, in a folder."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from local.cli.failure import UsageFailure
from local.cli.output import note, plural, table
from local.cli.remote import Session, remote

EPILOG = """\b
Examples:
  rag export backup/                          # all records of the tenant
  rag export backup/ --contents               # and every document's file
  rag export ann/ --user user:6f1c0a52-4d1e-4c55-9b0e-2f1f5c1a7d11
"""

_OF_TENANT = ("collections", "documents", "conversations", "feedback", "usage", "erasures", "audit")
_OF_USER = ("conversations", "feedback", "usage", "audit")
_PAGE_SIZE = 200
_PROGRESS = "progress.json"
_MANIFEST = "manifest.json"


@remote
async def export(
    session: Session,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to; it is made.", file_okay=False)],
    *,
    user: Annotated[
        str | None, typer.Option("--user", metavar="WHO", help="Only what user:<subject> or key:<id> has left.")
    ] = None,
    contents: Annotated[bool, typer.Option("--contents", help="Also the file of each document.")] = False,
) -> int:
    """Write all that is kept into a folder.

    Of your tenant, or of one person: a file of JSON lines for each kind of record, and a manifest of counts and SHA-256
    at the end. Broken off, the same command goes on where it was. It takes an administrator's credential.
    """
    if user and contents:
        raise UsageFailure("Documents are the tenant's, not a user's: --contents goes without --user.")
    if (folder / _MANIFEST).exists():
        raise UsageFailure(f"{folder} has a whole export already.", hint="Name another folder, or delete this one.")
    folder.mkdir(parents=True, exist_ok=True)
    progress = _Progress(folder, {"user": user, "contents": contents})
    for kind in _OF_USER if user else _OF_TENANT:
        await _fetch(session, progress, kind, user=user, contents=contents)
    manifest = _manifest(folder, progress)
    session.show({"folder": str(folder), **manifest}, _tell)
    return 0


class _Progress:
    """How far each file has come: bytes that are whole, records in them, and the cursor behind these."""

    def __init__(self, folder: Path, wanted: dict[str, Any]) -> None:
        self.folder = folder
        self.wanted = wanted
        self._path = folder / _PROGRESS
        self.files: dict[str, dict[str, Any]] = {}
        if self._path.exists():
            kept = json.loads(self._path.read_text())
            if kept["wanted"] != wanted:
                raise UsageFailure(f"{folder} has the beginning of another export.", hint="Name another folder.")
            self.files = kept["files"]

    def of(self, name: str) -> dict[str, Any]:
        return self.files.setdefault(name, {"bytes": 0, "records": 0, "cursor": None, "done": False})

    def save(self) -> None:
        """Whole or not at all."""
        beside = self._path.with_suffix(".new")
        beside.write_text(json.dumps({"wanted": self.wanted, "files": self.files}))
        beside.replace(self._path)


async def _fetch(session: Session, progress: _Progress, kind: str, *, user: str | None, contents: bool) -> None:
    state = progress.of(f"{kind}.jsonl")
    links = "true" if contents and kind == "documents" else None
    with (progress.folder / f"{kind}.jsonl").open("ab") as file:
        # What a run that was broken off has written beyond its last page comes again.
        file.truncate(state["bytes"])
        while not state["done"]:
            page = await session.client.call(
                "GET", f"/v1/export/{kind}", principal=user, links=links, limit=_PAGE_SIZE, cursor=state["cursor"]
            )
            for record in page["records"]:
                await _content(session, progress.folder, record)
                file.write(json.dumps(record, ensure_ascii=True, sort_keys=True).encode() + b"\n")
            file.flush()
            state |= {"bytes": file.tell(), "records": state["records"] + len(page["records"])}
            state |= {"cursor": page["next_cursor"], "done": page["next_cursor"] is None}
            progress.save()
            if not session.json:
                note(f"{kind}: {plural(state['records'], 'record')}")


async def _content(session: Session, folder: Path, record: dict[str, Any]) -> None:
    """Fetch the file that a record has a link to, under the document's id: a key may say anything."""
    link = record.pop("download", None)
    if link is None:
        return
    path = folder / "contents" / record["id"]
    path.parent.mkdir(exist_ok=True)
    if not (path.exists() and path.stat().st_size == record["size"]):
        beside = path.with_suffix(".new")
        beside.write_bytes(await session.client.download(link["url"]))
        beside.replace(path)
    record["content"] = f"contents/{record['id']}"


def _manifest(folder: Path, progress: _Progress) -> dict[str, Any]:
    files: dict[str, dict[str, Any]] = {name: {"records": state["records"]} for name, state in progress.files.items()}
    files |= {f"contents/{path.name}": {} for path in sorted((folder / "contents").glob("*"))}
    for name, told in files.items():
        with (folder / name).open("rb") as file:
            told |= {"bytes": (folder / name).stat().st_size}
            told |= {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    manifest = {**progress.wanted, "files": files}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=2))
    (folder / _PROGRESS).unlink()
    return manifest


def _tell(reply: dict[str, Any]) -> None:
    kinds = {name: told for name, told in reply["files"].items() if "records" in told}
    table(("file", "records", "bytes"), [(name, told["records"], told["bytes"]) for name, told in kinds.items()])
    if count := len(reply["files"]) - len(kinds):
        print(f"{plural(count, 'file')} of documents in contents/.")
    print(f"Counts and SHA-256 of all are in {reply['folder']}/{_MANIFEST}.")
