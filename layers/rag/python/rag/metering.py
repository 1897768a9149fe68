"""What the models are asked for one request or one document, counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from rag.deadline import Deadline
from rag.types import Completion, Usage, Vector


class LLM(Protocol):
    embedding_model: str
    dimensions: int
    chat_model: str
    answer_tokens: int

    def require_embedding(self) -> None: ...
    def embed(self, texts: Sequence[str], deadline: Deadline, used: Usage | None = None) -> list[Vector]: ...
    def complete(
        self,
        messages: Sequence[dict[str, str]],
        deadline: Deadline,
        *,
        most_tokens: int | None = None,
        used: Usage | None = None,
    ) -> Completion: ...
    def stream(
        self,
        messages: Sequence[dict[str, str]],
        deadline: Deadline,
        say: Callable[[str], None],
        *,
        most_tokens: int | None = None,
        used: Usage | None = None,
    ) -> Completion: ...


class Metered:
    """The model for one request or one document; `used` is what it has come to so far, whatever became of it."""

    def __init__(self, llm: LLM) -> None:
        self._llm = llm
        self.used = Usage()
        self.embedding_model = llm.embedding_model
        self.dimensions = llm.dimensions
        self.chat_model = llm.chat_model

    def embed(self, texts: Sequence[str], deadline: Deadline) -> list[Vector]:
        return self._llm.embed(texts, deadline, self.used)

    def complete(
        self, messages: Sequence[dict[str, str]], deadline: Deadline, *, most_tokens: int | None = None
    ) -> Completion:
        return self._llm.complete(messages, deadline, most_tokens=most_tokens, used=self.used)

    def stream(
        self,
        messages: Sequence[dict[str, str]],
        deadline: Deadline,
        say: Callable[[str], None],
        *,
        most_tokens: int | None = None,
    ) -> Completion:
        return self._llm.stream(messages, deadline, say, most_tokens=most_tokens, used=self.used)
