"""No access token lets anybody in but one that an issuer made for this API, for this moment, for a tenant there is."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from functions.authorize.handler import handler
from tests.integration.deployment import Context, Deployment, presenting
from tests.issuer import KEYS_PATH, Issuer, ec_key, part, public, rsa_key, serving

pytestmark = pytest.mark.slow

RS256 = {"alg": "RS256", "kid": "one", "typ": "JWT"}
_RSA = RSAAlgorithm(RSAAlgorithm.SHA256)
_EC = ECAlgorithm(ECAlgorithm.SHA256)
_MINUTE = 60


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with serving(Issuer()) as served:
        yield served


@pytest.fixture
def attacker() -> Iterator[Issuer]:
    """Publishes a key of its own under the id of the issuer's."""
    with serving(Issuer()) as served:
        served.published = [public("one", rsa_key(1))]
        yield served


def verdict(token: str) -> str:
    """What the authorizer makes of it: Allow, Deny, Unauthorized, or the name of what it broke with."""
    event = presenting(("authorization", f"Bearer {token}"))
    try:
        allowed: str = handler(event, Context())["policyDocument"]["Statement"][0]["Effect"]
    except Exception as refused:  # noqa: BLE001 (whatever it breaks with is compared)
        return str(refused) if str(refused) == "Unauthorized" else repr(refused)
    return allowed


def signed(header: Any, claims: Any, sign: Callable[[bytes], bytes] | None = None) -> str:
    """Put together by hand, as no library would: header and claims are objects or raw bytes."""
    text = f"{part(header)}.{part(claims)}"
    return f"{text}.{part((sign or _issuers)(text.encode()))}"


def _issuers(text: bytes) -> bytes:
    return _RSA.sign(text, rsa_key())


def _attackers(text: bytes) -> bytes:
    return _RSA.sign(text, rsa_key(1))


def keyed(secret: bytes) -> Callable[[bytes], bytes]:
    return lambda text: hmac.digest(secret, text, hashlib.sha256)


def pem() -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return rsa_key().public_key().public_bytes(serialization.Encoding.PEM, form)


def by_algorithm(claims: dict[str, Any], attacker: Issuer) -> dict[str, str]:
    hs256 = {**RS256, "alg": "HS256"}
    published = public("one", rsa_key())
    theirs = {"jku": f"{attacker.url}{KEYS_PATH}", "x5u": f"{attacker.url}{KEYS_PATH}", "jwk": attacker.published[0]}
    text = f"{part(RS256)}.{part(claims)}"
    return {
        **{f"alg {name}": signed({**RS256, "alg": name}, claims) for name in ("none", "None", "nOnE", "", "RS1")},
        **{f"alg {name!r}": signed({**RS256, "alg": name}, claims) for name in (None, ["RS256"], {"RS256": 1}, 1)},
        "alg none without a signature": f"{part({'alg': 'none'})}.{part(claims)}.",
        "no alg": signed({"kid": "one"}, claims),
        "HS256 with the public key": signed(hs256, claims, keyed(pem())),
        "HS256 with the modulus": signed(hs256, claims, keyed(published["n"].encode())),
        "HS256 with nothing": signed(hs256, claims, keyed(b"")),
        **{
            f"{name} by the issuer's key": jwt.encode(claims, rsa_key(), name, {"kid": "one"})
            for name in ("RS384", "RS512", "PS256")
        },
        "ES256 with the RSA key": signed({**RS256, "alg": "ES256"}, claims),
        "ES256 of zeros": signed({"alg": "ES256", "kid": "curve"}, claims, lambda _: bytes(64)),
        "ES256 by another curve key": signed(
            {"alg": "ES256", "kid": "curve"}, claims, lambda text: _EC.sign(text, ec_key(1))
        ),
        "RS256 with the curve key": signed({**RS256, "kid": "curve"}, claims),
        "another's signature": signed(RS256, claims, _attackers),
        **{f"{name} of another": signed({**RS256, name: said}, claims, _attackers) for name, said in theirs.items()},
        "a certificate of another": signed({**RS256, "x5c": ["MII="]}, claims, _attackers),
        "the signature of another token": _replaced(signed(RS256, claims), {**claims, "sub": "u-2"}),
        "no signature": f"{text}.",
        "a signature of zeros": signed(RS256, claims, lambda _: bytes(256)),
    }


def by_header(claims: dict[str, Any]) -> dict[str, str]:
    kids = ("../../../../dev/null", "one' or '1'='1", "k" * 5000, "", "ONE", "one\0", None, ["one"], {"one": 1}, 1)
    return {
        **{f"kid {str(kid)[:20]!r}": signed({**RS256, "kid": kid}, claims) for kid in kids},
        "no kid": signed({"alg": "RS256"}, claims),
        "crit": signed({**RS256, "crit": ["exp"], "exp": 1}, claims),
        "crit of nothing": signed({**RS256, "crit": []}, claims),
        "b64 false": signed({**RS256, "b64": False, "crit": ["b64"]}, claims),
        "b64 false, not critical": signed({**RS256, "b64": False}, claims),
        "compressed": signed({**RS256, "zip": "DEF"}, claims),
        "nested": signed({**RS256, "cty": "JWT"}, signed(RS256, claims).encode()),
        **{f"typ {kind}": signed({**RS256, "typ": kind}, claims) for kind in ("logout+jwt", "dpop+jwt", "JWE", "", 7)},
        "two algorithms": signed(b'{"alg":"RS256","kid":"one","alg":"RS256"}', claims),
        "a header that is a list": signed([RS256], claims),
    }


