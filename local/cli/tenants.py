"""`rag tenants`: tenants of the local platform are made, with a first key, limited and erased."""

import uuid
from typing import Annotated, Any

import typer

from functions.table import TENANTS
from local.cli.administration import invoke
from local.cli.asking_back import confirm
from local.cli.connection import data_directory, ready_file
from local.cli.output import as_json, one_line, table
from local.cli.remote import AsJson, Data, Given

EPILOG = """\b
Examples:
  rag tenants create acme
  RAG_API_KEY=$(rag tenants create acme --json | jq -r .api_key) rag put docs/
"""
LIST_EPILOG = """\b
Examples:
  rag tenants list
  rag tenants list --json | jq -r '.tenants[] | select(.live_keys == 0) | .tenant_id'
"""
KEY_EPILOG = """\b
Examples:
  rag tenants key 0c6f9a52-6d0b-4d7a-9a53-5f0d3c1e2b11
  rag tenants key 0c6f9a52-6d0b-4d7a-9a53-5f0d3c1e2b11 --revoke-others    # they leaked
"""
LIMIT_EPILOG = """\b
Examples:
  rag tenants limit 0c6f9a52-6d0b-4d7a-9a53-5f0d3c1e2b11 --tokens-per-day 2000000
  rag tenants limit 0c6f9a52-6d0b-4d7a-9a53-5f0d3c1e2b11 --key aB3dE5gH --requests-per-minute 20
  rag tenants limit 0c6f9a52-6d0b-4d7a-9a53-5f0d3c1e2b11    # as all others again
"""

ERASE_EPILOG = """\b
Examples:
  rag tenants erase 6f1c0a52-… --yes
  rag tenants erase 6f1c0a52-… --yes --json | jq -r .status
"""

tenants = typer.Typer(rich_markup_mode=None, no_args_is_help=True)


@tenants.callback()
def several() -> None:
    """Make, list, limit and erase tenants of the local platform.

    Each tenant sees its own documents only.
    """


@tenants.command(epilog=EPILOG)
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call the tenant.")],
    *,
    data: Data = None,
    json: AsJson = False,
) -> int:
    """Create a tenant and print its API key, which is shown this once.

    A deployed stage has no such door: there, invoke its `tenants` function with your AWS credentials.
    """
    before = ctx.obj or Given()
    ready = ready_file(data_directory(data or before.wanted.data))
    made = invoke(ready, TENANTS.name, {"action": "create", "name": name})
    if json or before.json:
        print(as_json(made))
    else:
        print(f"Tenant {one_line(made['tenant_id'])} ({one_line(name)})\nAPI key {one_line(made['api_key'])}")
    return 0


@tenants.command("list", epilog=LIST_EPILOG)
def list_tenants(ctx: typer.Context, *, data: Data = None, json: AsJson = False) -> int:
    """List the tenants of the local platform by name, with how many keys they have and when one was used last."""
    before = ctx.obj or Given()
    ready = ready_file(data_directory(data or before.wanted.data))
    found: list[dict[str, Any]] = []
    after: str | None = ""
    while after is not None:
        page = invoke(ready, TENANTS.name, {"action": "list", "after": after})
        found += page["tenants"]
        after = page["next"]
    if json or before.json:
        print(as_json({"tenants": found}))
    elif found:
        table(
            ("tenant", "name", "made", "live keys", "last used"),
            [
                (each["tenant_id"], each["name"], _day(each["created_at"]), each["live_keys"], _used(each))
                for each in found
            ],
        )
    else:
        print("No tenant. `rag tenants create NAME` makes one.")
    return 0


def _used(tenant: dict[str, Any]) -> str:
    return _day(tenant["last_used_at"]) if tenant["last_used_at"] else "never"


def _day(text: str) -> str:
    return one_line(text)[:16].replace("T", " ")


@tenants.command(epilog=KEY_EPILOG)
def key(
    ctx: typer.Context,
    tenant: Annotated[uuid.UUID, typer.Argument(metavar="ID", help="The tenant's id, as `rag tenants list` shows it.")],
    *,
    revoke_others: Annotated[
        bool, typer.Option("--revoke-others", help="End every other key of the tenant at once.")
    ] = False,
    data: Data = None,
    json: AsJson = False,
) -> int:
    """Make an admin key for a tenant who has lost all, and print it, this once.

    Whoever has an admin key still makes further ones with `rag keys create`. A deployed stage has no such door: there,
    invoke its `tenants` function with your AWS credentials.
    """
    before = ctx.obj or Given()
    ready = ready_file(data_directory(data or before.wanted.data))
    made = invoke(ready, TENANTS.name, {"action": "key", "tenant_id": str(tenant), "revoke_others": revoke_others})
    if json or before.json:
        print(as_json(made))
    else:
        print(f"Tenant {one_line(made['tenant_id'])}\nAPI key {one_line(made['api_key'])}")
    return 0


