"""API keys: `rag_<id>.<secret><checksum>`; the id is looked up, the secret is known to its owner alone."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import zlib

from rag.errors import NotAuthorizedError

_ALPHABET = string.digits + string.ascii_letters
_ID_LENGTH = 8
_SECRET_LENGTH = 43  # 62^43 > 2^256
_CHECKSUM_LENGTH = 6  # 62^6 > 2^32
_KEY = re.compile(
    rf"(?P<body>rag_(?P<key_id>[0-9A-Za-z]{{{_ID_LENGTH}}})\.[0-9A-Za-z]{{{_SECRET_LENGTH}}})"
    rf"(?P<checksum>[0-9A-Za-z]{{{_CHECKSUM_LENGTH}}})"
)

_SECRET = re.compile(rf"(rag_[0-9A-Za-z]{{{_ID_LENGTH}}}\.)[0-9A-Za-z]+")


def new() -> tuple[str, str, bytes]:
    """Make a key: `(key, key_id, digest)`; the key is shown once, id and digest are stored."""
    key_id = _random(_ID_LENGTH)
    body = f"rag_{key_id}.{_random(_SECRET_LENGTH)}"
    key = body + _checksum(body)
    return key, key_id, _digest(key)


def parse(key: str) -> tuple[str, bytes]:
    """Return `(key_id, digest)` of a well-formed key, to be compared with what is stored by `matches`.

    Raises `NotAuthorizedError` for what cannot be a key of ours: a slip of the pen costs no look-up.
    """
    match = _KEY.fullmatch(key)
    if not match or match["checksum"] != _checksum(match["body"]):
        raise NotAuthorizedError("The API key is malformed; copy it whole: rag_<id>.<secret>")
    return match["key_id"], _digest(key)


def is_meant(credential: str) -> bool:
    """Whether this is an API key, be it a malformed one, and no other credential."""
    return credential.startswith("rag_")


def masked(text: str) -> str:
    """Return the text without the secret of any key in it, whole or cut short."""
    return _SECRET.sub(r"\1…", text)


def matches(presented: bytes, stored: bytes) -> bool:
    """Compare two digests in constant time."""
    return hmac.compare_digest(presented, stored)


def _digest(key: str) -> bytes:
    """One round of SHA-256: slow hashes protect guessable passwords, and 256 random bits are beyond guessing."""
    return hashlib.sha256(key.encode()).digest()


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _checksum(body: str) -> str:
    rest, digits = zlib.crc32(body.encode()), ""
    for _ in range(_CHECKSUM_LENGTH):
        rest, digit = divmod(rest, len(_ALPHABET))
        digits += _ALPHABET[digit]
    return digits
