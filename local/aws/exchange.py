"""One HTTP request and its reply, as WSGI has them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlencode

from moto.core.request import (
    PRESERVED_HEADER_NAMES_ENVIRON_KEY,
    environ_key_for_header,
    should_preserve_original_header_name,
)

from local.aws import REGION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from _typeshed.wsgi import StartResponse, WSGIApplication

Environ = dict[str, Any]
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    @property
    def ok(self) -> bool:
        return self.status < HTTPStatus.MULTIPLE_CHOICES

    def adding(self, headers: Mapping[str, str]) -> Reply:
        """The same reply with `headers` in place of its own of the same names."""
        replaced = {name.lower() for name in headers}
        kept = tuple((name, value) for name, value in self.headers if name.lower() not in replaced)
        return Reply(self.status, (*kept, *headers.items()), self.body)

    def send(self, start_response: StartResponse, *, head: bool = False) -> Iterable[bytes]:
        """Answer a WSGI request; the reply to a HEAD keeps the length that its GET would have."""
        headers = list(self.headers)
        # A reply without a length ends only when its connection does, which costs every client some milliseconds.
        if not head and self.status != HTTPStatus.NO_CONTENT:
            headers = [*self.adding({"Content-Length": str(len(self.body))}).headers]
        start_response(f"{self.status} {HTTPStatus(self.status).phrase}", headers)
        return [] if head else [self.body]


def ask(app: WSGIApplication, environ: Environ) -> Reply:
    """Let `app` answer the request."""
    status = ""
    headers: list[tuple[str, str]] = []

    def start_response(line: str, fields: list[tuple[str, str]], _failure: object = None) -> Any:
        nonlocal status, headers
        status, headers = line, fields

    body = b"".join(app(environ, start_response))
    return Reply(int(status.split(maxsplit=1)[0]), tuple(headers), body)


def request(
    service: str, method: str, target: str, *, headers: Mapping[str, str] | None = None, body: bytes = b""
) -> Environ:
    """A signed-looking request of our own to moto; `target` is the quoted path with its query."""
    path, _, query = target.partition("?")
    return {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(path).encode().decode("latin-1"),
        "RAW_URI": target,
        "QUERY_STRING": query,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "127.0.0.1",
        "HTTP_AUTHORIZATION": authorization(service),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **headers_environ(headers or {}),
        **body_environ(body),
    }


def authorization(service: str) -> str:
    """What moto reads of a signature: the service and the region of its scope."""
    scope = f"LOCALRAG/20260101/{REGION}/{service}/aws4_request"
    return f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"


def headers_environ(headers: Mapping[str, str]) -> Environ:
    """WSGI folds `_` into `-`; S3 metadata may hold both, so moto keeps the names beside the values."""
    names = {environ_key_for_header(name): name for name in headers if should_preserve_original_header_name(name)}
    values = {environ_key_for_header(name): value for name, value in headers.items()}
    return {**values, PRESERVED_HEADER_NAMES_ENVIRON_KEY: names}


def hiding_form(environ: Environ) -> Environ:
    """The same PUT with the type of its body in the query, where moto looks too.

    In the header, the types of HTML forms make moto read the object as a form and store nothing.
    """
    media_type = str(environ.get("CONTENT_TYPE", ""))
    if environ["REQUEST_METHOD"] != "PUT" or not media_type.lower().startswith(_FORMS):
        return environ
    query = "&".join(filter(None, [environ["QUERY_STRING"], urlencode({"Content-Type": media_type})]))
    path = environ["RAW_URI"].partition("?")[0]
    return {**environ, "CONTENT_TYPE": "", "QUERY_STRING": query, "RAW_URI": f"{path}?{query}"}


def body_environ(body: bytes) -> Environ:
    return {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
