"""The model server, by OpenAI's protocol: OpenAI, vLLM, Ollama, TEI and Bedrock's compatible endpoint alike."""

from __future__ import annotations

import math
import random
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from rag import checking
from rag.connections import Connections
from rag.deadline import Deadline
from rag.errors import DeadlineError, ModelError, UnavailableError
from rag.types import Completion, Vector

if TYPE_CHECKING:
    from openai import OpenAI

ATTEMPTS = 3
BACKOFF_SECONDS = 0.25
# Of the kernel: sandboxes that are restored from one snapshot would share the state of any other.
_JITTER = random.SystemRandom()
# How often whoever hears a silent model may say that nobody listens any more.
SILENCE_SECONDS = 0.25

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
        self._connections = Connections()
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
            return checking.vectors(response, count=len(texts), dimensions=self.dimensions)

        return self._bounded(call, deadline)

    def complete(
        self, messages: Sequence[dict[str, str]], deadline: Deadline, *, most_tokens: int | None = None
    ) -> Completion:
        """Return what the chat model says, in `most_tokens` or fewer; ModelError when it says nothing."""

        def call(timeout_seconds: float) -> Completion:
            asked = self._asked(messages, most_tokens)
            return checking.completion(self._client.chat.completions.create(**asked, timeout=timeout_seconds))

        return self._bounded(call, deadline)

    def stream(
        self,
        messages: Sequence[dict[str, str]],
        deadline: Deadline,
        say: Callable[[str], None],
        *,
        most_tokens: int | None = None,
    ) -> Completion:
        """Return the same, and say each piece of it as it comes; an empty one at least four times a second.

        What `say` raises ends the request. One that fails is made again only while nothing was said.
        """
        heard = False

        def tell(piece: str) -> None:
            nonlocal heard
            heard = heard or piece != ""
            say(piece)

        for attempt in range(1, ATTEMPTS + 1):
            future, pieces = self._speech(messages, deadline.within(120), most_tokens)
            try:
                self._listen(future, pieces, deadline, tell)
            except BaseException:
                self._end()
                raise
            error = future.exception()
            if not isinstance(error, Exception):
                return future.result()
            if heard:
                raise _typed(error) from error
            _pause(attempt, error, deadline)
        raise AssertionError

    def alive(self) -> bool:
        """Whether the model server answers within two seconds."""
        try:
            return bool(self._bounded(lambda seconds: self._client.models.list(timeout=seconds), Deadline.after(2)))
        except UnavailableError:
            return False

    def _asked(self, messages: Sequence[dict[str, str]], most_tokens: int | None) -> dict[str, Any]:
        return {
            "model": self.chat_model,
            "messages": list(messages),
            "max_tokens": min(most_tokens or self._answer_tokens, self._answer_tokens),
            "temperature": 0,
        }

    def _speech(
        self, messages: Sequence[dict[str, str]], timeout_seconds: float, most_tokens: int | None
    ) -> tuple[Future[Completion], SimpleQueue[str]]:
        """A request under way, and the pieces that have come; an empty one is the last."""
        pieces: SimpleQueue[str] = SimpleQueue()
        # Made here: one that a thread made for a request that is over by then would not be ended with it.
        completions = self._client.chat.completions

        def call() -> Completion:
            asked = self._asked(messages, most_tokens) | {"stream": True, "stream_options": {"include_usage": True}}
            with completions.create(**asked, timeout=timeout_seconds) as chunks:
                return checking.spoken(chunks, pieces.put)

        future = self._threads.submit(call)
        future.add_done_callback(lambda _: pieces.put(""))
        return future, pieces

    def _listen(
        self, future: Future[Completion], pieces: SimpleQueue[str], deadline: Deadline, tell: Callable[[str], None]
    ) -> None:
        """Tell each piece until the request is over; DeadlineError when time is."""
        while True:
            try:
                piece = pieces.get(timeout=deadline.within(SILENCE_SECONDS))
            except Empty:
                piece = ""
            tell(piece)
            if not piece and future.done() and pieces.empty():
                return

    def _width(self) -> dict[str, Any]:
        """Only OpenAI's third generation can be asked for a width; others refuse the parameter."""
        return {"dimensions": self.dimensions} if self.embedding_model.startswith("text-embedding-3") else {}

    @property
    def _client(self) -> OpenAI:
        if self._opened is None:
            import openai  # noqa: PLC0415 (0.4 to 0.8 s that a cached answer does not need)

            self._connections = Connections()
            http = openai.DefaultHttpxClient(event_hooks={"request": [self._connections.watch]})
            self._opened = openai.OpenAI(
                base_url=self._url, api_key=self._api_key() or "none", max_retries=0, http_client=http
            )
            weakref.finalize(self._opened, http.close)  # as the SDK does for one of its own
        return self._opened

    def _bounded(self, call: Callable[[float], T], deadline: Deadline) -> T:
        """Up to three tries with full jitter while they fit; the SDK's own time-out only bounds a single read."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._before(deadline, self._threads.submit(call, deadline.within(120)))
            except Exception as error:  # noqa: BLE001 (it goes on, by its type, unless there is another attempt)
                _pause(attempt, error, deadline)
        raise AssertionError

    def _before(self, deadline: Deadline, future: Future[T]) -> T:
        try:
            return future.result(timeout=max(deadline.remaining(), 0))
        except FutureTimeoutError:
            self._end()
            msg = "the model did not answer in time"
            raise DeadlineError(msg) from None

    def _end(self) -> None:
        """End what is under way; the next request opens a connection of its own."""
        self._connections.end()
        if self._opened is not None:
            self._opened.close()
            self._opened = None


def preload() -> None:
    """Import the SDK ahead of the first call, and what it imports by itself on first use: 0.6 s of CPU."""
    import openai  # noqa: PLC0415

    with openai.OpenAI(api_key="none") as client:
        _ = client.embeddings, client.chat.completions


def _pause(attempt: int, error: Exception, deadline: Deadline) -> None:
    """Wait for the next attempt; the error, by its type, when there should be none."""
    retry_after = _retry_after(error)
    pause = _JITTER.uniform(0, BACKOFF_SECONDS * 2**attempt) if retry_after is None else retry_after
    if attempt == ATTEMPTS or not _worth_a_retry(error) or pause >= deadline.remaining():
        raise _typed(error) from error
    time.sleep(pause)


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
