"""What is remembered of a request: who, when, from where, what for, how it ended, and which documents were shown."""

from __future__ import annotations

import hashlib
import ipaddress
import unicodedata
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rag.types import Hit, KeptQuestions

if TYPE_CHECKING:
    from rag.spending import Settlement

# Who works on tenants without being of one: whoever may invoke the function `tenants`.
ADMINISTRATOR = "administrator"
# Of a value that a client chose, such as a name in the path: as long as an identity may be.
LONGEST = 320


@dataclass(slots=True)
class Trail:
    """What a route adds to the row of its request, while it works; `reads` when all that it does is show.

    `settlement` is of its last call to a model, and is written with the row.
    """

    documents: dict[uuid.UUID, list[int]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    reads: bool = False
    settlement: Settlement | None = None

    def showed(self, hits: Iterable[Hit]) -> None:
        """Remember these passages as shown."""
        self.reads = True
        for hit in hits:
            places = self.documents.setdefault(hit.document_id, [])
            if hit.position not in places:
                places.append(hit.position)

    def named(self, *documents: uuid.UUID) -> None:
        """Remember that these documents were told of, or changed."""
        for document in documents:
            self.documents.setdefault(document, [])

    def told(self, **details: Any) -> None:
        self.details |= details


@dataclass(frozen=True, slots=True)
class Entry:
    """A row that is to be written; the database says when it was."""

    tenant_id: uuid.UUID
    principal: str
    role: str
    action: str
    outcome: int
    request_id: str
    address: str | None
    details: Mapping[str, Any] = field(default_factory=dict)
    documents: Mapping[uuid.UUID, list[int]] = field(default_factory=dict)
    id: uuid.UUID = field(default_factory=uuid.uuid4)


@dataclass(frozen=True, slots=True)
class Shown:
    """A document that a request was about: its version then, and the positions of the passages that were shown."""

    document_id: uuid.UUID
    version_id: str | None
    positions: list[int]


@dataclass(frozen=True, slots=True)
class Record:
    """A row as it was written."""

    id: uuid.UUID
    at: datetime
    principal: str
    role: str
    action: str
    outcome: int
    request_id: str
    address: str | None
    details: dict[str, Any]
    documents: list[Shown]


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which rows to list, the latest first; `before` is time and id of the last one seen."""

    since: datetime | None = None
    until: datetime | None = None
    principal: str | None = None
    action: str | None = None
    document_id: uuid.UUID | None = None
    before: tuple[datetime, uuid.UUID] | None = None
    limit: int = 50


def action(operation: str) -> str:
    """Return what an operation of the API is called here: `delete_document` is `document.delete`."""
    verb, _, noun = operation.partition("_")
    return f"{noun}.{verb}" if noun else verb


def question(text: str, kept: KeptQuestions, tenant_id: uuid.UUID) -> dict[str, str]:
    """Return what is remembered of a question.

    The digest is of the tenant's id and the question in lower case, its white space as single spaces. It tells whether
    one of a list of questions was asked, so whoever can guess a question can find it.
    """
    if kept == "text":
        return {"question": text}
    if kept == "hash":
        folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
        return {"question_sha256": hashlib.sha256(f"{tenant_id}\n{folded}".encode(errors="replace")).hexdigest()}
    return {}


def address(named: object) -> str | None:
    """Return an IP address as PostgreSQL takes it; None for what is none."""
    try:
        return str(ipaddress.ip_address(str(named).partition("%")[0]))
    except ValueError:
        return None


def storable(value: object) -> str:
    """Return what a client chose as the log keeps it: short, and nothing that PostgreSQL has no place for."""
    return str(value).replace("\0", "").encode(errors="replace").decode()[:LONGEST]
