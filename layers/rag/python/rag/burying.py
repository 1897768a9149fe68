"""A document whose message is among the dead letters has failed, whoever was not able to say so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from rag import records
from rag.deadline import Deadline
from rag.errors import NotFoundError
from rag.types import Collection, Letter, Location, ObjectVersion

REASON = "given up: its message is among the dead letters"


class Bucket(Protocol):
    def head(self, object_key: str, *, hurried: bool = False) -> ObjectVersion | None: ...


class Store(Protocol):
    def collection(self, location: Location, *, create: bool) -> Collection | None: ...
    def bury(
        self, location: Location, collection: Collection, version: ObjectVersion, *, message_id: str, reason: str
    ) -> bool: ...


def bury(
    letters: Iterable[Letter], *, bucket_name: str, bucket: Bucket, store: Store, deadline: Deadline
) -> list[Location]:
    """Return the documents that count as failed from now on; the letters stay where they are.

    What happens to the sandbox at the last delivery, before the handler began with a document, only this can tell.
    """
    buried: list[Location] = []
    for letter in letters:
        if deadline.remaining() <= 0:
            break
        named = _documents(letter, bucket_name)
        buried += [location for location in named if _bury(location, letter, bucket=bucket, store=store)]
    return buried


def _documents(letter: Letter, bucket_name: str) -> list[Location]:
    try:
        return [found.location for found in records.named(letter.body, bucket_name) if not found.sidecar]
    except ValueError:  # it is there because it names none
        return []


def _bury(location: Location, letter: Letter, *, bucket: Bucket, store: Store) -> bool:
    version = bucket.head(location.object_key, hurried=True)
    if version is None:
        return False
    try:
        collection = store.collection(location, create=True)
    except NotFoundError:
        return False
    return collection is not None and store.bury(location, collection, version, message_id=letter.id, reason=REASON)
