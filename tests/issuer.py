"""An issuer of access tokens over HTTP, with real keys, that turns them over, fails and forges as told."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

AUDIENCE = "rag"
KEYS_PATH = "/keys"


@cache
def rsa_key(number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    """One of several keys, made once in a session."""
    return rsa.generate_private_key(65537, bits)


@cache
def ec_key(number: int = 0) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def public(kid: str, private: Any, /, **said: Any) -> dict[str, Any]:
    """As the issuer publishes the key."""
    kind = jwt.algorithms.RSAAlgorithm if isinstance(private, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    algorithm = "RS256" if isinstance(private, rsa.RSAPrivateKey) else "ES256"
    return {**kind.to_jwk(private.public_key(), as_dict=True), "kid": kid, "use": "sig", "alg": algorithm, **said}


class Issuer:
    """`published` keys; `fetches` counts what was asked for of them. While it is `down` it says 503."""

    def __init__(self) -> None:
        self.published = [public("one", rsa_key()), public("curve", ec_key())]
        self.described: dict[str, Any] = {}
        self.fetches: list[str] = []
        self.down = False
        self.body: bytes | None = None
        self.pause_seconds = 0.0
        self.url = ""

    def setting(self, **others: Any) -> str:
        """What RAG_OIDC says of it."""
        return json.dumps([{"issuer": self.url, "audiences": [AUDIENCE], **others}])

    def claims(self, tenant: object, **others: Any) -> dict[str, Any]:
        """Of a token that lets a writer in; a claim that is None is left out."""
        now = int(time.time())
        usual = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "u-1",
            "iat": now,
            "exp": now + 900,
            "tenant_id": str(tenant),
            "groups": ["writer", "finance"],
        }
        return {name: value for name, value in {**usual, **others}.items() if value is not None}

    def token(self, tenant: object, *, header: Mapping[str, Any] | None = None, **others: Any) -> str:
        return jwt.encode(self.claims(tenant, **others), rsa_key(), "RS256", {"kid": "one", **(header or {})})

    def answer(self, path: str) -> tuple[int, bytes]:
        self.fetches.append(path)
        time.sleep(self.pause_seconds)
        if self.down:
            return 503, b""
        if path == KEYS_PATH:
            return 200, json.dumps({"keys": self.published}).encode() if self.body is None else self.body
        described = {"issuer": self.url, "jwks_uri": f"{self.url}{KEYS_PATH}", **self.described}
        return (200, json.dumps(described).encode()) if path == "/.well-known/openid-configuration" else (404, b"")


@contextmanager
def serving(issuer: Issuer) -> Iterator[Issuer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = issuer.answer(self.path)
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    issuer.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()


def part(value: Any) -> str:
    """One of a token's parts, of an object or of bytes."""
    raw = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
