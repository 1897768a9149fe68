"""What both ways of serving the HTTP API do before their first event."""

from __future__ import annotations

import asyncio
import gc
import os
from typing import TYPE_CHECKING

from rag import wiring

if TYPE_CHECKING:
    from functions.query.application import Api

# Here nobody waits for the initialisation; decision 6 says who pays for what.
STARTED_AHEAD = {"provisioned-concurrency", "snap-start"}
# As Python 3.13 has it of its own accord; the package has raised it for the time of the imports.
_THRESHOLD = 2_000


def initialise(app: Api | None = None) -> asyncio.AbstractEventLoop:
    """Import what every question needs, and return the loop that all requests are served in."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    ahead = os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") in STARTED_AHEAD
    wiring.preload(clients=ahead)
    if ahead and app is not None:
        app.complete()
    # What is imported stays; a full collection would look through it again and again.
    gc.freeze()
    gc.set_threshold(_THRESHOLD)
    return loop
