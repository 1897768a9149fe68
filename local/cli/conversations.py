"""`rag conversations`: what was asked with `rag ask --conversation`."""

import uuid
from typing import Annotated, Any

import typer

from local.cli.failure import UsageFailure
from local.cli.output import one_line, plural, table, wrapped
from local.cli.remote import Session, remote

CONVERSATIONS_EPILOG = """\b
Examples:
  rag conversations
  rag conversations 6f1c0a52-…
  rag conversations 6f1c0a52-… --delete
"""


@remote
async def conversations(
    session: Session,
    conversation: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Show what was said in this one.", show_default=False)
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete it, with everything that was said in it.")] = False,
) -> int:
    """List, show or delete conversations.

    They are those of your API key. Each is kept for a day after its last question, unless the platform says otherwise.
    """
    if conversation is not None:
        conversation = _identity(conversation)
    if conversation is None:
        if delete:
            raise typer.BadParameter("say which one: rag conversations ID --delete")
        session.show(await session.client.call("GET", "/v1/conversations"), _tell_all)
    elif delete:
        await session.client.call("DELETE", f"/v1/conversations/{conversation}")
        session.show({"id": conversation, "status": "deleted"}, lambda _: print("Deleted."))
    else:
        session.show(await session.client.call("GET", f"/v1/conversations/{conversation}"), _tell_one)
    return 0


def _identity(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        hint = "`rag conversations` lists yours."
        raise UsageFailure(f"{text} is no id of a conversation.", hint=hint) from None


def _tell_all(reply: dict[str, Any]) -> None:
    if not reply["conversations"]:
        print("No conversation. `rag ask QUESTION --conversation new` begins one.")
        return
    rows = [(c["id"], c["message_count"], _time(c["created_at"]), c["title"]) for c in reply["conversations"]]
    table(("conversation", "messages", "begun", "first question"), rows)


def _tell_one(reply: dict[str, Any]) -> None:
    for message in reply["messages"]:
        print(wrapped(message["content"], indent="  ", first="> " if message["role"] == "user" else "  "))
    print(f"\n{plural(reply['message_count'], 'message')} · kept until {_time(reply['expires_at'])} UTC")


def _time(text: str) -> str:
    return one_line(text)[:16].replace("T", " ")