def by_claim(claims: dict[str, Any], second: str) -> dict[str, str]:
    now = int(time.time())
    text = json.dumps(claims).removesuffix("}")
    changed: dict[str, dict[str, Any]] = {
        "no exp": {"exp": None},
        "expired": {"iat": now - 900, "exp": now - 90},
        "expired long ago": {"iat": 1, "exp": 2},
        "never expires": {"exp": 253_402_300_799},
        "exp in words": {"exp": str(now + 900)},
        "exp true": {"exp": True},
        "exp in a list": {"exp": [now + 900]},
        "exp beyond numbers": {"exp": 10**400},
        "a negative life": {"iat": now + 30, "exp": now + 20},
        "no iat": {"iat": None},
        "issued tomorrow": {"iat": now + 86_400, "exp": now + 86_700},
        "iat beyond numbers": {"iat": -(10**400)},
        "not before tomorrow": {"nbf": now + 86_400},
        "nbf in words": {"nbf": "now"},
        "another audience": {"aud": "other"},
        "no audience": {"aud": None},
        "other audiences": {"aud": ["other", "rag2", "ra"]},
        "an audience that is an object": {"aud": {"rag": True}},
        "an audience that is a number": {"aud": 1},
        "another issuer": {"iss": "https://issuer.example"},
        "an issuer and more": {"iss": f"{claims['iss']}/"},
        "an issuer in capitals": {"iss": claims["iss"].upper()},
        "a list of issuers": {"iss": [claims["iss"]]},
        "no issuer": {"iss": None},
        "an ID token": {"token_use": "id"},
        "a refresh token": {"token_use": "refresh"},
        "no subject": {"sub": None},
        "a subject that is a number": {"sub": 1},
        "a subject of two lines": {"sub": "u-1\nadmin"},
        "no tenant": {"tenant_id": None},
        "a list of tenants": {"tenant_id": [claims["tenant_id"]]},
        "two tenants": {"tenant_id": f"{claims['tenant_id']},{second}"},
        "a tenant that is a number": {"tenant_id": 1},
        "a tenant that is an object": {"tenant_id": {"id": claims["tenant_id"]}},
        "a tenant of SQL": {"tenant_id": "' or true --"},
        "a tenant that does not exist": {"tenant_id": str(uuid.uuid4())},
        "the tenant nil": {"tenant_id": str(uuid.UUID(int=0))},
        "groups in a word": {"groups": "admin"},
        "groups of numbers": {"groups": [1]},
    }
    return {
        **{
            name: signed(RS256, {key: value for key, value in {**claims, **change}.items() if value is not None})
            for name, change in changed.items()
        },
        "another tenant, under the old signature": _replaced(signed(RS256, claims), {**claims, "tenant_id": second}),
        "another role, under the old signature": _replaced(signed(RS256, claims), {**claims, "groups": ["admin"]}),
        "two tenants by two names": signed(RS256, f'{text}, "tenant_id": "{second}"}}'.encode()),
        "two subjects by two names": signed(RS256, f'{text}, "sub": "u-2"}}'.encode()),
        "not a number": signed(RS256, f'{text}, "nbf": NaN}}'.encode()),
        "an infinite life": signed(RS256, f'{text}, "nbf": 1e999}}'.encode()),
    }


def _replaced(token: str, claims: dict[str, Any]) -> str:
    head, _, signature = token.split(".")
    return f"{head}.{part(claims)}.{signature}"


def by_form(claims: dict[str, Any]) -> dict[str, str]:
    sound = signed(RS256, claims)
    head, body, signature = sound.split(".")
    padded = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()
    return {
        "nothing": "",
        "a megabyte": signed(RS256, {**claims, "x": "x" * 1_000_000}),
        "a megabyte of points": "." * 1_000_000,
        "just too long": signed(RS256, {**claims, "x": "x" * 8192}),
        **{f"cut off at {where}": sound[: int(len(sound) * where)] for where in (0.1, 0.5, 0.9)},
        "a letter short": sound[:-1],
        "two parts": f"{head}.{body}",
        "four parts": f"{sound}.{signature}",
        "five parts, as if encrypted": f"{sound}.{signature}.{signature}",
        "as JSON": json.dumps({"protected": head, "payload": body, "signature": signature}),
        "padded": f"{head}.{padded}={'=' * 2}.{signature}",
        "a space in it": f"{head}. {body}.{signature}",
        "a line in it": f"{head}.\n{body}.{signature}",
        "another script": f"{head}.{body}é.{signature}",
        "NUL": f"{head}.{body}\0.{signature}",
        "a last letter that says the same": _last_letter(signature_of=sound),
        "no JSON": signed(RS256, b"claims"),
        "no UTF-8": signed(RS256, b"\xff\xfe{}"),
        "a list of claims": signed(RS256, [claims]),
        "null": signed(RS256, b"null"),
        "very deep": signed(RS256, b"[" * 5000),
        "a token in a token": signed(RS256, sound.encode()),
        "two tokens": f"{sound},{sound}",
    }


