"""`rag keys`: the API keys of one's tenant, listed, made, rotated and revoked with the key of an administrator."""

from typing import Annotated, Any, Literal
from urllib.parse import quote

import typer

from local.cli.failure import UsageFailure
from local.cli.output import note, one_line, table
from local.cli.remote import Session, remote

LIST_EPILOG = """\b
Examples:
  rag keys list
  rag keys list --live --json | jq -r '.keys[].id'
"""

CREATE_EPILOG = """\b
Examples:
  rag keys create "help desk"                                   # asks, in every collection
  rag keys create "nightly import" --role writer --collection manuals --expires-in-days 90
  rag keys create second --role admin --json | jq -r .api_key
"""

REVOKE_EPILOG = """\b
Examples:
  rag keys revoke aB3dE5gH
  rag keys revoke rag_aB3dE5gH --json | jq -r .status
"""

ROTATE_EPILOG = """\b
Examples:
  rag keys rotate aB3dE5gH                      # both keys live for a day
  rag keys rotate aB3dE5gH --overlap-hours 0    # the old one leaked
"""

_PREFIX = "rag_"

KeyId = Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `rag keys list` shows it.")]

keys = typer.Typer(rich_markup_mode=None, no_args_is_help=True)


@keys.callback()
def several() -> None:
    """List, make, rotate and revoke API keys.

    It takes the API key of an administrator. Each key is shown once, when it is made: what is kept of it is a hash.
    """


@remote
async def list_keys(
    session: Session,
    *,
    live: Annotated[bool, typer.Option("--live", help="Only those that have not ended.")] = False,
) -> int:
    """List the API keys of your tenant, but never their secrets.

    The live ones stand first, then those that have expired or were revoked.
    """
    reply = await session.client.call("GET", "/v1/keys")
    shown = [key for key in reply["keys"] if key["status"] == "live" or not live]
    session.show({"keys": shown}, _tell_all)
    return 0


@remote
async def create(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for.")],
    *,
    role: Annotated[
        Literal["reader", "writer", "admin"],
        typer.Option(help="reader asks, writer changes documents too, admin manages collections and keys too."),
    ] = "reader",
    collection: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Limit the key to this collection; may be repeated. Without: all.", show_default=False
        ),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A group whose documents it may see; may be repeated.", show_default=False),
    ] = None,
    expires_in_days: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="When it ends. Without: when it is revoked.")
    ] = None,
) -> int:
    """Make an API key and print it, this once.

    A key does what its role allows, in the collections that it is limited to.
    """
    wanted = {"name": name, "role": role, "collections": collection or None, "groups": group or []}
    made = await session.client.call("POST", "/v1/keys", body={**wanted, "expires_in_days": expires_in_days})
    session.show(made, _tell_new)
    return 0


@remote
async def revoke(session: Session, key: KeyId) -> int:
    """Revoke an API key: it is refused from now on.

    On a laptop that may take up to a minute. To revoke a key again changes nothing.
    """
    ended = await session.client.call("DELETE", f"/v1/keys/{_id(key)}")
    session.show(ended, lambda key: print(f"Revoked {_named(key)}."))
    return 0


@remote
async def rotate(
    session: Session,
    key: KeyId,
    *,
    overlap_hours: Annotated[
        int, typer.Option(metavar="N", min=0, max=720, help="How long the old key lives on.")
    ] = 24,
) -> int:
    """Make a key's successor, print it this once, and give the old key an end.

    The new key may do what the old one may. Until the old one ends both are let in, so that nobody is locked out while
    they change places.
    """
    body = {"overlap_hours": overlap_hours}
    made = await session.client.call("POST", f"/v1/keys/{_id(key)}/rotate", body=body)
    session.show(made, _tell_new)
    if not session.json:
        print(
            f"{one_line(_id(key))} ends in {overlap_hours} h." if overlap_hours else f"{one_line(_id(key))} has ended."
        )
    return 0


def _id(given: str) -> str:
    """Of an id, or of what a key begins with; a whole key is not sent where paths are logged."""
    if "." in given:
        hint = "The id is what stands between `rag_` and the dot. Was the whole key seen by others? Rotate it."
        raise UsageFailure("That is a key, and its id is wanted.", hint=hint)
    return quote(given.removeprefix(_PREFIX), safe="")


def _named(key: dict[str, Any]) -> str:
    return f"{one_line(key['id'])} ({one_line(key['name'])})"


def _tell_new(key: dict[str, Any]) -> None:
    ends = f", until {_time(key['expires_at'])} UTC" if key["expires_at"] else ""
    print(f"Key {_named(key)}: {one_line(key['role'])} in {_reach(key)}{ends}")
    print(f"API key {one_line(key['api_key'])}")
    note("It is shown this once.")


def _tell_all(reply: dict[str, Any]) -> None:
    if not reply["keys"]:
        print("No key. `rag keys create NAME` makes one.")
        return
    rows = [
        (
            key["id"],
            key["name"],
            key["role"],
            _reach(key),
            ", ".join(key["groups"]),
            _state(key),
            _time(key["created_at"]),
            _time(key["expires_at"]),
            _time(key["last_used_at"]) or "never",
        )
        for key in reply["keys"]
    ]
    table(("id", "name", "role", "collections", "groups", "status", "made", "ends", "last used"), rows)


def _reach(key: dict[str, Any]) -> str:
    return "all collections" if key["collections"] is None else one_line(", ".join(key["collections"]))


def _state(key: dict[str, Any]) -> str:
    replaced = key["status"] == "live" and key["replaced_by"]
    return f"live, replaced by {key['replaced_by']}" if replaced else str(key["status"])


def _time(text: str | None) -> str:
    return one_line(text)[:16].replace("T", " ")


for _name, _command, _epilog in (
    ("list", list_keys, LIST_EPILOG),
    ("create", create, CREATE_EPILOG),
    ("revoke", revoke, REVOKE_EPILOG),
    ("rotate", rotate, ROTATE_EPILOG),
):
    keys.command(_name, epilog=_epilog)(_command)
