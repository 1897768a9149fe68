"""The HTTP API as a command sees it: JSON in, JSON out, and every way it can fail as a message with a next step."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import IO, Any, Self
from urllib.parse import quote, urlsplit

import httpx

from local.cli.connection import Connection, start_command
from local.cli.failure import Failure, NotAccepted, NotRunning
from local.cli.listening import Event, parse
from local.cli.output import one_line

JSON = dict[str, Any]

_ATTEMPTS = 4
_LONGEST_PAUSE_SECONDS = 30.0


class Client:
    """Speaks to one platform; use it as `async with Client(connection) as client`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        key = {"x-api-key": connection.api_key} if connection.api_key else {}
        if connection.token:
            key = {"authorization": f"Bearer {connection.token}"}
        timeout = httpx.Timeout(90.0, connect=5.0)
        self._http = httpx.AsyncClient(timeout=timeout, trust_env=not _is_loopback(connection.url))
        self._headers = {"accept": "application/json", "user-agent": "rag-cli", **key}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def call(self, method: str, path: str, *, body: JSON | None = None, **query: Any) -> JSON:
        """One request, repeated when the server says to come back later; raises Failure, NotAccepted, NotRunning."""
        parameters = {name: value for name, value in query.items() if value is not None}
        for attempt in range(1, _ATTEMPTS + 1):
            response = await self._send(method, path, json=body, params=parameters)
            pause = _pause_seconds(response)
            if pause is None or attempt == _ATTEMPTS:
                break
            await asyncio.sleep(pause)
        return _decoded(response, self.connection)

    async def listen(self, path: str, *, body: JSON) -> AsyncIterator[Event]:
        """The events of a streamed answer as they come; raises as `call` does, also what one of the events tells."""
        for attempt in range(1, _ATTEMPTS + 1):
            response = await self._send("POST", path, stream=True, json={**body, "stream": True})
            try:
                if response.is_success:
                    async for event in self._events(response):
                        yield event
                    return
                await response.aread()
            finally:
                await response.aclose()
            pause = _pause_seconds(response)
            if pause is None or attempt == _ATTEMPTS:
                _decoded(response, self.connection)
            else:
                await asyncio.sleep(pause)

    async def _events(self, response: httpx.Response) -> AsyncIterator[Event]:
        try:
            async for event in parse(response.aiter_text()):
                if event.name == "error":
                    raise _failure(event.data["status"], event.data, self.connection)
                yield event
        except httpx.TransportError as problem:
            raise Failure("The answer broke off.", hint="Ask again, perhaps with --no-stream.") from problem

    async def health(self) -> JSON:
        """What the platform says of itself; one that is unwell says so with HTTP 503, which is no failure here."""
        response = await self._send("GET", "/health")
        return _decoded(response, self.connection, answers=(200, 503))

    async def document(self, document_id: str) -> JSON | None:
        """The document, or None while (or since) the platform does not know it."""
        try:
            return await self.call("GET", f"/v1/documents/{quote(document_id, safe='')}")
        except Failure as failure:
            if failure.facts.get("status") == 404:
                return None
            raise

    async def documents(self, **query: Any) -> AsyncIterator[JSON]:
        """Every document that matches, page after page."""
        cursor: str | None = None
        while True:
            page = await self.call("GET", "/v1/documents", cursor=cursor, **query)
            for document in page["documents"]:
                yield document
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    async def download(self, url: str) -> bytes:
        """What lies behind a presigned address."""
        try:
            response = await self._http.get(url)
        except httpx.TransportError as problem:
            raise Failure(
                "A file could not be fetched from the bucket.", hint="Run the same command again."
            ) from problem
        if not response.is_success:
            raise Failure(f"The bucket refused a file: {_s3_reason(response)}", hint="Run the same command again.")
        return response.content

    async def upload(self, upload: JSON, file: IO[bytes], name: str) -> str | None:
        """Send a file by a presigned POST, streamed; return the version that S3 gave it."""
        try:
            response = await self._http.post(upload["url"], data=upload["fields"], files={"file": (name, file)})
        except httpx.TransportError as problem:
            raise Failure(f"The upload broke off: {problem or type(problem).__name__}.") from problem
        if response.is_error:
            raise Failure(f"S3 refused the upload: {_s3_reason(response)}.", status=response.status_code)
        version_id: str | None = response.headers.get("x-amz-version-id")
        return version_id

    async def _send(self, method: str, path: str, *, stream: bool = False, **request: Any) -> httpx.Response:
        try:
            prepared = self._http.build_request(method, self.connection.url + path, headers=self._headers, **request)
            return await self._http.send(prepared, stream=stream)
        except httpx.TimeoutException as problem:
            raise NotRunning(f"{self.connection.url} did not answer in time.", hint="Try again.") from problem
        except (httpx.TransportError, httpx.InvalidURL) as problem:
            raise NotRunning(f"Nothing answers at {self.connection.url}.", hint=_start(self.connection)) from problem


