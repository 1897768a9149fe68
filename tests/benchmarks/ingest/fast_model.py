"""A model server whose vectors cost nothing: what is left is the time of everything else.

    python -m tests.benchmarks.ingest.fast_model

prints its port, and ends with its standard input. `POST /pause` sets how long it waits before each answer, in seconds;
`GET /requests` says how many texts each request for embeddings had since then, and for how many seconds there was one
under way at least.
"""

from __future__ import annotations

import base64
import json
import random
import sys
import threading
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from zlib import crc32

DIMENSIONS = 384
VECTORS = 256


def _vector(seed: int) -> str:
    drawn = random.Random(seed)
    return base64.b64encode(array("f", (drawn.gauss(0, 1) for _ in range(DIMENSIONS))).tobytes()).decode()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.vectors = [_vector(seed) for seed in range(VECTORS)]
        self._lock = threading.Lock()
        self.begin(0.0)

    def begin(self, pause_seconds: float) -> None:
        """Count anew; nobody may be asking for embeddings."""
        with self._lock:
            self.pause_seconds = pause_seconds
            self.requests: list[int] = []
            self.busy_seconds = 0.0
            self._under_way = 0
            self._since = 0.0

    @contextmanager
    def counted(self, texts: int) -> Iterator[None]:
        """One request for embeddings."""
        with self._lock:
            self.requests.append(texts)
            if not self._under_way:
                self._since = time.perf_counter()
            self._under_way += 1
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= 1
                if not self._under_way:
                    self.busy_seconds += time.perf_counter() - self._since


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        counted = {"texts": self.server.requests, "busy_seconds": self.server.busy_seconds}
        self._send(json.dumps(counted).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/pause":
            self.server.begin(body)
            return self._send(b"null")
        texts = body["input"]
        with self.server.counted(len(texts)):
            time.sleep(self.server.pause_seconds)
            data = ",".join(
                f'{{"object":"embedding","index":{index},"embedding":"{self._of(text)}"}}'
                for index, text in enumerate(texts)
            )
        usage = '"usage":{"prompt_tokens":1,"total_tokens":1}'
        return self._send(f'{{"object":"list","model":"fast","data":[{data}],{usage}}}'.encode())

    def log_message(self, *_: object) -> None:
        pass

    def _of(self, text: str) -> str:
        return self.server.vectors[crc32(text.encode()) % VECTORS]

    def _send(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def main() -> None:
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
