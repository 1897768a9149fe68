"""Server-sent events as our API writes them, and what a terminal shows of an answer that is still being made."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, NamedTuple

from local.cli.failure import Failure
from local.cli.output import plural, safe, width

if TYPE_CHECKING:
    from local.cli.client import JSON
    from local.cli.remote import Session


class Event(NamedTuple):
    name: str
    data: Any


async def parse(texts: AsyncIterator[str]) -> AsyncIterator[Event]:
    """The events of a stream that may be cut anywhere; comments and what is cut off at its end are none."""
    rest = ""
    async for text in texts:
        *whole, rest = (rest + text).split("\n\n")
        for lines in whole:
            fields = dict(line.split(": ", 1) for line in lines.split("\n") if not line.startswith(":"))
            if fields:
                yield Event(fields["event"], json.loads(fields["data"]))


async def listen(session: Session, body: JSON) -> JSON:
    """Show the words of an answer as they come, and return it; on the screen it takes their place."""
    from rich.console import Console  # noqa: PLC0415 (rich costs 0.2 s)
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    said = ""
    with Live(console=Console(width=width(), highlight=False), transient=True) as shown:
        async for name, data in session.client.listen("/v1/query", body=body):
            if name == "hits":
                shown.update(Text(f"{plural(len(data['hits']), 'passage')} found …", "dim"), refresh=True)
            elif name == "delta":
                said += data["text"]
                shown.update(Text(safe(said)), refresh=True)
            elif name == "answer":
                answer: JSON = data
                return answer
    raise Failure("The answer broke off.", hint="Ask again, perhaps with --no-stream.")
