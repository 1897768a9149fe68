"""The other end of a webhook, as docs/api.md tells to write it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@cache
def documented() -> dict[str, Any]:
    """What the example in docs/api.md defines."""
    text = (ROOT / "docs" / "api.md").read_text()
    example = text.partition("```python webhook\n")[2].partition("```")[0]
    defined: dict[str, Any] = {}
    exec(example, defined)  # noqa: S102 (it is ours, and is there to be copied)
    return defined


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]
    body: bytes

    def is_signed_with(self, secret: str) -> bool:
        return bool(documented()["is_genuine"](self.headers, self.body, secret))


@dataclass
class Receiver:
    url: str = ""
    status: int = 204
    requests: list[Request] = field(default_factory=list)


@contextmanager
def receiving() -> Iterator[Receiver]:
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            made.requests.append(Request(self.path, headers, body))
            self.send_response(made.status)
            self.send_header("Location", f"{made.url}elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.url = f"http://127.0.0.1:{server.server_address[1]}/hook?of=rag"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()
