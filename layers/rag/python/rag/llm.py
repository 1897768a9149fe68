"""The model server, by OpenAI's protocol: OpenAI, vLLM, Ollama, TEI and Bedrock's compatible endpoint alike."""

from __future__ import annotations

import math
import random
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache, cached_property
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from rag import checking
from rag.breaker import Breaker
from rag.connections import Connections, bounded
from rag.deadline import Deadline
from rag.errors import BusyError, DeadlineError, DeclinedError, EndlessError, ModelError, UnavailableError
from rag.types import Completion, Usage, Vector

if TYPE_CHECKING:
    import ssl

    from openai import OpenAI

ATTEMPTS = 3
BACKOFF_SECONDS = 0.25
# Whoever is to wait longer is told so, and can do something else meanwhile: a sandbox that sleeps is paid for.
PATIENCE_SECONDS = 20.0
# A model that fails so often in a row, whoever asks, is left alone; one question tries for all others so often.
FAILURES = 5
PAUSE_SECONDS = 5.0
# More than any caller makes requests at once: one that waits for a thread would be one that the model is blamed for.
THREADS = 32
# A request that came with less than this left says nothing about the model when it runs out of time.
FAIR_SECONDS = 1.0
# More than the largest batch of the widest vectors there can be has.
MOST_BYTES = 64 * 1024**2
# Of the kernel: sandboxes that are restored from one snapshot would share the state of any other.
_JITTER = random.SystemRandom()
# How often whoever hears a silent model may say that nobody listens any more.
SILENCE_SECONDS = 0.25

T = TypeVar("T")


class _RefusedError(Exception):
    """The server answered with the status of an error."""

    def __init__(self, response: Any) -> None:
        super().__init__(f"status {response.status_code}")
        self.status_code: int = response.status_code
        self.response = response


class _Client:
    """Connections to the server. The SDK goes over them too, and is imported with the first chat.

    An embedding is asked for without it: that spares a millisecond of CPU each time, and whoever only searches half a
    second for the import.
    """

    def __init__(self, url: str, api_key: str, http: Any) -> None:
        self._url = url.rstrip("/")
        self._api_key = api_key
        self._http = http

    def ask(self, method: str, path: str, *, timeout_seconds: float, body: Any = None) -> bytes:
        """Return what the server answers; _RefusedError where that is an error."""
        headers = {"Authorization": f"Bearer {self._api_key}"}
        response = self._http.request(method, self._url + path, headers=headers, json=body, timeout=timeout_seconds)
        if not response.is_success:
            raise _RefusedError(response)
        content: bytes = response.content
        return content

    @cached_property
    def sdk(self) -> OpenAI:
        from openai import OpenAI  # noqa: PLC0415

        return OpenAI(base_url=self._url, api_key=self._api_key, max_retries=0, http_client=self._http)

    def close(self) -> None:
        self._http.close()


