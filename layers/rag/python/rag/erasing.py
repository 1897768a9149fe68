"""What is to be erased goes everywhere: rows first, so that nothing answers from it, then objects, then the cache.

Each step can be repeated, and whoever takes over begins at the first: nothing from before an erasure is indexed again
(`is_erased` in the database), so that no late event undoes a step.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Protocol

from rag import metadata
from rag.deadline import Deadline
from rag.types import ErasureWork, Location, StoredVersion

# Of a page of rows or objects, and the writing down of it.
RESERVE_SECONDS = 20.0


class Bucket(Protocol):
    def versions_of(self, object_key: str) -> list[StoredVersion]: ...
    def versions_under(self, prefix: str) -> Iterator[list[StoredVersion]]: ...
    def erase(self, versions: Sequence[StoredVersion]) -> None: ...


class Cache(Protocol):
    def erase(self, tenant_id: uuid.UUID) -> int: ...


class Store(Protocol):
    def work(self, tenant_id: uuid.UUID, erasure_id: uuid.UUID) -> ErasureWork | None: ...
    def erase_document(self, work: ErasureWork, location: Location, started_at: datetime) -> None: ...
    def collections(self, work: ErasureWork) -> list[int]: ...
    def erase_documents(self, work: ErasureWork, collection: int) -> bool: ...
    def erase_collection(self, work: ErasureWork, collection: int) -> None: ...
    def erase_principal(self, work: ErasureWork) -> bool: ...
    def erase_audit(self, work: ErasureWork) -> bool: ...
    def erase_tenant(self, work: ErasureWork) -> None: ...
    def count(self, work: ErasureWork, removed: Mapping[str, int]) -> None: ...
    def finish(self, work: ErasureWork) -> None: ...


def erase(
    tenant_id: uuid.UUID, erasure_id: uuid.UUID, *, bucket: Bucket, cache: Cache, store: Store, deadline: Deadline
) -> bool:
    """Do what is left of an erasure; False when time ran out before its end, and another run must go on.

    UnavailableError when a dependency fails: nothing that was removed comes back by beginning again.
    """
    work = store.work(tenant_id, erasure_id)
    if work is None:
        return True
    for _ in _steps(work, bucket, store):
        if deadline.remaining() < RESERVE_SECONDS:
            return False
    store.count(work, {"cached_answers": cache.erase(tenant_id)})
    if work.scope == "tenant":
        store.erase_tenant(work)
    store.finish(work)
    return True


def _steps(work: ErasureWork, bucket: Bucket, store: Store) -> Iterator[None]:
    match work.scope:
        case "document":
            return _document(work, bucket, store)
        case "principal":
            return _repeated(store.erase_principal, work)
        case "tenant":
            return chain(_collections(work, bucket, store), _repeated(store.erase_audit, work))
        case _:
            return _collections(work, bucket, store)


def _repeated(erase: Callable[[ErasureWork], bool], work: ErasureWork) -> Iterator[None]:
    while erase(work):
        yield


def _document(work: ErasureWork, bucket: Bucket, store: Store) -> Iterator[None]:
    location = Location(work.tenant_id, str(work.collection), str(work.key))
    store.erase_document(work, location, work.requested_at)
    yield
    for object_key in (location.object_key, metadata.sidecar(location.object_key)):
        found = bucket.versions_of(object_key)
        last_version = work.last_version if object_key == location.object_key else None
        _erase(doomed(found, work.requested_at, last_version), work, bucket, store)
        yield


def _collections(work: ErasureWork, bucket: Bucket, store: Store) -> Iterator[None]:
    collections = store.collections(work)
    for collection in collections:
        while store.erase_documents(work, collection):
            yield
    prefix = f"{work.tenant_id}/" if work.scope == "tenant" else f"{work.tenant_id}/{work.collection}/"
    for page in bucket.versions_under(prefix):
        _erase([version for version in page if version.modified_at <= work.requested_at], work, bucket, store)
        yield
    # While an object is there an event might make the collection again, so it goes after the last one.
    for collection in collections:
        store.erase_collection(work, collection)
        yield


def doomed(versions: Sequence[StoredVersion], requested_at: datetime, last_version: str | None) -> list[StoredVersion]:
    """Of all versions of one key, the newest first, those that were there when the erasure was asked for.

    S3 tells only the second: what came in the same one is told apart by `last_version`, which was the newest then.
    Markers of a second in which a version stays do no harm, and taking one away might bring that version back.
    """
    contents = [version for version in versions if not version.is_marker]
    ids = [version.version_id for version in contents]
    newer = ids.index(last_version) if last_version in ids else 0
    gone = [version for version in contents[newer:] if version.modified_at <= requested_at]
    kept_since = min((version.modified_at for version in contents if version not in gone), default=None)
    markers = [
        version
        for version in versions
        if version.is_marker
        and version.modified_at <= requested_at
        and (kept_since is None or version.modified_at < kept_since)
    ]
    return gone + markers


def _erase(versions: Sequence[StoredVersion], work: ErasureWork, bucket: Bucket, store: Store) -> None:
    bucket.erase(versions)
    store.count(work, {"object_versions": len(versions)})
