"""The model server, by OpenAI's protocol: OpenAI, vLLM, Ollama, TEI and Bedrock's compatible endpoint alike."""

from __future__ import annotations

import base64
import binascii
import math
import random
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any, TypeVar

from rag.deadline import Deadline
from rag.errors import DeadlineError, ModelError, UnavailableError
from rag.types import Completion, Vector

if TYPE_CHECKING:
    from openai import OpenAI

ATTEMPTS = 3
BACKOFF_SECONDS = 0.25
# Of the kernel: sandboxes that are restored from one snapshot would share the state of any other.
_JITTER = random.SystemRandom()

T = TypeVar("T")


class LLM:
    """Embeds texts and completes chats; every call ends before its deadline, whatever the server does."""

    def __init__(
        self,
        url: str,
        api_key: Callable[[], str],
        *,
        embedding_model: str,
        dimensions: int,
        chat_model: str,
        answer_tokens: int,
    ) -> None:
        self._url = url
        self._api_key = api_key
        self.embedding_model = embedding_model
        self.dimensions = dimensions
        self.chat_model = chat_model
        self._answer_tokens = answer_tokens
        self._opened: OpenAI | None = None
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="llm")

    def embed(self, texts: Sequence[str], deadline: Deadline) -> list[Vector]:
        """Return one vector of length 1 per text, in their order; ModelError when the server sent anything else."""

        def call(timeout_seconds: float) -> list[Vector]:
            response = self._client.embeddings.create(
                model=self.embedding_model,
                input=list(texts),
                encoding_format="base64",
                timeout=timeout_seconds,
                **self._width(),
            )
            return vectors(response, count=len(texts), dimensions=self.dimensions)

        return self._bounded(call, deadline)

    def complete(
        self, messages: Sequence[dict[str, str]], deadline: Deadline, *, most_tokens: int | None = None
    ) -> Completion:
        """Return what the chat model says, in `most_tokens` or fewer; ModelError when it says nothing."""

        def call(timeout_seconds: float) -> Completion:
            response = self._client.chat.completions.create(
                model=self.chat_model,
                messages=list(messages),  # type: ignore[arg-type]  # the SDK wants one class per role
                max_tokens=min(most_tokens or self._answer_tokens, self._answer_tokens),
                temperature=0,
                timeout=timeout_seconds,
            )
            return completion(response)

        return self._bounded(call, deadline)

    def alive(self) -> bool:
        """Whether the model server answers within two seconds."""
        try:
            return bool(self._bounded(lambda seconds: self._client.models.list(timeout=seconds), Deadline.after(2)))
        except UnavailableError:
            return False

    def _width(self) -> dict[str, Any]:
        """Only OpenAI's third generation can be asked for a width; others refuse the parameter."""
        return {"dimensions": self.dimensions} if self.embedding_model.startswith("text-embedding-3") else {}

    @property
    def _client(self) -> OpenAI:
        if self._opened is None:
            import openai  # noqa: PLC0415 (0.4 to 0.8 s that a cached answer does not need)

            self._opened = openai.OpenAI(base_url=self._url, api_key=self._api_key() or "none", max_retries=0)
        return self._opened

    def _bounded(self, call: Callable[[float], T], deadline: Deadline) -> T:
        """Up to three tries with full jitter while they fit; the SDK's own time-out only bounds a single read."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._before(deadline, self._threads.submit(call, deadline.within(120)))
            except Exception as error:
                retry_after = _retry_after(error)
                pause = _JITTER.uniform(0, BACKOFF_SECONDS * 2**attempt) if retry_after is None else retry_after
                if attempt == ATTEMPTS or not _worth_a_retry(error) or pause >= deadline.remaining():
                    raise _typed(error) from error
                time.sleep(pause)
        raise AssertionError

    def _before(self, deadline: Deadline, future: Future[T]) -> T:
        try:
            return future.result(timeout=max(deadline.remaining(), 0))
        except FutureTimeoutError:
            if self._opened is not None:
                self._opened.close()
                self._opened = None
            msg = "the model did not answer in time"
            raise DeadlineError(msg) from None


def preload() -> None:
    """Import the SDK ahead of the first call, and what it imports by itself on first use: 0.6 s of CPU."""
    import openai  # noqa: PLC0415

    with openai.OpenAI(api_key="none") as client:
        _ = client.embeddings, client.chat.completions


def vectors(response: object, *, count: int, dimensions: int) -> list[Vector]:
    """Check what came back: `count` vectors, put in order of their index, of the width asked for, finite, not zero."""
    try:
        items = sorted(response.data, key=lambda item: item.index)  # type: ignore[attr-defined]
        if [item.index for item in items] != list(range(count)):
            msg = f"the model sent {len(items)} vectors for {count} texts"
            raise ModelError(msg)
        return [_vector(item.embedding, dimensions) for item in items]
    except (AttributeError, TypeError, ValueError, binascii.Error) as error:
        msg = "the model's answer is not a list of embeddings"
        raise ModelError(msg) from error


def completion(response: object) -> Completion:
    """Check what came back: a message with text in it."""
    try:
        text = response.choices[0].message.content  # type: ignore[attr-defined]
        usage = getattr(response, "usage", None)
        said = Completion(
            # What neither JSON in UTF-8 nor PostgreSQL has a place for.
            text=text.replace("\0", "").encode(errors="replace").decode().strip(),
            model=str(response.model),  # type: ignore[attr-defined]
            prompt_tokens=getattr(usage, "prompt_tokens", 0) or 0,
            completion_tokens=getattr(usage, "completion_tokens", 0) or 0,
        )
    except (AttributeError, IndexError, TypeError) as error:
        msg = "the model's answer is not a chat completion"
        raise ModelError(msg) from error
    if not said.text:
        msg = "the model said nothing"
        raise ModelError(msg)
    return said


def _vector(embedding: str | list[float], dimensions: int) -> Vector:
    vector = array("f")
    if isinstance(embedding, str):
        vector.frombytes(base64.b64decode(embedding, validate=True))
        if sys.byteorder == "big":
            vector.byteswap()
    else:
        vector.extend(embedding)
    if len(vector) != dimensions:
        msg = f"the model's vectors have {len(vector)} dimensions, not {dimensions}"
        raise ModelError(msg)
    length = math.sqrt(math.fsum(value * value for value in vector))
    if not math.isfinite(length) or length == 0:
        msg = "the model sent a vector that is zero or not finite"
        raise ModelError(msg)
    if abs(length - 1) < 1e-3:
        return vector
    # Only its direction counts, and at length 1 none of it is lost in half precision.
    return array("f", (value / length for value in vector))


def _retry_after(error: Exception) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        seconds = float(headers["retry-after"])
    except (KeyError, ValueError):
        return None
    return seconds if 0 <= seconds < math.inf else None


def _worth_a_retry(error: Exception) -> bool:
    if isinstance(error, DeadlineError):
        return False
    status = getattr(error, "status_code", None)
    return isinstance(error, ModelError) or status is None or status in {408, 409, 429} or status >= 500


def _typed(error: Exception) -> UnavailableError:
    if isinstance(error, UnavailableError):
        return error
    status = getattr(error, "status_code", None)
    reason = f"status {status}" if status else type(error).__name__
    return UnavailableError(f"the model is not available: {reason}", retry_after_seconds=_retry_after(error) or 5)
