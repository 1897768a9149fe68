"""A model server whose vectors cost nothing: what is left is the time of everything else.

    python -m tests.benchmarks.ingest.fast_model

prints its port, and ends with its standard input. `POST /pause` sets how long it waits before each answer, in seconds;
`GET /requests` says how many texts each request for embeddings had since then.
"""

from __future__ import annotations

import base64
import json
import random
import sys
import threading
import time
from array import array
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
        self.pause_seconds = 0.0
        self.requests: list[int] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self._send(json.dumps(self.server.requests).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/pause":
            self.server.pause_seconds = body
            self.server.requests = []
            return self._send(b"null")
        texts = body["input"]
        self.server.requests.append(len(texts))
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
