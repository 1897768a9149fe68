"""`rag tenants`: tenants of the local platform are made, with a first key, and erased."""

import uuid
from typing import Annotated, Any

import typer

from local.cli.asking_back import confirm
from local.cli.connection import data_directory, ready_file
from local.cli.failure import Failure, NotRunning
from local.cli.output import as_json, one_line
from local.cli.remote import AsJson, Data, Given

EPILOG = """\b
Examples:
  rag tenants create acme
  RAG_API_KEY=$(rag tenants create acme --json | jq -r .api_key) rag put docs/
"""

ERASE_EPILOG = """\b
Examples:
  rag tenants erase 6f1c0a52-… --yes
  rag tenants erase 6f1c0a52-… --yes --json | jq -r .status
"""

tenants = typer.Typer(rich_markup_mode=None, no_args_is_help=True)


@tenants.callback()
def several() -> None:
    """Make and erase tenants of the local platform.

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
    made = _invoke(ready, {"action": "create", "name": name})
    if json or before.json:
        print(as_json(made))
    else:
        print(f"Tenant {one_line(made['tenant_id'])} ({one_line(name)})\nAPI key {one_line(made['api_key'])}")
    return 0


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
    found = _invoke(ready, {"action": "erasures", "tenant_id": str(tenant)})["erasures"]
    receipt = next((each for each in found if each["scope"] == "tenant"), None)
    if receipt is None:
        confirm(f"tenant {tenant}", yes=yes)
        receipt = _invoke(ready, {"action": "erase", "tenant_id": str(tenant)})
    if json or before.json:
        print(as_json(receipt))
    else:
        removed = ", ".join(f"{count} {one_line(kind)}" for kind, count in receipt["removed"].items()) or "nothing yet"
        print(f"Tenant {tenant}: {one_line(receipt['status'])}. Removed: {removed}.")
    return 0


def _invoke(ready: dict[str, Any], event: dict[str, Any]) -> dict[str, Any]:
    import httpx  # noqa: PLC0415 (it costs 0.3 s, which `rag --help` need not wait for)

    url = f"{ready['admin_url']}/2015-03-31/functions/tenants/invocations"
    headers = {"authorization": f"Bearer {ready['admin_token']}"}
    try:
        response = httpx.post(url, json=event, headers=headers, timeout=60.0, trust_env=False)
    except httpx.TransportError as problem:
        raise NotRunning(f"Nothing answers at {ready['admin_url']}.", hint="Start it with `rag up`.") from problem
    reply: dict[str, Any] = response.json()
    if response.is_error or "X-Amz-Function-Error" in response.headers:
        message = reply.get("errorMessage") or reply.get("message") or f"HTTP {response.status_code}"
        raise Failure(f"Nothing was changed: {one_line(message)}")
    return reply
