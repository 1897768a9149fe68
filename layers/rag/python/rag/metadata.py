"""What users say of a document, its metadata and who may see it: in a sidecar, or with the upload."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from rag import permissions
from rag.errors import MetadataError
from rag.types import Beside, Description, Metadata, Principals, Scalar

# `<key>.metadata.json` beside a document describes it, and is no document itself.
SIDECAR = ".metadata.json"
# S3's own metadata, of which 2 kB may stand with a version: its name there, less the `x-amz-meta-` before it.
FIELD = "rag-metadata"

MOST_BYTES = 16_384
MOST_FIELD_BYTES = 2_000
MOST_NAMES = 50
MOST_LETTERS = 1_000
MOST_ITEMS = 100
# Beyond this a double, which is what a JSON number is to most readers, is no longer exact.
MOST_WHOLE = 2**53

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


def sidecar(key: str) -> str:
    """The key of the sidecar that describes a document."""
    return key + SIDECAR


def described(key: str) -> str | None:
    """The key of the document that a sidecar describes; None for what is no sidecar."""
    return key.removesuffix(SIDECAR) if key.endswith(SIDECAR) else None


class Said(NamedTuple):
    """What a sidecar or an upload says of a document; None where it says nothing.

    An `error` is why metadata cannot be used; `unread`, that it hides who may see the document, too.
    """

    metadata: Metadata | None = None
    allowed: Principals | None = None
    error: str | None = None
    unread: bool = False


def said(text: str | bytes) -> Said:
    """Read metadata, and who may see the document, from JSON.

    Each for itself: metadata that cannot be used makes no secret of who may see it.
    """
    allowed = None
    unread = True
    try:
        value = _object(text)
        if permissions.MEMBER in value:
            allowed = permissions.check(value.pop(permissions.MEMBER))
        unread = False
        # What says only who may see the document leaves its metadata to the upload.
        return Said(check(value) if value or allowed is None else None, allowed)
    except MetadataError as error:
        return Said(None, allowed, str(error), unread)


def describe(uploaded: str | None, beside: Beside | None) -> Description:
    """What holds of a document whose upload and sidecar say this: of each thing what the sidecar says, if anything."""
    came = said(uploaded or "{}")
    if beside is None:
        error = f"the upload: {came.error}" if came.error else None
        return Description(came.metadata or {}, error, uploaded=came.allowed, unread=came.unread)
    stands = said(beside.content)
    author = permissions.author(beside.author)
    unread = stands.unread or (came.unread and (stands.allowed is None or author is not None))
    error = f"the sidecar: {stands.error}" if stands.error else None
    if error is None and came.error and (unread or stands.metadata is None):
        error = f"the upload: {came.error}"
    found = came.metadata if stands.metadata is None else stands.metadata
    return Description(found or {}, error, stands.allowed, came.allowed, author, unread, beside.version_id)


def check(value: object) -> Metadata:
    """Return what is metadata: at most 50 names, each with a string, a number, a boolean or a list of strings.

    MetadataError names what is not.
    """
    if not isinstance(value, dict):
        _refuse("must be a JSON object")
    if permissions.MEMBER in value:
        _refuse(f"{permissions.MEMBER} is no metadata: it says who may see the document, and stands beside `metadata`")
    if len(value) > MOST_NAMES:
        _refuse(f"has more than {MOST_NAMES} names")
    for name, content in value.items():
        if not NAME.fullmatch(name):
            _refuse(f"{name[:80]!r} is no name: a letter or _, then at most 63 letters, digits, _, . and -")
        _check_content(name, content)
    if len(json.dumps(value, ensure_ascii=False).encode()) > MOST_BYTES:
        _refuse(f"has more than {MOST_BYTES:,} bytes")
    return value


def as_field(metadata: Metadata, allowed: Principals | None = None) -> str:
    """Metadata, and who may see the document, as they travel with an upload, in ASCII; MetadataError when too much."""
    limits = {} if allowed is None else {permissions.MEMBER: allowed}
    text = json.dumps({**metadata, **limits}, separators=(",", ":"))
    if len(text) > MOST_FIELD_BYTES:
        _refuse(
            f"has {len(text):,} bytes as ASCII JSON and an upload carries {MOST_FIELD_BYTES:,}: "
            f"put it beside the document as <key>{SIDECAR}, which may have {MOST_BYTES:,}"
        )
    return text


def check_scalar(value: object) -> Scalar:
    """Return a string, number or boolean that can be stored and compared; MetadataError says why it is none."""
    if isinstance(value, str):
        return check_string(value)
    if not isinstance(value, (bool, int, float)):
        _refuse("must be a string, a number or a boolean")
    if not (math.isfinite(value) if isinstance(value, float) else abs(value) <= MOST_WHOLE):
        _refuse(f"must be a finite number, whole ones from -2^53 to 2^53: {str(value)[:40]}")
    return value


def check_string(value: object) -> str:
    if not isinstance(value, str):
        _refuse("must be a string")
    if len(value) > MOST_LETTERS:
        _refuse(f"has more than {MOST_LETTERS:,} characters")
    if any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in value):
        # Neither PostgreSQL nor UTF-8 has a place for these.
        _refuse("must not contain NUL characters or lone surrogates")
    return value


def _check_content(name: str, content: object) -> None:
    try:
        if not isinstance(content, list):
            check_scalar(content)
            return
        if len(content) > MOST_ITEMS:
            _refuse(f"has more than {MOST_ITEMS} items")
        for item in content:
            check_string(item)
    except MetadataError as error:
        expected = "a string, a number, a boolean or a list of strings"
        msg = f"{name}: must be {expected}" if content is None or isinstance(content, dict) else f"{name}: {error}"
        raise MetadataError(msg) from error


def _object(text: str | bytes) -> dict[str, Any]:
    if len(text) > MOST_BYTES:
        _refuse(f"has more than {MOST_BYTES:,} bytes")
    try:
        value = json.loads(text, object_pairs_hook=_members)
    except MetadataError:
        raise
    except (ValueError, RecursionError) as error:
        msg = "is not JSON in UTF-8"
        raise MetadataError(msg) from error
    if not isinstance(value, dict):
        _refuse("must be a JSON object")
    return value


def _members(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        _refuse("has a name twice")
    return members


def _refuse(reason: str) -> NoReturn:
    raise MetadataError(reason)
