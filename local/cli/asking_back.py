"""Whoever is about to lose something says so once more."""

import sys

import typer

from local.cli.failure import UsageFailure


def confirm(what: str, *, yes: bool) -> None:
    """Go on if it is meant: by `--yes`, or by the answer of the person at the terminal."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageFailure(f"This would erase the {what} for good.", hint="Say --yes if it is meant.")
    typer.confirm(f"Erase the {what} with everything in it, for good?", abort=True)
