"""`rag delete`, `rag erasures`: what is removed for good, and the receipts of it."""

import asyncio
import time
import uuid
from typing import Annotated, Any
from urllib.parse import quote

import typer

from local.cli.asking_back import confirm
from local.cli.failure import UsageFailure
from local.cli.output import one_line, plural, table
from local.cli.remote import CollectionName, Session, remote

DELETE_EPILOG = """\b
Examples:
  rag delete handbook.pdf
  rag delete hr/travel.md hr/leave.md --collection staff --wait
  rag delete --collection staff --all --yes
"""

ERASURES_EPILOG = """\b
Examples:
  rag erasures
  rag erasures 6f1c0a52-… --json | jq .removed
"""

USER_EPILOG = """\b
Examples:
  rag erase user user:6f1c0a52-4d1e-4c55-9b0e-2f1f5c1a7d11
  rag erase user key:aB3dE5gH --yes --wait
"""

_DELETION_SECONDS = 600.0
_LOOK_SECONDS = 0.2
_NOUNS = {
    "documents": "document",
    "chunks": "passage",
    "collections": "collection",
    "object_versions": "stored version",
    "cached_answers": "cached answer",
    "conversations": "conversation",
    "feedback": "rating",
    "kept_answers": "kept answer",
    "audit_rows": "row of the audit log",
}


@remote
async def delete(
    session: Session,
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="KEY", help="Keys, as `rag documents` lists them.", show_default=False)
    ] = None,
    *,
    collection: CollectionName = "default",
    everything: Annotated[bool, typer.Option("--all", help="The whole collection, and the collection itself.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether --all is meant.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until they are gone.")] = False,
) -> int:
    """Delete documents for good.

    Their passages go, every version that the bucket keeps, and cached answers. `rag erasures` shows the receipts.
    """
    if everything == bool(keys):
        raise UsageFailure("Say which documents, or --all.", hint="`rag documents` lists their keys.")
    if everything:
        confirm(f"collection {collection}", yes=yes)
        results = [await _delete_all(session, collection)]
    else:
        results = [await _delete(session, key, collection) for key in keys or []]
    if wait:
        await _wait_until_gone(session, results)
    session.show({"documents": results}, _tell_deleted)
    return 0 if all(result["status"] == ("deleted" if wait else "deleting") for result in results) else 1


@remote
async def erasures(
    session: Session,
    erasure: Annotated[
        uuid.UUID | None, typer.Argument(metavar="[ID]", help="Only this one.", show_default=False)
    ] = None,
) -> int:
    """Show receipts of what was deleted.

    They say how much of what was removed, since when, and until when backups keep it.
    """
    if erasure is None:
        reply = await session.client.call("GET", "/v1/erasures")
    else:
        reply = {"erasures": [await session.client.call("GET", f"/v1/erasures/{erasure}")]}
    session.show(reply, _tell_receipts)
    return 0


erase = typer.Typer(rich_markup_mode=None, no_args_is_help=True)


@erase.callback()
def of_whom() -> None:
    """Erase what a person has left."""


@remote
async def user(
    session: Session,
    principal: Annotated[str, typer.Argument(metavar="WHO", help="user:<subject> or key:<id>, as `rag audit` has it.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether it is meant.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done.")] = False,
) -> int:
    """Erase what a user or a key has left: conversations, feedback, and cached answers.

    Documents stay, and so do the rows of the audit log until their time is over. It takes an administrator's key.
    """
    confirm(f"everything that {principal} has left", yes=yes)
    receipt = await session.client.call("DELETE", f"/v1/users/{quote(principal, safe='')}/data")
    end = time.monotonic() + _DELETION_SECONDS
    while wait and receipt["status"] != "done" and time.monotonic() < end:
        await asyncio.sleep(_LOOK_SECONDS)
        receipt = await session.client.call("GET", f"/v1/erasures/{receipt['id']}")
    session.show({"erasures": [receipt]}, _tell_receipts)
    return 0 if receipt["status"] == "done" or not wait else 1


erase.command("user", epilog=USER_EPILOG)(user)


async def _delete_all(session: Session, collection: str) -> dict[str, Any]:
    reply = await session.client.call("DELETE", f"/v1/collections/{collection}")
    return {"key": None, "collection": collection, "id": None, "status": "deleting", "erasure": reply["id"]}


async def _delete(session: Session, key: str, collection: str) -> dict[str, Any]:
    # `key` narrows the list to one; a platform that ignored it would otherwise have us delete a stranger.
    found = session.client.documents(collection=collection, key=key, limit=1)
    document = next((d for d in [d async for d in found] if d["key"] == key), None)
    result = {"key": key, "collection": collection, "id": None, "status": "not found", "erasure": None}
    if document is None:
        return result
    reply = await session.client.call("DELETE", f"/v1/documents/{document['id']}")
    return result | {"id": document["id"], "status": "deleting", "erasure": reply["id"]}


async def _wait_until_gone(session: Session, results: list[dict[str, Any]]) -> None:
    end = time.monotonic() + _DELETION_SECONDS
    for result in (result for result in results if result["erasure"]):
        while (await session.client.call("GET", f"/v1/erasures/{result['erasure']}"))["status"] != "done":
            if time.monotonic() > end:
                return
            await asyncio.sleep(_LOOK_SECONDS)
        result["status"] = "deleted"


def _tell_deleted(reply: dict[str, Any]) -> None:
    rows = [
        (one_line(result["key"] or f"all of {result['collection']}"), result["status"]) for result in reply["documents"]
    ]
    table(("key", "status"), rows)
    if any(result["status"] == "not found" for result in reply["documents"]):
        print("`rag documents` lists the keys there are.")


def _tell_receipts(reply: dict[str, Any]) -> None:
    if not reply["erasures"]:
        print("Nothing was deleted yet.")
        return
    rows = [
        (
            each["id"],
            f"{each['scope']} {each['document_id'] or each['collection'] or ''}".strip(),
            _time(each["requested_at"]),
            each["status"],
            ", ".join(plural(count, _NOUNS[kind]) for kind, count in each["removed"].items() if count),
            _time(each["backups_expire_at"]) if each["backups_expire_at"] else "",
        )
        for each in reply["erasures"]
    ]
    table(("receipt", "what", "asked for", "status", "removed", "in backups until"), rows)


def _time(text: str) -> str:
    return one_line(text)[:16].replace("T", " ")