def _is_loopback(url: str) -> bool:
    # A proxy in the environment is for the outside world; the platform on this machine is not there.
    return urlsplit(url).hostname in {"127.0.0.1", "localhost", "::1"}


def _pause_seconds(response: httpx.Response) -> float | None:
    if response.status_code not in {429, 503} or "retry-after" not in response.headers:
        return None
    after = response.headers["retry-after"]
    return min(float(after), _LONGEST_PAUSE_SECONDS) if re.fullmatch(r"\d+(\.\d+)?", after) else 1.0


def _decoded(response: httpx.Response, connection: Connection, answers: tuple[int, ...] = ()) -> JSON:
    try:
        body = response.json() if response.content else {}
    except ValueError:
        body = None
    if response.is_error and response.status_code not in answers:
        raise _failure(response.status_code, body if isinstance(body, dict) else {}, connection)
    if not isinstance(body, dict):
        hint = "Does --url (RAG_URL) name the API, with its stage?"
        raise NotRunning(f"{connection.url} answers, but not with this platform's JSON.", hint=hint)
    return body


def _failure(status: int, problem: JSON, connection: Connection) -> Failure:
    facts = {"status": status, "request_id": problem.get("request_id")}
    if status in {401, 403}:
        # What it lacks, where somebody is known who lacks it.
        lacking = [one_line(problem["detail"])] if status == 403 and problem.get("detail") else []
        message = ": ".join([_not_accepted(status, connection).rstrip("."), *lacking])
        return NotAccepted(f"{message}.", hint=_key_hint(connection), **facts)
    message = one_line(problem.get("detail") or problem.get("title") or problem.get("message") or "no reason given")
    fields = [f"{one_line(e.get('path'))}: {one_line(e.get('message'))}" for e in problem.get("errors") or []]
    return Failure("; ".join([f"{message} (HTTP {status})", *fields]), hint=_hint(facts), **facts)


def _hint(facts: JSON) -> str | None:
    if facts["status"] == 404:
        return "`rag collections`, `rag documents` and `rag keys list` show what there is."
    if facts["status"] >= 500 and facts["request_id"]:
        return f"The logs know this request as {one_line(facts['request_id'])}."
    return None


def _not_accepted(status: int, connection: Connection) -> str:
    if connection.token:
        return (
            f"{connection.url} does not {'accept' if status == 401 else 'allow this to the user of'} this access token."
        )
    if connection.api_key is None:
        return f"{connection.url} wants an API key, and none was given."
    return f"{connection.url} does not {'know this API key' if status == 401 else 'allow this to this API key'}."


def _key_hint(connection: Connection) -> str:
    if connection.token:
        return (
            "Tokens end: `rag users token EMAIL` prints a new one for a local platform; `unset RAG_TOKEN` goes without."
        )
    if connection.data is None:
        return "Give one with --api-key or RAG_API_KEY; `rag tenants create NAME` makes one for a local platform."
    return "Is RAG_API_KEY set to a key of another platform? `unset RAG_API_KEY` uses the local platform's own."


def _start(connection: Connection) -> str:
    if connection.data is None:
        return "Check --url (RAG_URL) and the network, or start a platform here with `rag up`."
    return f"It has stopped; start it again with `{start_command(connection.data)}`."


def _s3_reason(response: httpx.Response) -> str:
    found = dict(re.findall(r"<(Code|Message)>([^<]*)</", response.text))
    reason = ": ".join(one_line(found[part]) for part in ("Code", "Message") if part in found)
    return reason or f"HTTP {response.status_code}"
