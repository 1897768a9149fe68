"""`rag tenants create`: a tenant of the local platform, and its first key."""

from typing import Annotated, Any

import typer

from local.cli.connection import data_directory, ready_file
from local.cli.failure import Failure, NotRunning
from local.cli.output import as_json, one_line
from local.cli.remote import AsJson, Data, Given

EPILOG = """\b
Examples:
  rag tenants create acme
  RAG_API_KEY=$(rag tenants create acme --json | jq -r .api_key) rag put docs/
"""

tenants = typer.Typer(rich_markup_mode=None, no_args_is_help=True)


@tenants.callback()
def several() -> None:
    """Make tenants of the local platform.

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
        raise Failure(f"No tenant was made: {one_line(message)}")
    return reply
