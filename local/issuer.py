"""The issuer of this machine's users: an OpenID Connect issuer whose tokens the authorizer verifies like any other's.

It signs in nobody: whoever may administer the platform may have a token of any of its users. Sources: OpenID Connect
Discovery 1.0; RFC 9068 for the tokens.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from local import service
from local.asgi import LOOPBACK, BodyTooLargeError, DisconnectedError, listen, read_body, reply
from rag.calling import ROLES

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

AUDIENCE = "rag-local"
LIFETIME_SECONDS = 3600
LONGEST_SECONDS = 24 * 3600
_KEYS_PATH = "/keys"
_LIMIT_BYTES = 100_000
_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,240}")
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
_ALGORITHM = "RS256"

JSON = dict[str, Any]


class RefusedError(Exception):
    """What was asked for cannot be done; `status` as of HTTP."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Users:
    """`users.json` and the signing key of a data directory; both are made when they are first needed."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "users.json"
        self._key_path = directory / "issuer-key.pem"
        self._turn = threading.Lock()
        self._signing: Any = None

    def all(self) -> list[JSON]:
        """Every user, by address."""
        held: list[JSON] = json.loads(self._path.read_text()) if self._path.exists() else []
        return sorted(held, key=lambda user: str(user["email"]))

    def create(self, asked: JSON) -> JSON:
        """Make a user; the same once more is the same user, another one of that address is refused."""
        user = _checked(asked)
        with self._turn:
            for known in self.all():
                if known["email"] == user["email"]:
                    if {**user, "subject": known["subject"]} == known:
                        return known
                    raise RefusedError(409, f"There is a user {user['email']} already; delete it to change it")
            self._write([*self.all(), user])
        return user

    def delete(self, email: str) -> JSON:
        with self._turn:
            user = self._found(email)
            self._write([known for known in self.all() if known != user])
        return user

    def token(self, email: str, *, issuer: str, seconds: int) -> JSON:
        """Sign an access token of this user, as an answer of a token endpoint (RFC 6749, 5.1)."""
        import jwt  # noqa: PLC0415 (cryptography: 0.2 s, which starting the platform need not wait for)

        user, now = self._found(email), int(time.time())
        claims = {
            "iss": issuer,
            "aud": AUDIENCE,
            "sub": user["subject"],
            "client_id": "rag",
            "iat": now,
            "exp": now + seconds,
            "jti": str(uuid.uuid4()),
            "tenant_id": user["tenant_id"],
            "groups": [user["role"], *user["groups"]],
            "email": user["email"],
            "email_verified": True,
        }
        key_id = self.keys()["keys"][0]["kid"]
        token = jwt.encode(claims, self._key(), _ALGORITHM, {"kid": key_id, "typ": "at+jwt"})
        return {"access_token": token, "token_type": "Bearer", "expires_in": seconds}

    def keys(self) -> JSON:
        """The public key as a JWK set (RFC 7517); its id is its thumbprint (RFC 7638)."""
        from jwt.algorithms import RSAAlgorithm  # noqa: PLC0415

        described = RSAAlgorithm.to_jwk(self._key().public_key(), as_dict=True)
        named = json.dumps({name: described[name] for name in ("e", "kty", "n")}, separators=(",", ":"))
        thumbprint = base64.urlsafe_b64encode(hashlib.sha256(named.encode()).digest()).rstrip(b"=").decode()
        key = {name: described[name] for name in ("kty", "n", "e")}
        return {"keys": [{**key, "kid": thumbprint, "use": "sig", "alg": _ALGORITHM}]}

    def _found(self, email: str) -> JSON:
        for user in self.all():
            if user["email"] == email.lower():
                return user
        raise RefusedError(404, f"There is no user {email}")

    def _write(self, users: list[JSON]) -> None:
        service.write_private(self._path, json.dumps(users, indent=2))

    def _key(self) -> Any:
        with self._turn:
            self._signing = self._signing or self._kept_key()
            return self._signing

    def _kept_key(self) -> Any:
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415

        def make() -> str:
            key = rsa.generate_private_key(65537, 2048)
            encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
            return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()

        pem = service.kept_secret(self._key_path, make)
        return serialization.load_pem_private_key(pem.encode(), password=None)


def _checked(asked: JSON) -> JSON:
    email, tenant, role, groups = (asked.get(name) for name in ("email", "tenant_id", "role", "groups"))
    if not isinstance(email, str) or not _EMAIL.fullmatch(email):
        raise RefusedError(400, "A user is named by an e-mail address")
    try:
        tenant_id = str(uuid.UUID(str(tenant)))
    except ValueError:
        raise RefusedError(400, f"{tenant} is not the id of a tenant") from None
    if role not in ROLES:
        raise RefusedError(400, f"A role is one of {', '.join(ROLES)}")
    if not isinstance(groups, list) or not all(isinstance(name, str) and _NAME.fullmatch(name) for name in groups):
        raise RefusedError(400, "Groups are names of up to 200 characters")
    if set(groups) & set(ROLES):
        raise RefusedError(400, f"A group is not called {', '.join(ROLES)}: these are roles")
    subject = str(uuid.uuid4())
    return {
        "email": email.lower(),
        "subject": subject,
        "tenant_id": tenant_id,
        "role": role,
        "groups": sorted({*groups}),
    }


class Issuer:
    """An ASGI application: description and keys for everybody, users and their tokens for who has the admin's token."""

    def __init__(self, users: Users, url: str, *, admin_token: str) -> None:
        self._users = users
        self._url = url
        self._admin_token = admin_token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            status, answer = 200, await self._answer(scope, receive)
        except DisconnectedError:
            return
        except RefusedError as refused:
            status, answer = refused.status, {"error": "invalid_request", "message": str(refused)}
        headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
        await reply(send, status, json.dumps(answer).encode(), headers)

    async def _answer(self, scope: Scope, receive: Receive) -> JSON:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        # A foreign name is how a web page reads a loopback server: by having its own name resolve to this machine.
        if f"http://{headers.get('host', '')}" != self._url:
            raise RefusedError(403, "This issuer answers under its own address only")
        method, path = scope["method"], scope["path"]
        if (method, path) == ("GET", "/.well-known/openid-configuration"):
            return self._described()
        if (method, path) == ("GET", _KEYS_PATH):
            return await asyncio.to_thread(self._users.keys)
        given = headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self._admin_token.encode()):
            raise RefusedError(401, "Users are administered with the token in ready.json")
        return await asyncio.to_thread(self._administered, method, path, await _body(receive))

    def _described(self) -> JSON:
        return {
            "issuer": self._url,
            "jwks_uri": f"{self._url}{_KEYS_PATH}",
            "response_types_supported": ["token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [_ALGORITHM],
        }

    def _administered(self, method: str, path: str, body: JSON) -> JSON:
        match method, path.split("/")[1:]:
            case "GET", ["users"]:
                return {"users": self._users.all()}
            case "POST", ["users"]:
                return self._users.create(body)
            case "DELETE", ["users", email]:
                return self._users.delete(unquote(email))
            case "POST", ["tokens"]:
                return self._token(body)
        raise RefusedError(404, "There is no such thing here")

    def _token(self, body: JSON) -> JSON:
        seconds = body.get("expires_in", LIFETIME_SECONDS)
        if not isinstance(seconds, int) or not 1 <= seconds <= LONGEST_SECONDS:
            raise RefusedError(400, f"A token is valid for 1 to {LONGEST_SECONDS} seconds")
        return self._users.token(str(body.get("email")), issuer=self._url, seconds=seconds)


async def _body(receive: Receive) -> JSON:
    try:
        held = json.loads(await read_body(receive, limit_bytes=_LIMIT_BYTES) or b"{}")
    except (ValueError, BodyTooLargeError):
        raise RefusedError(400, "Send a JSON object") from None
    if not isinstance(held, dict):
        raise RefusedError(400, "Send a JSON object")
    return held


@contextmanager
def door(directory: Path) -> Iterator[socket]:
    """The issuer's socket, at the port that it had before, so that its tokens stay valid over a restart."""
    with closing(listen(service.kept_port(directory / "issuer-port"))) as bound:
        yield bound


def url_of(bound: socket) -> str:
    return f"http://{LOOPBACK}:{bound.getsockname()[1]}"
