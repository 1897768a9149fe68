"""`rag users`: people of the local platform's own issuer, and tokens to ask as one of them."""

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from local.cli.asking_back import confirm
from local.cli.connection import data_directory, ready_file
from local.cli.failure import Failure, NotRunning
from local.cli.output import as_json, one_line
from local.cli.remote import AsJson, Data, Given

CREATE_EPILOG = """\b
Examples:
  rag users create ann@example.com --role writer --groups finance,legal
  rag users create bob@example.com --tenant 0c6f9a52-6d0b-4d7a-9a53-5f0d3c1e2b11
"""
LIST_EPILOG = """\b
Examples:
  rag users list
  rag users list --json | jq -r '.users[].email'
"""
DELETE_EPILOG = """\b
Examples:
  rag users delete ann@example.com --yes
"""
PRINT_EPILOG = """\b
Examples:
  rag users token ann@example.com
  export RAG_TOKEN=$(rag users token ann@example.com)     # the next commands are hers
  curl -H "Authorization: Bearer $(rag users token ann@example.com)" http://127.0.0.1:8000/v1/documents
"""

Email = Annotated[str, typer.Argument(metavar="EMAIL", help="The user's address.")]

users = typer.Typer(rich_markup_mode=None, no_args_is_help=True)


@users.callback()
def several() -> None:
    """Make users of the local platform, and their tokens.

    They ask with access tokens of its own issuer, as on AWS with those of Cognito.
    """


@users.command(epilog=CREATE_EPILOG)
def create(
    ctx: typer.Context,
    email: Email,
    *,
    tenant: Annotated[
        str | None, typer.Option(metavar="ID", help="Whose documents; without: the tenant that `rag up` made.")
    ] = None,
    role: Annotated[str, typer.Option(metavar="ROLE", help="reader, writer or admin.")] = "reader",
    groups: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[,NAME]", help="Groups that documents may be limited to; may be given again."),
    ] = None,
    data: Data = None,
    json: AsJson = False,
) -> int:
    """Make a user of a tenant. Once more with the same words it is the same user.

    On AWS users are made in the stage's Cognito user pool.
    """
    ready = _ready(ctx, data)
    named = {name.strip() for each in groups or [] for name in each.split(",")}
    asked = {"email": email, "tenant_id": tenant or ready["tenant_id"], "role": role, "groups": sorted(named)}
    return _show(ctx, _ask(ready, "POST", "/users", asked), _told, json=json)


@users.command("list", epilog=LIST_EPILOG)
def list_users(ctx: typer.Context, *, data: Data = None, json: AsJson = False) -> int:
    """List users by address, with tenant, role and groups."""
    found = _ask(_ready(ctx, data), "GET", "/users")

    def told(found: dict[str, Any]) -> str:
        return "\n".join(map(_told, found["users"])) or "There is no user yet: `rag users create EMAIL` makes one."

    return _show(ctx, found, told, json=json)


@users.command(epilog=DELETE_EPILOG)
def delete(
    ctx: typer.Context,
    email: Email,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether it is meant.")] = False,
    data: Data = None,
    json: AsJson = False,
) -> int:
    """Delete a user. Tokens that were made before are accepted until they end."""
    ready = _ready(ctx, data)
    confirm(f"user {email}", yes=yes)
    return _show(ctx, _ask(ready, "DELETE", _path(email)), lambda user: f"Deleted: {_told(user)}", json=json)


@users.command(epilog=PRINT_EPILOG)
def token(
    ctx: typer.Context,
    email: Email,
    *,
    seconds: Annotated[int, typer.Option(metavar="N", min=1, max=86_400, help="How long it is accepted.")] = 3600,
    data: Data = None,
    json: AsJson = False,
) -> int:
    """Print an access token of a user, for --token, RAG_TOKEN or `Authorization: Bearer`."""
    made = _ask(_ready(ctx, data), "POST", "/tokens", {"email": email, "expires_in": seconds})
    return _show(ctx, made, lambda made: one_line(made["access_token"]), json=json)


def _ready(ctx: typer.Context, data: Path | None) -> dict[str, Any]:
    before = ctx.obj or Given()
    return ready_file(data_directory(data or before.wanted.data))


def _show(ctx: typer.Context, result: dict[str, Any], told: Any, *, json: bool) -> int:
    before = ctx.obj or Given()
    print(as_json(result) if json or before.json else told(result))
    return 0


def _told(user: dict[str, Any]) -> str:
    groups = ", ".join(map(one_line, user["groups"])) or "-"
    return f"{one_line(user['email'])}  {one_line(user['role'])}  {groups}  tenant {one_line(user['tenant_id'])}"


def _path(email: str) -> str:
    return f"/users/{quote(email, safe='')}"


def _ask(ready: dict[str, Any], method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    import httpx  # noqa: PLC0415 (it costs 0.3 s, which `rag --help` need not wait for)

    headers = {"authorization": f"Bearer {ready['admin_token']}"}
    try:
        response = httpx.request(
            method, f"{ready['issuer_url']}{path}", json=body, headers=headers, timeout=30.0, trust_env=False
        )
    except httpx.TransportError as problem:
        raise NotRunning(f"Nothing answers at {ready['issuer_url']}.", hint="Start it with `rag up`.") from problem
    reply: dict[str, Any] = response.json()
    if response.is_error:
        raise Failure(one_line(reply.get("message") or f"HTTP {response.status_code}"), status=response.status_code)
    return reply
