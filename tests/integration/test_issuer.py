"""The issuer of a laptop's users, asked as its clients ask it."""

from __future__ import annotations

import asyncio
import json
import stat
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from local import issuer
from local.asgi import Server
from local.issuer import Issuer, Users
from rag.access_tokens import AccessTokens
from rag.errors import NotAuthorizedError
from rag.oidc import Issuer as Named
from rag.types import Caller

TENANT = uuid.uuid4()
ANN = {"email": "Ann@example.com", "tenant_id": str(TENANT), "role": "writer", "groups": ["legal", "finance"]}
ADMIN = {"authorization": "Bearer t0ken"}


class Asked:
    """Requests, each in its turn, to an issuer of a directory that is really served."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(self, *requests: tuple[str, str, Any], headers: dict[str, str] | None = None) -> list[httpx.Response]:
        return asyncio.run(self._serve(requests, ADMIN if headers is None else headers))

    async def _serve(self, requests: Any, headers: dict[str, str]) -> list[httpx.Response]:
        with issuer.door(self.directory) as door:
            self.url = issuer.url_of(door)
            server = Server(Issuer(Users(self.directory), self.url, admin_token="t0ken"), grace_seconds=1)
            await server.open([door])
            try:
                async with httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False, timeout=60) as client:
                    return [await client.request(method, path, json=body) for method, path, body in requests]
            finally:
                await server.close()


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    return Asked(tmp_path)


def test_a_user_is_made_once_listed_and_deleted(asked: Asked) -> None:
    made, again, other, listed = asked(
        ("POST", "/users", ANN),
        ("POST", "/users", ANN),
        ("POST", "/users", ANN | {"role": "admin"}),
        ("GET", "/users", None),
    )
    subject = made.json()["subject"]
    user = {**ANN, "email": "ann@example.com", "subject": subject, "groups": ["finance", "legal"]}
    assert (made.json(), again.json(), listed.json()) == (user, user, {"users": [user]})
    assert (other.status_code, "already" in other.json()["message"]) == (409, True)
    # They outlive the program, and nobody else may read them.
    path = asked.directory / "users.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    gone, absent = asked(("DELETE", "/users/ann%40example.com", None), ("DELETE", "/users/ann%40example.com", None))
    assert (gone.json(), absent.status_code) == (user, 404)


def test_its_tokens_are_verified_as_any_issuers_and_survive_a_restart(asked: Asked) -> None:
    _, made, described, keys = asked(
        ("POST", "/users", ANN),
        ("POST", "/tokens", {"email": "ann@example.com"}),
        ("GET", "/.well-known/openid-configuration", None),
        ("GET", "/keys", None),
    )
    token, url = made.json()["access_token"], asked.url
    assert (described.json()["issuer"], described.json()["jwks_uri"]) == (url, f"{url}/keys")
    [key] = keys.json()["keys"]
    assert set(key) == {"kty", "n", "e", "kid", "use", "alg"}
    claims = jwt.decode(token, jwt.PyJWK(key), ["RS256"], audience=issuer.AUDIENCE, issuer=url)
    assert claims["exp"] - time.time() == pytest.approx(issuer.LIFETIME_SECONDS, abs=10)
    assert stat.S_IMODE((asked.directory / "issuer-key.pem").stat().st_mode) == 0o600
    [later] = asked(("GET", "/keys", None))
    assert (later.json(), asked.url) == (keys.json(), url)


def test_the_authorizers_verifier_takes_them(tmp_path: Path) -> None:
    async def serve() -> tuple[Caller, Caller]:
        with issuer.door(tmp_path) as door:
            url = issuer.url_of(door)
            server = Server(Issuer(Users(tmp_path), url, admin_token="t0ken"), grace_seconds=1)
            await server.open([door])
            users = Users(tmp_path)
            user = users.create(ANN)
            token = users.token("ann@example.com", issuer=url, seconds=60)["access_token"]
            verifier = AccessTokens([Named(issuer=url, audiences=(issuer.AUDIENCE,))])
            found = await asyncio.to_thread(verifier.caller, token)
            with pytest.raises(NotAuthorizedError):
                await asyncio.to_thread(verifier.caller, token[:-5])
            await server.close()
            expected = Caller(
                TENANT, f"user:{user['subject']}", "writer", None, ("finance", "legal"), "ann@example.com"
            )
            return found, expected

    found, expected = asyncio.run(serve())
    assert found == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"email": "ann"}, "address"),
        ({"email": None}, "address"),
        ({"tenant_id": "acme"}, "not the id of a tenant"),
        ({"role": "owner"}, "reader, writer, admin"),
        ({"groups": "finance"}, "names"),
        ({"groups": ["admin"]}, "roles"),
        ({"groups": ["two\nlines"]}, "names"),
    ],
    ids=repr,
)
def test_a_user_that_cannot_be_is_refused_with_what_to_do(asked: Asked, change: dict[str, Any], words: str) -> None:
    [refused] = asked(("POST", "/users", ANN | change))
    assert (refused.status_code, words in refused.json()["message"]) == (400, True)


def test_only_who_has_the_administrators_token_sees_users_or_gets_tokens(asked: Asked) -> None:
    asked(("POST", "/users", ANN))
    requests = [("GET", "/users", None), ("POST", "/tokens", {"email": "ann@example.com"}), ("POST", "/users", ANN)]
    for headers in ({}, {"authorization": "Bearer other"}, {"authorization": "Bearer"}):
        assert [reply.status_code for reply in asked(*requests, headers=headers)] == [401, 401, 401]


def test_a_page_that_reaches_it_under_another_name_learns_nothing(asked: Asked) -> None:
    [reply] = asked(("GET", "/keys", None), headers={"host": "evil.example", **ADMIN})
    assert reply.status_code == 403


def test_nonsense_is_refused(asked: Asked) -> None:
    replies = asked(
        ("POST", "/tokens", {"email": "nobody@example.com"}),
        ("POST", "/tokens", {"email": "ann@example.com", "expires_in": 10**9}),
        ("POST", "/users", ["ann"]),
        ("GET", "/nothing", None),
    )
    assert [reply.status_code for reply in replies] == [404, 400, 400, 404]
    assert all(json.loads(reply.content)["message"] for reply in replies)