class LLM:
    """Embeds texts and completes chats; every call ends before its deadline, whatever the server does.

    Each of the two models has a breaker of its own, for all who use this object: mostly they have servers, and limits,
    of their own. What a call comes to is added to `used`, also when it fails.
    """

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
        self.answer_tokens = answer_tokens
        self._opened: _Client | None = None
        self._connections = Connections()
        self._opening = threading.Lock()
        self._threads = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="llm")
        self._embedding = Breaker(failures=FAILURES, pause_seconds=PAUSE_SECONDS)
        self._chat = Breaker(failures=FAILURES, pause_seconds=PAUSE_SECONDS)

    def require_embedding(self) -> None:
        """BusyError while the embedding model is left alone: whoever needs it can spare the work before."""
        if self._embedding.wait_seconds > 0:
            raise _left_alone(self._embedding)

    def embed(self, texts: Sequence[str], deadline: Deadline, used: Usage | None = None) -> list[Vector]:
        """Return one vector of length 1 per text, in their order; ModelError when the server sent anything else."""
        used = used or Usage()

        def call(timeout_seconds: float) -> tuple[list[Vector], int]:
            body = {"model": self.embedding_model, "input": list(texts), "encoding_format": "base64"} | self._width()
            answer = self._client.ask("POST", "/embeddings", body=body, timeout_seconds=timeout_seconds)
            response = checking.document(answer)
            vectors = checking.vectors(response, count=len(texts), dimensions=self.dimensions)
            return vectors, checking.prompt_tokens(response)

        vectors, tokens = self._bounded(call, deadline, self._embedding, used)
        used.prompt_tokens += tokens
        return vectors

    def complete(
        self,
        messages: Sequence[dict[str, str]],
        deadline: Deadline,
        *,
        most_tokens: int | None = None,
        used: Usage | None = None,
    ) -> Completion:
        """Return what the chat model says, in `most_tokens` or fewer; ModelError when it says nothing."""
        used = used or Usage()

        def call(timeout_seconds: float) -> Completion:
            asked = self._asked(messages, most_tokens)
            said = self._client.sdk.chat.completions.create(**asked, timeout=timeout_seconds)
            return checking.completion(said, most_tokens=asked["max_tokens"])

        return _added(self._bounded(call, deadline, self._chat, used), used)

    def stream(
        self,
        messages: Sequence[dict[str, str]],
        deadline: Deadline,
        say: Callable[[str], None],
        *,
        most_tokens: int | None = None,
        used: Usage | None = None,
    ) -> Completion:
        """Return the same, and say each piece of it as it comes; an empty one at least four times a second.

        What `say` raises ends the request. One that fails is made again only while nothing was said.
        """
        used = used or Usage()
        heard = False

        def tell(piece: str) -> None:
            nonlocal heard
            heard = heard or piece != ""
            say(piece)

        for attempt in range(1, ATTEMPTS + 1):
            seconds = _admitted(self._chat, deadline, used)
            future, pieces = self._speech(messages, seconds, most_tokens)
            try:
                self._listen(future, pieces, deadline, tell)
            except DeadlineError as late:
                self._end()
                _note(late, seconds, self._chat, used)
                used.unfinished += heard
                raise
            except BaseException:
                self._end()
                used.unfinished += 1
                raise
            error = future.exception()
            if not isinstance(error, Exception):
                self._chat.succeeded()
                return _added(future.result(), used)
            failure = _unwrapped(error)
            _note(failure, seconds, self._chat, used)
            if heard:
                used.unfinished += 1
                raise _typed(failure) from failure
            _pause(attempt, failure, deadline, self._chat)
        raise AssertionError

    def alive(self) -> bool:
        """Whether the model server answers within two seconds."""
        try:
            self._before(
                Deadline.after(2), self._threads.submit(lambda: self._client.ask("GET", "/models", timeout_seconds=2))
            )
        except Exception:  # noqa: BLE001 (whatever it is, it does not answer)
            return False
        return True

    def _asked(self, messages: Sequence[dict[str, str]], most_tokens: int | None) -> dict[str, Any]:
        return {
            "model": self.chat_model,
            "messages": list(messages),
            "max_tokens": min(most_tokens or self.answer_tokens, self.answer_tokens),
            "temperature": 0,
        }

    def _speech(
        self, messages: Sequence[dict[str, str]], timeout_seconds: float, most_tokens: int | None
    ) -> tuple[Future[Completion], SimpleQueue[str]]:
        """A request under way, and the pieces that have come; an empty one is the last."""
        pieces: SimpleQueue[str] = SimpleQueue()
        # Made here: one that a thread made for a request that is over by then would not be ended with it.
        completions = self._client.sdk.chat.completions

        def call() -> Completion:
            asked = self._asked(messages, most_tokens) | {"stream": True, "stream_options": {"include_usage": True}}
            with completions.create(**asked, timeout=timeout_seconds) as chunks:
                return checking.spoken(chunks, pieces.put, most_tokens=asked["max_tokens"])

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
    def _client(self) -> _Client:
        with self._opening:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def _open(self) -> _Client:
        import httpx2  # noqa: PLC0415 (0.1 s that a cached answer does not need)

        self._connections = Connections()
        http = httpx2.Client(
            # What is packed could unpack to anything.
            headers={"Accept-Encoding": "identity"},
            event_hooks={"request": [self._connections.watch], "response": [bounded(MOST_BYTES)]},
            follow_redirects=True,
            verify=_everybodys_authorities(),
        )
        opened = _Client(self._url, self._api_key() or "none", http)
        weakref.finalize(opened, http.close)
        return opened

    def _bounded(self, call: Callable[[float], T], deadline: Deadline, breaker: Breaker, used: Usage) -> T:
        """Up to three tries with full jitter while they fit; the SDK's own time-out only bounds a single read."""
        for attempt in range(1, ATTEMPTS + 1):
            seconds = _admitted(breaker, deadline, used)
            try:
                result = self._before(deadline, self._threads.submit(call, seconds))
            except Exception as error:  # noqa: BLE001 (it goes on, by its type, unless there is another attempt)
                failure = _unwrapped(error)
                _note(failure, seconds, breaker, used)
                _pause(attempt, failure, deadline, breaker)
            else:
                breaker.succeeded()
                return result
        raise AssertionError

    def _before(self, deadline: Deadline, future: Future[T]) -> T:
        try:
            return future.result(timeout=max(deadline.remaining(), 0))
        except FutureTimeoutError:
            self._end()
            msg = "the model did not answer in time"
            raise DeadlineError(msg) from None

    def _end(self) -> None:
        """End what is under way, of all threads; the next request opens a connection of its own."""
        self._connections.end()
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()


