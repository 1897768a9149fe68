"""`rag up`: the whole platform on this machine, until Ctrl-C."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from local.cli.connection import data_directory, data_option, program
from local.cli.output import as_json, is_terminal, note
from local.cli.remote import AsJson, Data, Given

# A log that keeps the output of `rag up --json` should not open the database.
_SECRET = frozenset({"admin_url", "admin_token", "secret_access_key"})

EPILOG = """\b
Examples:
  rag up
  rag up --data ~/rag-data --port 8080
  rag up --ready-file /tmp/ready.json        # for scripts: it appears when requests are answered
"""


def up(
    ctx: typer.Context,
    *,
    data: Data = None,
    port: Annotated[
        int | None, typer.Option("--port", metavar="N", min=1, max=65535, help="The API's port; else the last one.")
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option("--ready-file", metavar="FILE", help="Write address and key here once it is ready.")
    ] = None,
    json: AsJson = False,
) -> int:
    """Start the platform on this machine.

    It runs until Ctrl-C or SIGTERM and keeps its data for the next start. Nothing is left running.
    """
    before = ctx.obj or Given()
    directory = data_directory(data or before.wanted.data)
    with suppress(asyncio.CancelledError, KeyboardInterrupt):
        asyncio.run(_serve(directory, port, ready_file, json=json or before.json))
    return 0


async def _serve(directory: Path, port: int | None, ready_file: Path | None, *, json: bool) -> None:
    from local.cli.starting import started, stop_on_signals  # noqa: PLC0415 (it imports every service)

    stop_on_signals()
    began = time.monotonic()
    if not json:
        note(f"Starting the platform in {directory}")
    async with started(directory, port=port, ready_file=ready_file, quiet=json) as ready:
        if json:
            print(as_json({name: ready[name] for name in ready if name not in _SECRET}), flush=True)
        else:
            tell(ready, directory, time.monotonic() - began)
        await asyncio.Event().wait()


def tell(ready: dict[str, Any], directory: Path, seconds: float) -> None:
    """Address, key and the next commands: framed on a terminal, plain lines elsewhere."""
    rag, option = program(), data_option(directory)
    lines = [
        f"API      {ready['url']}",
        f"Page     {ready['url']}/docs",
        f"API key  {ready['api_key']}",
        f"Data     {ready['data']}",
        "",
        "In another terminal:",
        f"  {rag} put{option} PATH",
        f'  {rag} ask{option} "What does it say about …?"',
        f"  {rag} status{option}",
    ]
    title = f"Ready after {seconds:.1f} s; Ctrl-C stops it"
    if is_terminal():
        _framed(title, lines)
    else:
        print("\n".join([title, *lines]), flush=True)


def _framed(title: str, lines: list[str]) -> None:
    from rich.console import Console  # noqa: PLC0415 (rich costs 0.2 s, which `rag --help` need not wait for)
    from rich.panel import Panel  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    Console().print(Panel.fit(Text("\n".join(lines)), title=title, title_align="left", padding=(1, 2)))
