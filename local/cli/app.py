"""The command `rag`: its subcommands, in the order in which one needs them."""

from typing import Any

import typer

from local.cli import (
    ask,
    audit,
    conversations,
    cost,
    demo,
    documents,
    erasing,
    evaluate,
    export,
    keys,
    put,
    reconcile,
    redrive,
    status,
    tenants,
    up,
    usage,
    users,
)
from local.cli.connection import Wanted
from local.cli.remote import ApiKey, AsJson, Data, Given, Token, Url

EPILOG = """\b
Start here:
  rag demo                     # everything, once, with sample documents
  rag up                       # the platform on this machine, until Ctrl-C
  rag put docs/                # in another terminal
  rag ask "What does it say about …?"

\b
Exit codes:
  0  done
  1  the work failed, for instance one document of many
  2  wrong usage
  3  no platform answers, or it does not accept the API key
"""

# Plain help: drawn boxes need rich, which alone takes longer to import than all the rest.
app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, epilog=EPILOG)


@app.callback()
def root(
    ctx: typer.Context,
    *,
    url: Url = None,
    api_key: ApiKey = None,
    token: Token = None,
    data: Data = None,
    json: AsJson = False,
) -> None:
    """Ask your documents: put files in, get answers whose citations can be checked.

    The commands talk to the platform that runs on this machine (`rag up`), or to any other with --url and --api-key.
    These options may stand before or after the command's name.
    """
    ctx.obj = Given(Wanted(url, api_key, data, token), json)


def _add(name: str, command: Any, epilog: str) -> None:
    app.command(name, epilog=epilog)(command)


_add("demo", demo.demo, demo.EPILOG)
_add("up", up.up, up.EPILOG)
_add("put", put.put, put.EPILOG)
_add("ask", ask.ask, ask.ASK_EPILOG)
_add("search", ask.search, ask.SEARCH_EPILOG)
_add("documents", documents.documents, documents.DOCUMENTS_EPILOG)
_add("delete", erasing.delete, erasing.DELETE_EPILOG)
_add("erasures", erasing.erasures, erasing.ERASURES_EPILOG)
_add("audit", audit.audit, audit.EPILOG)
_add("export", export.export, export.EPILOG)
_add("retry", documents.retry, documents.RETRY_EPILOG)
_add("redrive", redrive.redrive, redrive.EPILOG)
_add("history", documents.history, documents.HISTORY_EPILOG)
_add("reconcile", reconcile.reconcile, reconcile.EPILOG)
_add("conversations", conversations.conversations, conversations.CONVERSATIONS_EPILOG)
_add("collections", documents.collections, documents.COLLECTIONS_EPILOG)
_add("eval", evaluate.evaluate, evaluate.EPILOG)
_add("status", status.status, status.EPILOG)
_add("usage", usage.usage, usage.EPILOG)
_add("cost", cost.cost, cost.EPILOG)
app.add_typer(erasing.erase, name="erase")
app.add_typer(keys.keys, name="keys")
app.add_typer(tenants.tenants, name="tenants")
app.add_typer(users.users, name="users")