def _last_letter(*, signature_of: str) -> str:
    """256 bytes leave four bits of the last letter unused: RFC 4648 says that they are zero."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return signature_of[:-1] + alphabet[alphabet.index(signature_of[-1]) ^ 1]


def test_no_forged_token_is_accepted(
    deployment: Deployment, issuer: Issuer, attacker: Issuer, record_attack: Callable[..., None]
) -> None:
    second, _ = deployment.tenants.create("second")
    claims = issuer.claims(deployment.tenant, groups=["reader"])
    forged = {
        **by_algorithm(claims, attacker),
        **by_header(claims),
        **by_claim(claims, str(second)),
        **by_form(claims),
    }
    with deployment.function("rag_authorize", oidc=issuer.setting()):
        assert verdict(signed(RS256, claims)) == "Allow"
        found = {name: verdict(token) for name, token in forged.items()}
        assert verdict(signed(RS256, claims)) == "Allow"
    accepted = {name: said for name, said in found.items() if said != "Unauthorized"}
    record_attack(
        "I1",
        tried=len(forged),
        succeeded=len(accepted),
        figure=f"401 to each of {len(forged)} forged tokens; {len(attacker.fetches)} requests to addresses in tokens",
    )
    assert accepted == {}
    assert attacker.fetches == []
    assert len(forged) >= 25


def test_an_id_token_for_the_same_client_lets_nobody_in(
    deployment: Deployment, issuer: Issuer, record_attack: Callable[..., None]
) -> None:
    setting = issuer.setting(audiences=[], client_ids=["page"], require={"token_use": "access"})
    access = issuer.claims(deployment.tenant, aud=None, client_id="page", token_use="access")
    without = {name: value for name, value in access.items() if name != "token_use"}
    forged = {
        "an ID token": access | {"token_use": "id", "aud": "page"},
        "an ID token without an audience": access | {"token_use": "id"},
        "an ID token of another kind": without | {"aud": "page", "nonce": "n"},
        "no use": without,
        "another client": access | {"client_id": "other"},
        "a list of clients": access | {"client_id": ["page"]},
        "a client's audience": access | {"aud": "page"},
    }
    with deployment.function("rag_authorize", oidc=setting):
        assert verdict(signed(RS256, access)) == "Allow"
        found = {name: verdict(signed(RS256, claims)) for name, claims in forged.items()}
    accepted = {name: said for name, said in found.items() if said != "Unauthorized"}
    record_attack("I1", tried=len(forged), succeeded=len(accepted), figure="ID tokens, and tokens of other clients")
    assert accepted == {}


def test_a_thousand_unknown_keys_do_not_make_us_ask_the_issuer_a_thousand_times(
    deployment: Deployment, issuer: Issuer, record_attack: Callable[..., None]
) -> None:
    claims = issuer.claims(deployment.tenant)
    with deployment.function("rag_authorize", oidc=issuer.setting()):
        assert verdict(signed(RS256, claims)) == "Allow"
        began, first = time.monotonic(), len(issuer.fetches)
        found = [
            verdict(signed({**RS256, "kid": f"k{number}"}, claims, lambda _: bytes(256))) for number in range(1000)
        ]
        minutes = (time.monotonic() - began) / _MINUTE
        assert verdict(signed(RS256, claims)) == "Allow"
    requests = len(issuer.fetches) - first
    record_attack(
        "I1",
        tried=len(found),
        succeeded=sum(said != "Unauthorized" for said in found),
        figure=f"{requests} requests for keys under {len(found):,} unknown kids in {minutes * _MINUTE:.1f} s",
    )
    assert set(found) == {"Unauthorized"}
    assert requests <= 1 + minutes


def test_clocks_that_differ_by_five_minutes_neither_prolong_nor_open_anything(
    deployment: Deployment, issuer: Issuer, record_attack: Callable[..., None]
) -> None:
    """As if the issuer's clock, or ours, were off by so much: a minute is borne, five are not."""
    cases = []
    with deployment.function("rag_authorize", oidc=issuer.setting()):
        for off in range(-300, 301, 30):
            # A token of 200 seconds, a second old, by a clock that is `off`.
            now = int(time.time()) + off
            said = verdict(issuer.token(deployment.tenant, iat=now - 1, nbf=now - 1, exp=now + 199))
            left = 199 + off
            expected = "Allow" if off <= _MINUTE and left > -_MINUTE else "Unauthorized"
            # At the edge the second in which it is looked at decides.
            cases.append((off, said == expected or abs(left + _MINUTE) <= 1 or abs(off - _MINUTE) <= 1))
    wrong = [off for off, right in cases if not right]
    record_attack(
        "L6",
        tried=len(cases),
        succeeded=len(wrong),
        figure="clocks off by -5 to +5 min: tokens end within the leeway, 60 s",
    )
    assert wrong == []
