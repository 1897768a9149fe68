"""What a deployment consists of and how it is wired: `rag up` reads it from the functions' table.

The tests of the templates read another one from what is deployed to AWS, run it, and compare the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from functions.table import ERASE, FUNCTIONS, INGEST, INGEST_BATCH_SIZE, MAINTAIN, PUBLIC, QUERY, FunctionRow
from local import environment
from local.environment import Addresses, Model

ANY = "ANY"
DAY_SECONDS = 24 * 3600
# What API Gateway waits for an integration that says nothing of it.
INTEGRATION_SECONDS = 29.0
# As the integration of a route that streams is deployed; AWS allows 15 minutes.
STREAMING_SECONDS = 121.0
_STREAMED = {route: row.name for row in FUNCTIONS for route in row.streams}

SettingsOf = Callable[[FunctionRow, Addresses, Model], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Queue:
    """One with `dead_letters`, the name of another, gives it what was received `max_receives` times in vain."""

    name: str
    retention_seconds: int
    visibility_seconds: int = 30
    dead_letters: str | None = None
    max_receives: int | None = None


@dataclass(frozen=True, slots=True)
class Announcement:
    """Events of one kind, of keys with this prefix and suffix, go to the queue of this name."""

    queue: str
    event: str
    prefix: str = ""
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Bucket:
    name: str
    announcements: tuple[Announcement, ...]
    versioned: bool = True


@dataclass(frozen=True, slots=True)
class Source:
    """An event source mapping between a queue and a function, both by name; `concurrency` is its own limit."""

    function: str
    queue: str
    batch_size: int
    concurrency: int
    window_seconds: float = 0
    reports_failures: bool = True


@dataclass(frozen=True, slots=True)
class Route:
    """`path` as API Gateway writes a resource's: `/v1/documents/{id}`, `/{proxy+}`; `method` is ANY or one."""

    method: str
    path: str
    function: str
    authorized: bool = True
    streams: bool = False
    timeout_seconds: float = INTEGRATION_SECONDS

    def parameters(self, method: str, path: str) -> dict[str, str] | None:
        """What stands in the place of each variable; None for a request that is not this route's."""
        found = re.fullmatch(self._pattern, path, re.DOTALL)
        return found.groupdict() if found and self.method in (ANY, method) else None

    @property
    def weight(self) -> tuple[int, int]:
        """Sorts what API Gateway prefers first: whole words, then variables, then `{proxy+}`."""
        return (self.path.count("+}"), self.path.count("{"))

    @property
    def _pattern(self) -> str:
        parts = re.split(r"\{(\w+\+?)\}", self.path)
        return "".join(_variable(part) if number % 2 else re.escape(part) for number, part in enumerate(parts))


def _variable(name: str) -> str:
    return f"(?P<{name[:-1]}>.*)" if name.endswith("+") else f"(?P<{name}>[^/]+)"


@dataclass(frozen=True)
class Plan:
    """Everything that is deployed; `settings_of` gives a function's variables, `concurrency` its sandboxes at most."""

    functions: tuple[FunctionRow, ...]
    concurrency: Mapping[str, int]
    settings_of: SettingsOf
    bucket: Bucket
    queues: tuple[Queue, ...]
    sources: tuple[Source, ...]
    routes: tuple[Route, ...]
    verdict_seconds: float

    def queue_of(self, row: FunctionRow) -> Queue:
        """The queue that this function works off."""
        [name] = [source.queue for source in self.sources if source.function == row.name]
        [queue] = [queue for queue in self.queues if queue.name == name]
        return queue


def of_the_table() -> Plan:
    """What a laptop has."""
    return Plan(
        functions=FUNCTIONS,
        concurrency={row.name: number for row, number in environment.CONCURRENCY.items()},
        settings_of=environment.settings_of,
        bucket=Bucket(
            environment.BUCKET,
            tuple(Announcement(environment.QUEUE, event) for event in ("s3:ObjectCreated:*", "s3:ObjectRemoved:*")),
        ),
        queues=(
            *_queues(INGEST, environment.QUEUE, kept_seconds=14 * DAY_SECONDS),
            # Nothing of it is worth keeping: maintenance comes by on a schedule too.
            *_queues(MAINTAIN, environment.MAINTENANCE_QUEUE, kept_seconds=3600),
            *_queues(ERASE, environment.ERASURE_QUEUE, kept_seconds=14 * DAY_SECONDS),
        ),
        sources=tuple(
            Source(row.name, queue, INGEST_BATCH_SIZE, environment.CONCURRENCY[row])
            for row, queue in (
                (INGEST, environment.QUEUE),
                (MAINTAIN, environment.MAINTENANCE_QUEUE),
                (ERASE, environment.ERASURE_QUEUE),
            )
        ),
        routes=(
            *(_streamed(route, function) for route, function in _STREAMED.items()),
            *(Route(ANY, path, QUERY.name, authorized=False) for path in sorted(PUBLIC)),
            # What there is and what not, and by which methods, the function says itself.
            Route(ANY, "/{proxy+}", QUERY.name),
        ),
        verdict_seconds=environment.VERDICT_SECONDS,
    )


def _queues(consumer: FunctionRow, name: str, *, kept_seconds: int) -> tuple[Queue, Queue]:
    dead_letters = f"{name}-dead-letters"
    return (
        Queue(dead_letters, 14 * DAY_SECONDS),
        Queue(name, kept_seconds, environment.hidden_seconds(consumer), dead_letters, environment.MAX_RECEIVES),
    )


def _streamed(route: str, function: str) -> Route:
    method, _, path = route.partition(" ")
    return Route(method, path, function, streams=True, timeout_seconds=STREAMING_SECONDS)
