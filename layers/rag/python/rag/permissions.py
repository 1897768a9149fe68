"""Who may see a document: what may be said of it, and what holds while that cannot be told."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace

from rag.errors import MetadataError
from rag.types import Description, Principals

# The member of a sidecar, and of what comes with an upload, that says it; no metadata has this name.
MEMBER = "allowed_principals"
# S3's own metadata of a sidecar: the identities of the caller whose form it was uploaded by.
AUTHOR = "rag-author"

MOST_PRINCIPALS = 100
MOST_LETTERS = 320
MOST_AUTHOR_BYTES = 2_000

PRINCIPAL = re.compile(r"(user|group|key):\S(.*\S)?")
# As tokens tell it, in lower case (rag/claims.py); no subject that an issuer makes of one, like `saml|ann@example.com`.
ADDRESS = re.compile(r"user:[^@|\s]+@[^@|\s]+")

NOT_THEIRS = "the sidecar: whoever uploaded it may not see the document"


def check(value: object) -> Principals:
    """Return the identities that are named, each once, addresses in lower case; MetadataError says what is wrong.

    Nobody is no one to name: what nobody may see need not be uploaded.
    """
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_PRINCIPALS:
        msg = f"{MEMBER}: must be a list of 1 to {MOST_PRINCIPALS} users, groups and keys"
        raise MetadataError(msg)
    for name in value:
        if not isinstance(name, str) or not PRINCIPAL.fullmatch(name) or not name.isprintable():
            msg = f"{MEMBER}: {str(name)[:80]!r} is none of user:…, group:… and key:…"
            raise MetadataError(msg)
        if len(name) > MOST_LETTERS:
            msg = f"{MEMBER}: {name[:80]!r}… has more than {MOST_LETTERS} characters"
            raise MetadataError(msg)
    return tuple(dict.fromkeys(name.lower() if ADDRESS.fullmatch(name) else name for name in value))


def may_see(identities: Iterable[str], allowed: Principals | None) -> bool:
    """Whether one of the identities is allowed; None: everyone is."""
    return allowed is None or not set(allowed).isdisjoint(identities)


def as_author(identities: Iterable[str]) -> str:
    """Return the identities as they are signed into the form of a sidecar, in ASCII, as many as there is room for."""
    kept: list[str] = []
    for identity in identities:
        if len(json.dumps([*kept, identity])) <= MOST_AUTHOR_BYTES:
            kept.append(identity)
    return json.dumps(kept)


def author(text: str | None) -> Principals | None:
    """Return what `as_author` wrote; nobody where it is something else, None where there is none."""
    try:
        return None if text is None else tuple(map(str, json.loads(text)))
    except (ValueError, TypeError, RecursionError):
        return ()


def judged(description: Description, current: Principals | None, *, published: bool) -> Description:
    """Return what holds of a description of a document that `current` may see now.

    Who may upload could let himself in by a sidecar. So one whose author may not see the document, by what holds now
    or by the upload, may limit it further and no less. One that does not count, or cannot be read, leaves a document
    as it is. A version that is `published` then is seen by those whom both former permissions and the upload allow; if
    neither limits it, by the author of the sidecar, who can mend it, and by nobody else but admins.
    """
    limits = [limit for limit in (current, description.uploaded) if limit is not None]
    writer = description.author
    if writer is not None and not all(
        may_see(writer, limit) or _within(description.allowed, limit) for limit in limits
    ):
        description = replace(description, error=NOT_THEIRS, unread=True)
    if not description.unread:
        return description
    if not published:
        return replace(description, beside=current, uploaded=None)
    if not limits:
        return replace(description, beside=(writer or ())[:1])
    both = tuple(one for one in limits[0] if one in limits[-1])
    return replace(description, beside=both or limits[-1])


def _within(allowed: Principals | None, limit: Principals) -> bool:
    return allowed is not None and set(allowed) <= set(limit)
