"""HTTP for the local AWS, on connections that are kept: a new one, and a thread for it, costs more than many an answer.

werkzeug's handler closes every connection, because it does not know where a request ends that was answered before it
was read. Here the body ends where its length says, and what the application left of it is read behind the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.exceptions import ClientDisconnected
from werkzeug.serving import make_server
from werkzeug.wsgi import get_input_stream

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication
    from werkzeug.serving import BaseWSGIServer

_PIECE_BYTES = 1 << 20


class Handler(MotoRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body of an answer leave together, and at once.
    wbufsize = -1
    disable_nagle_algorithm = True

    def run_wsgi(self) -> None:
        if self.headers.get("Expect", "").strip().lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.wfile.flush()
        environ = self.make_environ()
        # Without a length or an end of its own there is no body.
        body = get_input_stream(environ)
        environ |= {"wsgi.input": body, "wsgi.input_terminated": True}
        try:
            for data in self.server.app(environ, self._start):
                self.wfile.write(data)
            self.wfile.flush()
            while body.read(_PIECE_BYTES):
                pass
        except ClientDisconnected:
            self.close_connection = True

    def log_request(self, *_: object) -> None:
        """Nobody reads it, and it is half as much work as an answer."""

    def _start(self, status: str, headers: list[tuple[str, str]], _failure: Any = None) -> Any:
        code, _, phrase = status.partition(" ")
        self.send_response(int(code), phrase)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        return self.wfile.write


def listening(port: int, app: WSGIApplication) -> BaseWSGIServer:
    """A server on 127.0.0.1 whose port is open; `serve_forever` has it answer."""
    return make_server("127.0.0.1", port, app, threaded=True, request_handler=Handler)
