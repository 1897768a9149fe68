"""`rag documents`, `rag retry`, `rag history`, `rag collections`: what the platform holds."""

import asyncio
import time
from typing import Annotated, Any, Literal

import typer

from local.cli.failure import Failure
from local.cli.output import one_line, size, table
from local.cli.remote import CollectionName, Session, remote

DOCUMENTS_EPILOG = """\b
Examples:
  rag documents
  rag documents --status failed              # with the reason of each
  rag documents --collection hr --prefix 2026/ --json | jq -r '.documents[].key'
"""

RETRY_EPILOG = """\b
Examples:
  rag retry scan.pdf                       # its key, as `rag documents --status failed` lists it
  rag retry --failed --collection hr       # all that failed there, for instance after a mended fault
  rag retry scan.pdf --wait                # until it is ready, or has failed again
"""

HISTORY_EPILOG = """\b
Examples:
  rag history handbook.pdf
  rag history travel.md --collection hr --json | jq '[.history[].cost_usd] | add'
"""

COLLECTIONS_EPILOG = """\b
Examples:
  rag collections
  rag collections --json | jq '.collections[] | {name, document_count}'
"""

_RETRY_SECONDS = 600.0
_LOOK_SECONDS = 0.2
_PAGE_SIZE = 500


@remote
async def documents(
    session: Session,
    collection: Annotated[
        str | None, typer.Option("--collection", metavar="NAME", help="Only this collection.")
    ] = None,
    status: Annotated[
        Literal["uploaded", "processing", "ready", "failed"] | None, typer.Option("--status", help="Only these.")
    ] = None,
    prefix: Annotated[str | None, typer.Option("--prefix", metavar="TEXT", help="Only keys that start so.")] = None,
) -> int:
    """List documents, why one failed, and for whom it is."""
    found = session.client.documents(collection=collection, status=status, prefix=prefix, limit=_PAGE_SIZE)
    session.show({"documents": [document async for document in found]}, _tell_documents)
    return 0


@remote
async def retry(
    session: Session,
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY]", help="Keys, as `rag documents` lists them.")
    ] = None,
    *,
    collection: CollectionName = "default",
    failed: Annotated[bool, typer.Option("--failed", help="All documents of the collection that failed.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until they are ready or failed.")] = False,
) -> int:
    """Have documents that failed ingested again."""
    if bool(keys) == failed:
        raise typer.BadParameter("Name the keys of documents, or give --failed for all that failed.")
    if failed:
        found = session.client.documents(collection=collection, status="failed", limit=_PAGE_SIZE)
        keys = [document["key"] async for document in found]
    results = [await _retry(session, key, collection) for key in keys or []]
    if wait:
        await _wait_until_ended(session, results)
    session.show({"documents": results}, _tell_retried)
    return 0 if all(result["status"] == ("ready" if wait else "uploaded") for result in results) else 1


@remote
async def history(
    session: Session,
    key: Annotated[str, typer.Argument(metavar="KEY", help="A key, as `rag documents` lists it.")],
    *,
    collection: CollectionName = "default",
) -> int:
    """Show what was done for a document.

    Its latest attempts, the newest first: how each ended, how long its stages took, and what the model was asked.
    """
    found = await _document(session, key, collection)
    document = await session.client.document(found["id"]) if found else None
    if document is None:
        raise Failure(f"There is no document {key} in {collection}.", hint="`rag documents` lists the keys there are.")
    session.show(document, _tell_history)
    return 0


@remote
async def collections(session: Session) -> int:
    """List collections and how much they hold."""
    session.show(await session.client.call("GET", "/v1/collections"), tell_collections)
    return 0


def tell_collections(reply: dict[str, Any]) -> None:
    """The table of collections."""
    if not reply["collections"]:
        print("There is no collection yet; `rag put PATH` makes the first.")
        return
    headings = ("collection", "language", "documents", "chunks", "waiting", "ingesting", "failed")
    table(headings, [_collection_row(collection) for collection in reply["collections"]])


def _collection_row(collection: dict[str, Any]) -> tuple[Any, ...]:
    now = collection.get("ingesting") or {}  # which a platform that is older does not say
    share = f" ({now['passages_embedded']:,}/{now['passages_read']:,} passages)" if now.get("passages_read") else ""
    return (
        collection["name"],
        collection["language"],
        collection["document_count"],
        collection["chunk_count"],
        now.get("uploaded") or "",
        f"{now['processing']}{share}" if now.get("processing") else "",
        now.get("failed") or "",
    )


