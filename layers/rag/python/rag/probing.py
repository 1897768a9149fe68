"""Proof of the whole chain: a small document is uploaded, becomes ready, is deleted, and goes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from rag.types import Indexed, Listed, Location

# Nobody's: its documents are this one. The database lets the function make no other tenant (sql/migrations).
TENANT = uuid.UUID("0caa4a00-0000-4000-8000-000000000000")
TENANT_NAME = "canary (reserved)"
PLACE = Location(TENANT, "canary", "canary.txt")


class Bucket(Protocol):
    def listed(self, prefix: str, *, after: str = "") -> Iterator[Listed]: ...
    def put(self, object_key: str, body: bytes) -> None: ...
    def mark_deleted(self, object_key: str) -> None: ...


class Store(Protocol):
    def create_tenant(self, tenant_id: uuid.UUID, name: str) -> None: ...
    def document(self, location: Location) -> Indexed | None: ...


@dataclass(frozen=True, slots=True)
class Probe:
    """What one look at the canary came to; `seconds` from its upload until it was ready."""

    result: Literal["sent", "waiting", "arrived", "failed"]
    seconds: float | None = None
    reason: str | None = None


def probe(*, bucket: Bucket, store: Store, patience_seconds: float, at: datetime) -> Probe:
    """Look what has become of the canary, and take the next step: upload, see it ready, delete, see it gone.

    Each upload costs one embedding. One that is not ready, or not gone, after so many seconds has failed, and the
    next one begins. UnavailableError when bucket or database fail.
    """
    listed = next((one for one in bucket.listed(PLACE.object_key) if one.object_key == PLACE.object_key), None)
    indexed = store.document(PLACE)
    if listed is None or listed.version_id is None:
        return _gone(listed, indexed, bucket=bucket, store=store, patience_seconds=patience_seconds, at=at)
    waited = (at - listed.at).total_seconds()
    if indexed and (indexed.version_id, indexed.status) == (listed.version_id, "ready"):
        bucket.mark_deleted(PLACE.object_key)
        return Probe("arrived", max((indexed.updated_at - listed.at).total_seconds(), 0.0))
    if waited < patience_seconds:
        return Probe("waiting")
    bucket.mark_deleted(PLACE.object_key)
    state = indexed.status if indexed else "unknown to the index"
    return Probe("failed", reason=f"{waited:.0f} seconds after its upload the canary is {state}")


def _gone(
    listed: Listed | None,
    indexed: Indexed | None,
    *,
    bucket: Bucket,
    store: Store,
    patience_seconds: float,
    at: datetime,
) -> Probe:
    since = listed.at if listed else indexed.updated_at if indexed else at
    waited = (at - since).total_seconds()
    if indexed and waited < patience_seconds:
        return Probe("waiting")
    store.create_tenant(TENANT, TENANT_NAME)
    bucket.put(PLACE.object_key, f"This canary was uploaded at {at.isoformat()}.\n".encode())
    if indexed:
        return Probe("failed", reason=f"{waited:.0f} seconds after its deletion the canary is still in the index")
    return Probe("sent")
