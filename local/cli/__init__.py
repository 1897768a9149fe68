"""The command line of the platform: `rag demo`, `rag up`, and a client of its HTTP API (docs/cli.md)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from local.cli.failure import Failure, UsageFailure

if TYPE_CHECKING:
    import typer


def main() -> None:
    """The entry point `rag`."""
    for stream in (sys.stdout, sys.stderr):
        # A file's name may hold what the terminal's encoding does not know.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; return its exit code (docs/cli.md lists them)."""
    import typer  # noqa: PLC0415 (its parts are imported by tests that need no command line)

    from local.cli.app import app  # noqa: PLC0415

    try:
        code = typer.main.get_command(app)(args=list(arguments), prog_name="rag", standalone_mode=False)
    except typer.TyperException as problem:
        return _misused(problem, arguments)
    except Failure as failure:
        return _failed(failure, arguments)
    return code if isinstance(code, int) else 0


def _misused(problem: typer.TyperException, arguments: Sequence[str]) -> int:
    if "--json" in arguments:
        return _failed(UsageFailure(problem.format_message()), arguments)
    problem.show()  # type: ignore[attr-defined]  # every problem of a command line has it; typer's public class has not
    return int(problem.exit_code)


def _failed(failure: Failure, arguments: Sequence[str]) -> int:
    from local.cli.output import as_json, note, wrapped  # noqa: PLC0415

    if "--json" in arguments:
        note(as_json(failure.as_json()))
    else:
        note(wrapped(f"Error: {failure.message}"))
        if failure.hint:
            note(wrapped(failure.hint))
    return failure.exit_code
