"""`rag reconcile`: the bucket of the local platform is compared with its index at once."""

from typing import Any

import typer

from functions.table import RECONCILE
from local.cli.administration import invoke
from local.cli.connection import data_directory, ready_file
from local.cli.failure import Failure
from local.cli.output import as_json
from local.cli.remote import AsJson, Data, Given

EPILOG = """\b
Examples:
  rag reconcile
  rag reconcile --json | jq '.missing + .outdated + .orphaned + .misdescribed'
"""

_DIRECTIONS = ("missing", "outdated", "orphaned", "misdescribed")


def reconcile(ctx: typer.Context, *, data: Data = None, json: AsJson = False) -> int:
    """Compare the bucket with the index now.

    What differs is ingested again. The platform does so by itself every hour. What was changed in the last quarter of
    an hour is left alone: it may be on its way. A deployed stage has no such door: there, invoke its `reconcile`
    function with your AWS credentials.
    """
    before = ctx.obj or Given()
    told = _pass(ready_file(data_directory(data or before.wanted.data)))
    if json or before.json:
        print(as_json(told))
        return 0
    found = sum(told[direction] for direction in _DIRECTIONS)
    print(f"{told['keys']:,} keys compared in {told['seconds']:.1f} s.")
    print(", ".join(f"{told[direction]:,} {direction}" for direction in _DIRECTIONS) + ".")
    print(f"{found:,} named to ingest again: `rag documents` shows what becomes of them." if found else "No drift.")
    if told["requeued"] or told["stuck"]:
        print(f"{told['requeued']:,} that waited in vain were asked for again, {told['stuck']:,} have failed as STUCK.")
    return 0


def _pass(ready: dict[str, Any]) -> dict[str, Any]:
    """Run after run, until all of the bucket is compared."""
    swept = {"requeued": 0, "stuck": 0}
    while True:
        told = invoke(ready, RECONCILE.name, {"now": True}, seconds=RECONCILE.timeout_seconds)
        swept = {name: count + told["swept"][name] for name, count in swept.items()}
        compared = told["compared"]
        if compared is None:
            raise Failure("Another run is at work.", hint="Try again when it is through, in some minutes at most.")
        if compared["complete"]:
            return {**compared["pass"], **swept}