def _tell_history(document: dict[str, Any]) -> None:
    print(f"{one_line(document['key'])} is {one_line(document['status'])}, in {one_line(document['collection'])}.\n")
    headings = ("began", "version", "try", "outcome", "chunks", "calls", "tokens", "USD", "seconds", "reason")
    table(headings, [_attempt_row(attempt) for attempt in document["history"]])


def _attempt_row(attempt: dict[str, Any]) -> tuple[Any, ...]:
    error, took = attempt["error"], attempt["durations_ms"]
    return (
        one_line(attempt["started_at"])[:19].replace("T", " "),
        one_line(attempt["version_id"])[:12],
        attempt["attempt"],
        attempt["outcome"],
        attempt["chunk_count"] or "",
        attempt["model_calls"] or "",
        attempt["tokens"] or "",
        "" if attempt["cost_usd"] is None else f"{attempt['cost_usd']:.6f}",
        " + ".join(f"{stage} {milliseconds / 1000:.1f}" for stage, milliseconds in took.items() if milliseconds),
        f"{error['code']}: {error['message']}" if error else "",
    )


async def _retry(session: Session, key: str, collection: str) -> dict[str, Any]:
    document = await _document(session, key, collection)
    if document is None:
        return {"key": key, "collection": collection, "id": None, "status": "not found", "error": None}
    result = {"key": key, "collection": collection, "id": document["id"], "status": "uploaded", "error": None}
    try:
        await session.client.call("POST", f"/v1/documents/{document['id']}/retry")
    except Failure as failure:
        if failure.facts.get("status") not in {404, 409}:
            raise
        result["status"] = "not failed" if failure.facts["status"] == 409 else "not found"
    return result


async def _document(session: Session, key: str, collection: str) -> dict[str, Any] | None:
    # `key` narrows the list to one; a platform that ignored it would otherwise have us change a stranger.
    found = session.client.documents(collection=collection, key=key, limit=1)
    return next((d for d in [d async for d in found] if d["key"] == key), None)


async def _wait_until_ended(session: Session, results: list[dict[str, Any]]) -> None:
    end = time.monotonic() + _RETRY_SECONDS
    for result in (result for result in results if result["status"] == "uploaded"):
        while time.monotonic() < end:
            document = await session.client.document(result["id"])
            if document is None or document["status"] in {"ready", "failed"}:
                result["status"] = document["status"] if document else "not found"
                result["error"] = document["error"] if document else None
                break
            await asyncio.sleep(_LOOK_SECONDS)


def _tell_documents(reply: dict[str, Any]) -> None:
    if not reply["documents"]:
        print("No document. `rag put PATH` adds some.")
        return
    headings = ("collection", "key", "status", "size", "chunks", "updated", "reason")
    limited = any(document["allowed_principals"] is not None for document in reply["documents"])
    rows = [_row(document) + ((_allowed(document),) if limited else ()) for document in reply["documents"]]
    table((*headings, "only for") if limited else headings, rows)


def _allowed(document: dict[str, Any]) -> str:
    allowed = document["allowed_principals"]
    return "" if allowed is None else ", ".join(allowed) or "admins"


def _row(document: dict[str, Any]) -> tuple[Any, ...]:
    error, described = document["error"], document["metadata_error"]
    remarks = [f"metadata: {described}"] if described else []
    remarks += [f"warning: {warning}" for warning in document["warnings"]]
    reason = f"{error['code']}: {error['message']}" if error else "; ".join(remarks)
    return (
        document["collection"],
        document["key"],
        document["status"],
        size(document["size"]),
        _chunks(document),
        one_line(document["updated_at"])[:16].replace("T", " "),
        reason,
    )


def _chunks(document: dict[str, Any]) -> str:
    """How many there are; of a large one that is being ingested, how many of those read so far are embedded."""
    progress = document.get("progress")
    if progress:
        return f"{progress['embedded']}/{progress['read']}{'' if progress['all_read'] else '+'}"
    return str(document["chunk_count"] or "")


def _tell_retried(reply: dict[str, Any]) -> None:
    if not reply["documents"]:
        print("No document has failed there.")
        return
    rows = [(one["key"], one["status"], one_line((one["error"] or {}).get("message"))) for one in reply["documents"]]
    table(("key", "status", "reason"), rows)
    if any(result["status"] == "not found" for result in reply["documents"]):
        print("`rag documents` lists the keys there are.")
