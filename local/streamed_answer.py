"""What API Gateway makes of a streamed response: status and headers from its prelude, then each chunk as it comes.

https://docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode-lambda.html
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from local.proxy_event import MalformedResponseError, head

if TYPE_CHECKING:
    from starlette.types import Receive, Send

PRELUDE_END = bytes(8)
# Within so many bytes the prelude has to end.
LONGEST_PRELUDE = 16 * 1024


class StreamedAnswer:
    """Takes what a function streams and sends it to the client; `gone` is set when nobody wants more of it.

    `malformed` says what API Gateway would not take, if anything.
    """

    def __init__(self, receive: Receive, send: Send, headers: Sequence[tuple[str, str]]) -> None:
        self.gone = asyncio.Event()
        self.started = False
        self.malformed: str | None = None
        self._receive = receive
        self._send = send
        self._headers = headers
        self._prelude = b""

    async def watch(self) -> None:
        """Set `gone` when the client hangs up."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone.set()

    async def write(self, chunk: bytes) -> None:
        if not self.started and self.malformed is None:
            chunk = await self._begin(chunk)
        if self.started and chunk:
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})

    async def _begin(self, chunk: bytes) -> bytes:
        """Return what there is of the body."""
        self._prelude += chunk
        prelude, end, body = self._prelude.partition(PRELUDE_END)
        if not end and len(prelude) <= LONGEST_PRELUDE:
            return b""
        try:
            status, headers = head(prelude if end and len(prelude) <= LONGEST_PRELUDE else b"")
        except MalformedResponseError as error:
            self.malformed = str(error)
            return b""
        said = {name for name, _ in headers}
        every = [*headers, *((name, value) for name, value in self._headers if name not in said)]
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in every]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})
        self.started = True
        return body