@cache
def _everybodys_authorities() -> ssl.SSLContext:
    """Whom HTTPX trusts, which takes 60 ms of a core to read: once, not for each client that is opened again."""
    import httpx2  # noqa: PLC0415

    return httpx2.create_ssl_context()


def preload() -> None:
    """Import the SDK ahead of the first call, and what it imports by itself on first use: 0.6 s of CPU."""
    import openai  # noqa: PLC0415

    with openai.OpenAI(api_key="none") as client:
        _ = client.chat.completions


def _admitted(breaker: Breaker, deadline: Deadline, used: Usage) -> float:
    """Count a request that may be made, and return how long a single read of it may take; BusyError when it may not."""
    seconds = deadline.within(120)
    if not breaker.admits():
        used.spared += 1
        raise _left_alone(breaker)
    used.requests += 1
    return seconds


def _left_alone(breaker: Breaker) -> BusyError:
    msg = "the model is not available: it is left alone for a while, because it failed or asked for it"
    return BusyError(msg, retry_after_seconds=breaker.wait_seconds or PAUSE_SECONDS)


def _note(error: Exception, seconds: float, breaker: Breaker, used: Usage) -> None:
    """Count a request that failed, and tell the breaker if the model is to blame."""
    used.errors += 1
    status = getattr(error, "status_code", None)
    throttled = status == 429
    used.throttled += throttled
    if isinstance(error, DeclinedError) or (status is not None and not _is_down(status)):
        breaker.succeeded()  # it answers; what it was asked is at fault
    elif not isinstance(error, DeadlineError) or seconds >= FAIR_SECONDS:
        breaker.failed(wait_seconds=_retry_after(error) if throttled else None)


def _is_down(status: int) -> bool:
    """Whether it would fail whoever asks: also who is refused for the key that all share."""
    return status in {401, 403, 408, 429} or status >= 500


def _pause(attempt: int, error: Exception, deadline: Deadline, breaker: Breaker) -> None:
    """Wait for the next attempt; the error, by its type, when there should be none."""
    retry_after = _retry_after(error)
    opens_in = breaker.wait_seconds
    pause = _JITTER.uniform(0, BACKOFF_SECONDS * 2**attempt) if retry_after is None else max(retry_after, opens_in)
    patience = min(deadline.remaining(), PATIENCE_SECONDS)
    if attempt == ATTEMPTS or not _worth_a_retry(error) or pause >= patience or opens_in > pause:
        raise _typed(error) from error
    time.sleep(pause)


def _retry_after(error: Exception) -> float | None:
    """Seconds that the server asks to wait for, given as such or as a date (RFC 9110, 10.2.3); None without any."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    given = headers.get("retry-after", "")
    try:
        seconds = float(given)
    except ValueError:
        seconds = _until(given)
    return seconds if 0 <= seconds < math.inf else None


def _until(date: str) -> float:
    try:
        at = parsedate_to_datetime(date)
    except ValueError:
        return math.nan
    # An HTTP date is in GMT, also where it does not say so.
    return max((at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds(), 0.0)


def _worth_a_retry(error: Exception) -> bool:
    if isinstance(error, DeadlineError | DeclinedError | EndlessError):
        return False
    status = getattr(error, "status_code", None)
    return isinstance(error, ModelError) or status is None or status in {408, 409, 429} or status >= 500


def _unwrapped(error: Exception) -> Exception:
    """The SDK takes whatever goes wrong while it reads for a lost connection. A MemoryError is no server's fault."""
    if short := next((one for one in (error, error.__cause__) if isinstance(one, MemoryError)), None):
        raise short
    return error.__cause__ if isinstance(error.__cause__, EndlessError) else error


def _typed(error: Exception) -> UnavailableError:
    if isinstance(error, UnavailableError):
        return error
    status = getattr(error, "status_code", None)
    reason = f"status {status}" if status else type(error).__name__
    kind = BusyError if status == 429 else UnavailableError
    return kind(f"the model is not available: {reason}", retry_after_seconds=_retry_after(error) or PAUSE_SECONDS)


def _added(said: Completion, used: Usage) -> Completion:
    used.prompt_tokens += said.prompt_tokens
    used.completion_tokens += said.completion_tokens
    return said
