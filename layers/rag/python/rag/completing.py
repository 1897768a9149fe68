"""One question to the chat model: from the cache if it was put before, and once for all who put it now."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Protocol

from rag.deadline import Deadline
from rag.types import JSON, Completion

# Gets what a model says, piece by piece, and an empty piece now and then while it is silent; what it raises ends that.
Say = Callable[[str], None]


class Chat(Protocol):
    chat_model: str

    def complete(
        self, messages: Sequence[dict[str, str]], deadline: Deadline, *, most_tokens: int | None = None
    ) -> Completion: ...
    def stream(
        self, messages: Sequence[dict[str, str]], deadline: Deadline, say: Say, *, most_tokens: int | None = None
    ) -> Completion: ...


class Cache(Protocol):
    def answer_key(self, tenant_id: uuid.UUID, *parts: object) -> str: ...
    def get(self, key: str) -> JSON | None: ...
    def set(self, key: str, value: JSON) -> None: ...
    def flight(self, key: str, *, wait_seconds: float) -> AbstractContextManager[JSON | None]: ...


def complete(
    messages: Sequence[dict[str, str]],
    *,
    key: str,
    llm: Chat,
    cache: Cache,
    deadline: Deadline,
    most_tokens: int | None = None,
    say: Say | None = None,
) -> tuple[Completion, bool]:
    """Return what the model says, and whether it had said so before; `key` must tell everything that it is shown.

    With `say` it is heard while it comes: in one piece where it had been said before. Only what was said to its end is
    kept. UnavailableError when it does not answer before the deadline.
    """
    said = _stored(cache.get(key))
    if said is not None:
        return _repeated(said, say), True
    with cache.flight(key, wait_seconds=deadline.within(25) / 2) as landed:
        said = _stored(landed)
        if said is not None:
            return _repeated(said, say), True
        completion = (
            llm.complete(messages, deadline, most_tokens=most_tokens)
            if say is None
            else llm.stream(messages, deadline, say, most_tokens=most_tokens)
        )
        cache.set(key, asdict(completion))
        return completion, False


def _repeated(said: Completion, say: Say | None) -> Completion:
    if say is not None:
        say(said.text)
    return said


def _stored(stored: JSON | None) -> Completion | None:
    """The cache is not trusted: what does not read as a completion is a miss."""
    match stored:
        case {"text": str(text), "model": str(model), "prompt_tokens": int(asked), "completion_tokens": int(said)}:
            return Completion(text, model, asked, said)
        case _:
            return None
