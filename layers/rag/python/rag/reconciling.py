"""The bucket decides what there is: what the index holds is compared with it, and what differs is ingested again."""

from __future__ import annotations

import heapq
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Protocol

from rag import metadata, records
from rag.deadline import Deadline
from rag.types import Direction, Indexed, Listed, Pass, Unsettled

# What a run leaves for its end: a page of both sides, and to say how far it came.
RESERVE_SECONDS = 20.0
# How often it says how far it came: what a killed run compared since then is compared again.
KEYS_PER_SAVE = 1000
# Documents that one sweep settles, the oldest first.
SWEPT_AT_ONCE = 1000

NOTHING: tuple[str, None] = ("", None)


class Bucket(Protocol):
    name: str

    def listed(self, prefix: str, *, after: str = "") -> Iterator[Listed]: ...


class Queue(Protocol):
    def send_object(self, bucket: str, object_key: str) -> None: ...


class Store(Protocol):
    def claim(self, bucket: str, *, seconds: float, rest_seconds: float) -> Pass | None: ...
    def save(self, bucket: str, done: Pass, *, going_on: bool, complete: bool = False) -> datetime: ...
    def tenants(self) -> list[uuid.UUID]: ...
    def documents(self, tenant_id: uuid.UUID, *, after: str) -> Iterator[Indexed]: ...
    def unsettled(
        self, *, quiet_seconds: float, longest_seconds: float, but: uuid.UUID, most: int, at: datetime | None
    ) -> list[Unsettled]: ...
    def requeue(self, document: Unsettled, send: Callable[[], None], *, at: datetime | None) -> bool: ...
    def end(self, document: Unsettled, reason: str, *, at: datetime | None) -> bool: ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much one run compares; how old a change must be to be looked at; how long to rest between two passes."""

    keys: int
    settled_seconds: float
    rest_seconds: float


@dataclass(frozen=True, slots=True)
class Compared:
    """What one run did: `found` is its own, `whole` the pass that it is part of, and ended when it is `complete`."""

    found: Pass
    whole: Pass
    complete: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Swept:
    """Documents that were asked for again, and those that were given up on."""

    requeued: int
    stuck: int


def reconcile(
    *, bucket: Bucket, store: Store, queue: Queue, bounds: Bounds, deadline: Deadline, but: uuid.UUID
) -> Compared | None:
    """Compare a part of the bucket with the index, going on where the run before ended; None when it is not our turn.

    What differs is named to ingest, which looks for itself: a difference that goes away meanwhile does no harm. The
    tenant `but` is left out. UnavailableError when bucket, database or queue fail: the next run goes on from there.
    """
    begun = store.claim(bucket.name, seconds=deadline.remaining() + RESERVE_SECONDS, rest_seconds=bounds.rest_seconds)
    if begun is None:
        return None
    done, complete = begun, False
    before = datetime.now(UTC) - timedelta(seconds=bounds.settled_seconds)
    try:
        for key, listed, indexed in _pairs(begun.after_key, bucket=bucket, store=store, but=but):
            look = difference if metadata.described(key) is None else misdescription
            direction = look(listed, indexed, before=before)
            if direction:
                queue.send_object(bucket.name, key)
            done = done.past(key, direction)
            count = done.compared - begun.compared
            if count % KEYS_PER_SAVE == 0:
                store.save(bucket.name, done, going_on=True)
            if count >= bounds.keys or deadline.remaining() < RESERVE_SECONDS:
                break
        else:
            complete = True
    finally:
        now = store.save(bucket.name, done, going_on=False, complete=complete)
    return Compared(done.since(begun), done, complete, (now - done.began_at).total_seconds())


def difference(listed: Listed | None, indexed: Indexed | None, *, before: datetime) -> Direction | None:
    """What is wrong with a key that nobody has touched since `before`; None for one that is right, or under way."""
    if _under_way(listed, indexed, before):
        return None
    there = listed.version_id if listed else None
    if there is None:
        return "orphaned" if indexed else None
    if indexed is None:
        return "missing"
    return None if indexed.version_id == there else "outdated"


def misdescription(listed: Listed | None, indexed: Indexed | None, *, before: datetime) -> Direction | None:
    """Whether a document is described by another sidecar than there is now, or by one that is gone; else as above.

    Whoever ends the ingest of a document reads the sidecar then.
    """
    if indexed is None or indexed.status not in {"ready", "failed"} or _under_way(listed, indexed, before):
        return None
    return None if indexed.sidecar == (listed.version_id if listed else None) else "misdescribed"


def _under_way(listed: Listed | None, indexed: Indexed | None, before: datetime) -> bool:
    return bool((listed and listed.at > before) or (indexed and (indexed.updated_at > before or indexed.leased)))


def sweep(
    *,
    bucket_name: str,
    store: Store,
    queue: Queue,
    visibility_seconds: float,
    max_receives: int,
    but: uuid.UUID,
    at: datetime | None = None,
) -> Swept:
    """Ask once more for documents whose message is lost, and end those for which that was in vain: failed(STUCK).

    A message comes again after its visibility time-out, `max_receives` times. `at` is the time, by default the
    database's. The tenant `but` is left out.
    """
    longest = visibility_seconds * max_receives
    requeued = stuck = 0
    waiting = store.unsettled(
        quiet_seconds=visibility_seconds, longest_seconds=longest, but=but, most=SWEPT_AT_ONCE, at=at
    )
    for document in waiting:
        send = partial(queue.send_object, bucket_name, document.location.object_key)
        if document.stuck:
            reason = (
                f"nobody brought it in {longest:,.0f} seconds, though it was asked for again; it can be tried again"
            )
            stuck += store.end(document, reason, at=at)
        else:
            requeued += store.requeue(document, send, at=at)
    return Swept(requeued, stuck)


def _pairs(
    after: str, *, bucket: Bucket, store: Store, but: uuid.UUID
) -> Iterator[tuple[str, Listed | None, Indexed | None]]:
    """Each key of a document or a sidecar with what the bucket and the index hold, of one tenant after the other.

    With a sidecar's key stands the document that it describes.
    """
    for tenant_id in store.tenants():
        prefix = f"{tenant_id}/"
        if tenant_id == but or (prefix < after and not after.startswith(prefix)):
            continue
        here = after if after.startswith(prefix) else ""
        listed = (one for one in bucket.listed(prefix, after=here) if records.document(one.object_key))
        held = (pair for pair in _with_sidecars(store.documents(tenant_id, after=here)) if pair[0] > here)
        yield from _joined(listed, held)


def _with_sidecars(documents: Iterable[Indexed]) -> Iterator[tuple[str, Indexed]]:
    """Each document under its own key and under its sidecar's, in the order of both.

    Between the two stand only keys that begin with the document's: no more than a key has letters wait at once.
    """
    waiting: list[tuple[str, Indexed]] = []
    for document in documents:
        while waiting and waiting[0][0] < document.object_key:
            yield heapq.heappop(waiting)
        yield document.object_key, document
        heapq.heappush(waiting, (metadata.sidecar(document.object_key), document))
    while waiting:
        yield heapq.heappop(waiting)


def _joined(
    bucket: Iterator[Listed], index: Iterator[tuple[str, Indexed]]
) -> Iterator[tuple[str, Listed | None, Indexed | None]]:
    """Merge two sequences that are in the same order, without what is in neither.

    That is what was deleted and is not held, and a sidecar that never was, or is of no document.
    """
    listed, (held, indexed) = next(bucket, None), next(index, NOTHING)
    while listed or indexed:
        key = min(one for one in (listed and listed.object_key, held) if one)
        left = listed if listed and listed.object_key == key else None
        right = indexed if held == key else None
        version_id = left and left.version_id
        if (version_id or right) if metadata.described(key) is None else (right and (version_id or right.sidecar)):
            yield key, left, right
        if left:
            listed = next(bucket, None)
        if right:
            held, indexed = next(index, NOTHING)
