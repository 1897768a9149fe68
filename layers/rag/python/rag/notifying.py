"""What became of documents, told at least once: out of the outbox to the bus and to the webhook, if there is one."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from rag.deadline import Deadline
from rag.errors import UnavailableError
from rag.types import JSON, Notification, Waiting

# As many as EventBridge takes in one request.
AT_ONCE = 10
# Nobody else takes up what is being told; a run that is killed has it told again after this.
CLAIM_SECONDS = 60
# Time that a call to the webhook, and saying so to the outbox, may need.
RESERVE_SECONDS = 8.0
# With ten minutes between the later ones: a day.
WEBHOOK_ATTEMPTS = 150


class Outbox(Protocol):
    def waiting(self) -> list[Waiting]: ...
    def claim(self, tenant_id: uuid.UUID, *, most: int, seconds: int) -> list[Notification]: ...
    def settle(self, tenant_id: uuid.UUID, *, told: Collection[uuid.UUID], on_bus: Collection[uuid.UUID]) -> None: ...


class Bus(Protocol):
    def put(self, events: Sequence[JSON]) -> list[bool]: ...


class Webhook(Protocol):
    def post(self, message_id: str, body: bytes) -> None: ...


class Later:
    """In the place of the webhook for who does not wait for it: its messages are left to another run."""

    def post(self, message_id: str, body: bytes) -> None:
        msg = f"{message_id} ({len(body)} bytes) is left to another run"
        raise UnavailableError(msg)


@dataclass(frozen=True, slots=True)
class Told:
    """Notifications that all have taken, that someone has not, and that the webhook is not asked to take any more."""

    told: int = 0
    left: int = 0
    given_up: int = 0
    problems: tuple[str, ...] = ()

    def __add__(self, other: Told) -> Told:
        return Told(
            self.told + other.told,
            self.left + other.left,
            self.given_up + other.given_up,
            self.problems + other.problems,
        )


def tell_all(*, outbox: Outbox, bus: Bus, webhook: Webhook | None, deadline: Deadline) -> Told:
    """Tell what is due, of every tenant in turn; a run that met a problem leaves the rest to the next one."""
    sum_of = Told()
    for waiting in outbox.waiting():
        more = waiting.due
        while more > 0 and not sum_of.problems and deadline.remaining() > RESERVE_SECONDS:
            sum_of += notify(waiting.tenant_id, outbox=outbox, bus=bus, webhook=webhook, deadline=deadline)
            more -= AT_ONCE
    return sum_of


def notify(tenant_id: uuid.UUID, *, outbox: Outbox, bus: Bus, webhook: Webhook | None, deadline: Deadline) -> Told:
    """Tell what is due of one tenant's documents, ten at most; what fails is put off, ever longer."""
    due = outbox.claim(tenant_id, most=AT_ONCE, seconds=CLAIM_SECONDS)
    if not due:
        return Told()
    problems: list[str] = []
    on_bus = {one.id for one in due if one.on_bus} | _on_bus(bus, due, problems)
    taken, given_up = _posted(webhook, due, deadline, problems) if webhook else ({one.id for one in due}, set())
    told = on_bus & (taken | given_up)
    outbox.settle(tenant_id, told=told, on_bus=on_bus - told)
    return Told(len(told - given_up), len(due) - len(told), len(told & given_up), tuple(problems))


def _on_bus(bus: Bus, due: Sequence[Notification], problems: list[str]) -> set[uuid.UUID]:
    new = [one for one in due if not one.on_bus]
    if not new:
        return set()
    try:
        taken = bus.put([event(one) for one in new])
    except UnavailableError as error:
        problems.append(str(error))
        return set()
    if not all(taken):
        problems.append("the bus refused some of the events")
    return {one.id for one, is_taken in zip(new, taken, strict=True) if is_taken}


def _posted(
    webhook: Webhook, due: Sequence[Notification], deadline: Deadline, problems: list[str]
) -> tuple[set[uuid.UUID], set[uuid.UUID]]:
    """Which the webhook has taken, and which it was asked to take often enough."""
    taken: set[uuid.UUID] = set()
    for one in due:
        if deadline.remaining() < RESERVE_SECONDS:
            problems.append("time is short")
            break
        try:
            webhook.post(str(one.id), json.dumps(message(one)).encode())
        except UnavailableError as error:
            # Who does not take one would only be waited for again with the next.
            problems.append(str(error))
            break
        taken.add(one.id)
    return taken, {one.id for one in due if one.attempts >= WEBHOOK_ATTEMPTS} - taken


def event(one: Notification) -> JSON:
    """The event as EventBridge is given it."""
    return {"detail_type": f"Document {one.status}", "detail": _detail(one), "time": one.settled_at}


def message(one: Notification) -> JSON:
    """The body of the webhook's request, in the shape that Standard Webhooks advises."""
    return {"type": f"document.{one.status}", "timestamp": one.settled_at.isoformat(), "data": _detail(one)}


def _detail(one: Notification) -> JSON:
    return {
        "notification_id": str(one.id),
        "tenant_id": str(one.tenant_id),
        "collection": one.collection,
        "document_id": str(one.document_id),
        "key": one.key,
        "version_id": one.version_id,
        "status": one.status,
        "error": {"code": one.error_code, "message": one.error_message or ""} if one.error_code else None,
        "chunk_count": one.chunk_count,
        "uploaded_at": one.uploaded_at.isoformat(),
        "settled_at": one.settled_at.isoformat(),
    }
