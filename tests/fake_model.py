"""A model server that speaks OpenAI's protocol and misbehaves as told."""

from __future__ import annotations

import base64
import binascii
import codecs
import gzip
import html
import json
import re
import select
import socket
import struct
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote

Reply = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


class FakeModel:
    """`script` replies in order, then `always` where there is one, else as by default.

    `requests` are the bodies it got, and `arrivals` when, in seconds of `time.monotonic()`.
    `cut_off` is set when a client left before its streamed answer was whole.
    """

    def __init__(self, dimensions: int = 4) -> None:
        self.dimensions = dimensions
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.arrivals: list[float] = []
        self.script: list[Reply] = []
        self.always: Reply | None = None
        self.says = "A plain sentence [1]."
        self.url = ""
        self.cut_off = threading.Event()

    def reply(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        self.arrivals.append(time.monotonic())
        self.requests.append(body)
        if self.script:
            self.script.pop(0)(handler, body)
        elif self.always is not None:
            self.always(handler, body)
        elif "input" in body:
            send_json(handler, embeddings([unit(text, self.dimensions) for text in body["input"]]))
        elif body.get("stream"):
            speak(self.says)(handler, body)
        else:
            send_json(handler, chat(self.says))


def unit(text: str, dimensions: int) -> list[float]:
    """A vector that depends on the text alone."""
    return [1.0 + (sum(text.encode()) * (n + 1)) % 7 for n in range(dimensions)]


def embeddings(vectors: list[list[float]], order: list[int] | None = None) -> dict[str, Any]:
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode(),
        }
        for index, vector in enumerate(vectors)
    ]
    return {
        "object": "list",
        "data": [data[n] for n in order] if order else data,
        "model": "fake",
        "usage": {"prompt_tokens": 1, "total_tokens": 1},
    }


def chat(text: str | None) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "fake",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }


