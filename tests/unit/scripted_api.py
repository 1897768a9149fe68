"""A stand-in for the HTTP API's edge, for tests of its client: it keeps documents in memory and fails as it is told."""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

KEY = "rag_testtest.secret"


@dataclass
class Api:
    """`replies` holds (status, headers, body) to give next for a path; the documents answer where it holds none."""

    url: str = ""
    replies: dict[str, list[tuple[int, dict[str, str], Any]]] = field(default_factory=dict)
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    receipts: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)
    failing: dict[str, dict[str, str]] = field(default_factory=dict)
    polls_until_ready: int = 1
    visible: bool = True
    page_size: int = 2
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reply(self, path: str, body: Any, status: int = 200, **headers: str) -> None:
        self.replies.setdefault(path, []).append((status, headers, body))

    def add(self, key: str, **values: Any) -> dict[str, Any]:
        document = {"id": f"id-{key.replace('/', '-')}", "key": key, "collection": "default", "status": "ready"}
        document |= {"error": None, "chunk_count": 3, "title": key, "media_type": "text/plain", "size": 10}
        document |= {"version_id": "v1", "created_at": "2026-11-20T09:00:00Z", "updated_at": "2026-11-20T09:00:01Z"}
        document |= {"metadata": {}, "metadata_error": None, "warnings": []}
        document |= {"allowed_principals": None}
        return self.documents.setdefault(key, document | values)

    def upload(self, key: str) -> str:
        """What arrives is seen as processing first; its version is the number of times the key was uploaded."""
        number = int(self.documents[key]["version_id"][1:]) + 1 if key in self.documents else 1
        self.documents.setdefault(key, self.add(key, version_id="v0"))["uploaded"] = f"v{number}"
        self.documents[key]["polls"] = 0
        return f"v{number}"

    def look(self, document: dict[str, Any]) -> dict[str, Any]:
        """A document that was uploaded moves on a step each time it is looked at."""
        version = document.get("uploaded")
        if version is not None:
            document["polls"] += 1
            if document["polls"] > self.polls_until_ready:
                failure = self.failing.get(document["key"])
                document |= {"version_id": version, "status": "failed" if failure else "ready", "error": failure}
                del document["uploaded"]
        return {name: value for name, value in document.items() if name not in {"uploaded", "polls"}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: Api

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_DELETE = do_GET  # noqa: N815 (the names that http.server looks for)

    def _answer(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = urlsplit(self.path).path
        is_json = self.headers.get("content-type") == "application/json"
        body = json.loads(raw) if is_json else raw
        with self.api.lock:
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.api.requests.append((self.command, self.path, headers, body))
            scripted = self.api.replies.get(path)
            status, extra, reply = scripted.pop(0) if scripted else self._route(path, body)
        self._send(status, extra, reply)

    def _send(self, status: int, headers: dict[str, str], reply: Any) -> None:
        content = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def _route(self, path: str, body: Any) -> tuple[int, dict[str, str], Any]:
        if path == "/s3":
            return self._store(body)
        if self.headers.get("x-api-key") != KEY and path != "/health":
            return 401, {}, {"message": "Unauthorized"}
        if path == "/v1/documents":
            return self._promise(body) if self.command == "POST" else self._list()
        if path.startswith("/v1/documents/"):
            return self._one(unquote(path.removeprefix("/v1/documents/")))
        return self._erasure(path)

    def _erasure(self, path: str) -> tuple[int, dict[str, str], Any]:
        if path.startswith("/v1/erasures/"):
            return 200, {}, self.api.receipts[path.removeprefix("/v1/erasures/")] | {"status": "done"}
        if path.startswith("/v1/collections/") and self.command == "DELETE":
            name = path.removeprefix("/v1/collections/")
            self.api.documents = {key: d for key, d in self.api.documents.items() if d["collection"] != name}
            return 202, {}, self._receipt("collection", name, None)
        return 404, {}, problem(404, "There is no such path.")

    def _receipt(self, scope: str, collection: str, document: str | None) -> dict[str, Any]:
        receipt = {"id": str(uuid.uuid4()), "scope": scope, "collection": collection, "document_id": document}
        self.api.receipts[receipt["id"]] = receipt
        return receipt | {"status": "pending"}

    def _promise(self, body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        upload = {"url": f"{self.api.url}/s3", "fields": {"key": f"tenant/{body['collection']}/{body['key']}"}}
        identity = f"id-{body['key'].replace('/', '-')}"
        return (
            201,
            {},
            {"id": identity, **body, "upload": upload, "expires_in_seconds": 900, "visible": self.api.visible},
        )

    def _store(self, body: bytes) -> tuple[int, dict[str, str], Any]:
        found = re.search(rb'name="key"\r\n\r\ntenant/[^/]+/(.*?)\r\n', body)
        assert found, "the form has no key"
        assert body.index(b'name="file"') > found.start(), "S3 ignores the fields after the file"
        return 204, {"x-amz-version-id": self.api.upload(found[1].decode())}, b""

    def _list(self) -> tuple[int, dict[str, str], Any]:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        wanted = {name: query[name] for name in ("status", "key", "collection") if name in query}
        listed = [
            d
            for d in self.api.documents.values()
            if d["key"].startswith(query.get("prefix", "")) and all(d[name] == wanted[name] for name in wanted)
        ]
        start = int(query.get("cursor", "0"))
        end = start + self.api.page_size
        documents = [self.api.look(d) for d in listed[start:end]]
        return 200, {}, {"documents": documents, "next_cursor": str(end) if end < len(listed) else None}

    def _one(self, path: str) -> tuple[int, dict[str, str], Any]:
        identity, _, action = path.partition("/")
        document = next((d for d in self.api.documents.values() if d["id"] == identity), None)
        if document is None:
            return 404, {}, problem(404, "There is no such document.")
        if self.command == "DELETE":
            del self.api.documents[document["key"]]
            return 202, {}, self._receipt("document", document["collection"], identity)
        if action == "retry":
            if document["status"] != "failed":
                return 409, {}, problem(409, "The document has not failed.")
            document |= {"status": "uploaded", "error": None, "uploaded": document["version_id"], "polls": 0}
            return 202, {}, {"id": identity, "status": "uploaded"}
        return 200, {}, self.api.look(document)


def problem(status: int, detail: str, **more: Any) -> dict[str, Any]:
    return {"type": "about:blank", "title": "x", "status": status, "detail": detail, "request_id": "r-1", **more}


@contextmanager
def serving() -> Iterator[Api]:
    api = Api()
    handler = type("Handler", (_Handler,), {"api": api})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    api.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
