"""`rag tenants`: tenants of the local platform are made, with a first key, limited and erased."""

import uuid
from typing import Annotated

import typer

from functions.table import TENANTS
from local.cli.administration import invoke
from local.cli.asking_back import confirm
from local.cli.connection import data_directory, ready_file
from local.cli.output import as_json, one_line
from local.cli.remote import AsJson, Data, Given

EPILOG = """\b
Examples:
  rag tenants create acme
  RAG_API_KEY=$(rag tenants create acme --json | jq -r .api_key) rag put docs/
"""
LIMIT_EPILOG = """\b
Examples:
  rag tenants limit 0c6f9a52-6d0b-4d7a-9a53-5f0d3c1e2b11 --tokens-per-day 2000000
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
    """Make, limit and erase tenants of the local platform.

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


@tenants.command(epilog=LIMIT_EPILOG)
def limit(
    ctx: typer.Context,
    tenant_id: Annotated[str, typer.Argument(metavar="TENANT_ID", help="As `rag tenants create` printed it.")],
    *,
    requests_per_day: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Requests to models on a day of UTC; 0: any number. Without: RAG_TENANT_REQUESTS_PER_DAY.",
        ),
    ] = None,
    tokens_per_day: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Tokens in and out on a day of UTC; 0: any number. Without: RAG_TENANT_TOKENS_PER_DAY.",
        ),
    ] = None,
    data: Data = None,
    json: AsJson = False,
) -> int:
    """Set what a tenant may use of the models in a day.

    Both numbers are set at once; one that is not given is as the deployment says. Questions beyond it are refused until
    midnight UTC, documents wait till then.
    """
    before = ctx.obj or Given()
    ready = ready_file(data_directory(data or before.wanted.data))
    limits = {"tenant_id": tenant_id, "requests_per_day": requests_per_day, "tokens_per_day": tokens_per_day}
    made = invoke(ready, TENANTS.name, {"action": "limit", **limits})
    if json or before.json:
        print(as_json(made))
    else:
        numbers = [("requests", made["requests_per_day"]), ("tokens", made["tokens_per_day"])]
        told = [f"{_said(number)} {what} a day" for what, number in numbers]
        print(f"Tenant {one_line(made['tenant_id'])}: {', '.join(told)}")
    return 0


def _said(number: int | None) -> str:
    return {None: "the deployment's number of", 0: "any number of"}.get(number) or f"{number:,}"


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