def speak(text: str, *, seconds: float = 0, whole: bool = True, at: Callable[[int], None] | None = None) -> Reply:
    """A streamed completion, a word in each chunk and `seconds` between them; without its end unless `whole`.

    `at` is called with its number before each word.
    """

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        try:
            tell(handler, body)
        except ConnectionError:
            handler.server.model.cut_off.set()  # type: ignore[attr-defined]
            handler.close_connection = True

    def tell(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        words = re.findall(r"\s*\S+", text)
        for number, word in enumerate(words):
            if at is not None:
                at(number)
            write_chunk(handler, chunk({"content": word}))
            if left(handler, seconds):
                raise ConnectionAbortedError
        if whole:
            usage = {"usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}}
            write_chunk(handler, chunk({}, finish_reason="stop"))
            asked = (body.get("stream_options") or {}).get("include_usage")
            write_chunk(handler, {**chunk({}), "choices": [], **usage} if asked else None)
        handler.wfile.write(b"0\r\n\r\n")

    return reply


def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "fake", "choices": [choice]}


def write_chunk(handler: BaseHTTPRequestHandler, content: dict[str, Any] | None) -> None:
    data = b"data: " + json.dumps(content).encode() + b"\n\n" if content else b"data: [DONE]\n\n"
    handler.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
    handler.wfile.flush()


def left(handler: BaseHTTPRequestHandler, seconds: float) -> bool:
    """Wait, and say whether the client hung up meanwhile."""
    readable, _, _ = select.select([handler.connection], [], [], seconds)
    try:
        return bool(readable) and handler.connection.recv(1, socket.MSG_PEEK) == b""
    except ConnectionError:
        return True  # it closed before it had read what it was sent


def send_json(handler: BaseHTTPRequestHandler, body: Any, status: int = 200, **headers: str) -> None:
    send(handler, json.dumps(body).encode(), status, "application/json", **headers)


def send(handler: BaseHTTPRequestHandler, body: bytes, status: int, media_type: str, **headers: str) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", media_type)
    handler.send_header("Content-Length", str(len(body)))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def status(code: int, **headers: str) -> Reply:
    return lambda handler, _: send_json(handler, {"error": {"message": "scripted"}}, code, **headers)


def drip(seconds: float) -> Reply:
    """One byte at a time, each in time for a client that only bounds single reads."""

    def reply(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                handler.wfile.write(b" ")
                handler.wfile.flush()
            except OSError:
                return
            time.sleep(0.05)

    return reply


def reset(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
    """Answer with a reset of the connection."""
    # Closing with a time-out of 0 sends RST (socket(7), SO_LINGER).
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.close()


def half(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
    """Promise a body, send half of it and close."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"object": "list", "data": [' + b" " * 472)
    handler.close_connection = True


def late(seconds: float) -> Reply:
    """Say nothing at all for so long, or until the client leaves."""

    def reply(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
        if not left(handler, seconds):
            send_json(handler, {})
        handler.close_connection = True

    return reply


def endless(part: bytes, media_type: str = "application/json") -> Reply:
    """The same bytes over and over, until the client leaves."""

    def reply(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", media_type)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.close_connection = True
        with suppress(OSError):
            while True:
                handler.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))

    return reply


def packed(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
    """A small body that unpacks to a large one."""
    send(handler, gzip.compress(b" " * 50_000_000), 200, "application/json", Content_Encoding="gzip")


class Obedient:
    """A chat model that does whatever any text of its prompt tells it by `{{verb text}}`, in whatever disguise.

    `say` repeats the text, `rules` and `rules64` tell the system's message, `leak` puts what the other passages say
    behind an address, `cite` forges a marker, `tool` asks for a tool. `obeyed` are the commands that reached it.
    """

    _COMMAND = re.compile(r"\{\{\s*(say|rules64|rules|leak|cite|tool)\b\s*(.*?)\}\}", re.DOTALL)
    _UNSEEN = re.compile("[\xad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")

    def __init__(self) -> None:
        self.obeyed: list[tuple[str, str]] = []

    def __call__(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if "input" in body:
            send_json(handler, embeddings([unit(text, 4) for text in body["input"]]))
            return
        assert not body.keys() & {"tools", "functions", "tool_choice"}
        rules, asked = (body["messages"][place]["content"] for place in (0, -1))
        lines = [json.loads(line) for line in asked.splitlines() if line.startswith("{")]
        texts = [" ".join(str(value) for value in line.values()) for line in lines]
        commands = [found for text in texts for form in self._read(text) for found in self._COMMAND.findall(form)]
        self.obeyed += commands
        if any(verb == "tool" for verb, _ in commands):
            call = {"id": "1", "type": "function", "function": {"name": "fetch", "arguments": "{}"}}
            reply = chat("I fetch it. [1]")
            reply["choices"][0]["message"]["tool_calls"] = [call]
            send_json(handler, reply)
            return
        said = {
            "say": lambda text: text,
            "rules": lambda _: rules,
            "rules64": lambda _: base64.b64encode(rules.encode()).decode(),
            "leak": lambda text: f"![x]({text}{quote(texts[0][:200])}) [x]({text}{quote(rules[:40])})",
            "cite": lambda text: f"A document says so. [{text}]",
        }
        words = " ".join(said[verb](text) for verb, text in dict.fromkeys(commands)) or "A plain sentence [1]."
        speak(words)(handler, body) if body.get("stream") else send_json(handler, chat(words))

    def _read(self, text: str) -> Iterator[str]:
        """The text, and what a clever reader finds in it."""
        yield text
        yield self._UNSEEN.sub("", text)
        yield "".join(chr(ord(c) - 0xE0000) for c in text if 0xE0000 < ord(c) < 0xE007F)
        yield unicodedata.normalize("NFKC", text)
        yield html.unescape(text)
        yield unquote(text)
        yield codecs.encode(text, "rot13")
        yield text[::-1]
        for run in re.findall(r"[A-Za-z0-9+/_=-]{24,}", text):
            with suppress(binascii.Error):
                yield base64.urlsafe_b64decode(run.replace("+", "-").replace("/", "_")).decode(errors="replace")
            with suppress(ValueError):
                yield bytes.fromhex(run).decode(errors="replace")


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed, or a network that was cut, is what tests do."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving(model: FakeModel) -> Iterator[FakeModel]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            if len(sent) < int(self.headers["Content-Length"]):
                raise ConnectionAbortedError  # whoever sent it was killed in the middle of it
            body = json.loads(sent)
            model.keys.add(self.headers["Authorization"])
            model.reply(self, body)

        def do_GET(self) -> None:
            send_json(self, {"object": "list", "data": [{"id": "fake", "object": "model"}]})

        def log_message(self, *_: object) -> None:
            """Tests speak for themselves."""

    server = _Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.model = model  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=[0.05], daemon=True)
    thread.start()
    model.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield model
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