@tenants.command(epilog=LIMIT_EPILOG)
def limit(
    ctx: typer.Context,
    tenant_id: Annotated[str, typer.Argument(metavar="TENANT_ID", help="As `rag tenants create` printed it.")],
    *,
    key: Annotated[
        str | None, typer.Option(metavar="ID", help="Limit this key of the tenant, as `rag keys list` shows it.")
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Requests to the API. Without: RAG_RATE_LIMIT_REQUESTS.")
    ] = None,
    requests_per_day: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Requests to models. Without: RAG_TENANT_REQUESTS_PER_DAY.")
    ] = None,
    tokens_per_day: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Tokens in and out. Without: RAG_TENANT_TOKENS_PER_DAY.")
    ] = None,
    tokens_per_month: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Tokens in and out. Without: RAG_TENANT_TOKENS_PER_MONTH.")
    ] = None,
    usd_per_day: Annotated[
        float | None, typer.Option(metavar="USD", min=0, help="What they cost. Without: RAG_TENANT_USD_PER_DAY.")
    ] = None,
    usd_per_month: Annotated[
        float | None, typer.Option(metavar="USD", min=0, help="What they cost. Without: RAG_TENANT_USD_PER_MONTH.")
    ] = None,
    data: Data = None,
    json: AsJson = False,
) -> int:
    """Set what a tenant, or one key of it, may ask and what it may use of the models.

    All numbers are set at once: one that is not given is as the deployment says, 0 is any number. Days and months are
    of UTC. What is beyond them is refused with 429; documents wait till the next day or month.
    """
    before = ctx.obj or Given()
    ready = ready_file(data_directory(data or before.wanted.data))
    limits = {
        "requests_per_minute": requests_per_minute,
        "requests_per_day": requests_per_day,
        "tokens_per_day": tokens_per_day,
        "tokens_per_month": tokens_per_month,
        "usd_per_day": usd_per_day,
        "usd_per_month": usd_per_month,
    }
    whose = {"tenant_id": tenant_id, **({"key_id": key.removeprefix("rag_")} if key else {})}
    made = invoke(ready, TENANTS.name, {"action": "limit", **whose, **limits})
    if json or before.json:
        print(as_json(made))
    else:
        named = f"Key {one_line(made['key_id'])}" if key else f"Tenant {one_line(made['tenant_id'])}"
        told = [_said(name, made[name]) for name in limits if made[name] is not None]
        print(f"{named}: {', '.join([*told, 'all else' if told else 'all'])} as the deployment says")
    return 0


def _said(name: str, number: float) -> str:
    unit, _, period = name.partition("_per_")
    what = {"requests": "requests to models", "tokens": "tokens", "usd": "USD"}[unit]
    if period == "minute":
        what = "requests"
    return f"{number:,} {what} a {period}" if number else f"any number of {what} a {period}"


@tenants.command(epilog=ERASE_EPILOG)
def erase(
    ctx: typer.Context,
    tenant: Annotated[uuid.UUID, typer.Argument(metavar="ID", help="The tenant's id.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether it is meant.")] = False,
    data: Data = None,
    json: AsJson = False,
) -> int:
    """Erase a tenant for good: its keys at once, then its documents, conversations and everything else.

    Run it again to see how far it is; only receipts are left. A deployed stage has no such door: there, invoke its
    `tenants` function with your AWS credentials.
    """
    before = ctx.obj or Given()
    ready = ready_file(data_directory(data or before.wanted.data))
    found = invoke(ready, TENANTS.name, {"action": "erasures", "tenant_id": str(tenant)})["erasures"]
    receipt = next((each for each in found if each["scope"] == "tenant"), None)
    if receipt is None:
        confirm(f"tenant {tenant}", yes=yes)
        receipt = invoke(ready, TENANTS.name, {"action": "erase", "tenant_id": str(tenant)})
    if json or before.json:
        print(as_json(receipt))
    else:
        removed = ", ".join(f"{count} {one_line(kind)}" for kind, count in receipt["removed"].items()) or "nothing yet"
        print(f"Tenant {tenant}: {one_line(receipt['status'])}. Removed: {removed}.")
    return 0
