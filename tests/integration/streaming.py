"""A gateway on a loop of its own, before one function that streams in real sandboxes."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from functions.authorize.handler import allowed
from local.asgi import Server, listen
from local.authorizer import Authorizer
from local.gateway import Gateway
from local.lambda_runtime import Function, Invocation
from local.plan import of_the_table
from local.runtime_api import RuntimeApi
from local.sandbox import Launch
from rag.types import Caller
from tests.certificates import NOBODY


@dataclass
class Streaming:
    url: str
    function: Function
    log: Path
    loop: asyncio.AbstractEventLoop

    def client(self) -> httpx.Client:
        headers = {"x-api-key": "key"}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=120, verify=NOBODY)

    def ask(self, **body: Any) -> httpx.Response:
        with self.client() as client:
            return client.post("/v1/query", json=body)

    @contextmanager
    def asking(self, **body: Any) -> Iterator[Iterator[tuple[str, Any]]]:
        """The events of an answer, each as soon as it is there."""
        with self.client() as client, client.stream("POST", "/v1/query", json={**body, "stream": True}) as response:
            assert response.status_code == 200
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            yield events(response.iter_text())

    def told(self, **body: Any) -> list[tuple[str, Any]]:
        with self.asking(**body) as telling:
            return list(telling)

    def invoke(self, event: Any) -> Invocation:
        """Without a gateway, as an administrator would."""
        invoked = self.function.invoke(json.dumps(event).encode())
        return asyncio.run_coroutine_threadsafe(invoked, self.loop).result(120)

    def sandboxes(self) -> set[int]:
        return {sandbox.process.pid for sandbox in self.function._sandboxes}


def events(texts: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """Server-sent events as a browser reads them; comments come with an empty name."""
    rest = ""
    for text in texts:
        *whole, rest = (rest + text).split("\n\n")
        for event in whole:
            fields = dict(line.split(":", 1) for line in event.split("\n"))
            yield fields.get("event", "").strip(), json.loads(fields.get("data", "null"))
    assert rest == ""


class _Admitting:
    """An authorizer that knows everybody as this tenant's administrator."""

    def __init__(self, tenant: uuid.UUID) -> None:
        self._caller = Caller(tenant, "key:test", "admin")

    async def invoke(self, payload: bytes, *, trace_id: str | None = None, recipient: Any = None) -> Invocation:
        verdict = allowed(self._caller, json.loads(payload)["methodArn"])
        return Invocation("1", json.dumps(verdict).encode(), None, 0)


@contextmanager
def streaming(
    folder: Path, environment: Mapping[str, str], *, task_root: Path, tenant: uuid.UUID, **limits: Any
) -> Iterator[Streaming]:
    """One function, one sandbox at most."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(120)

    serving = _served(folder, environment, task_root, tenant, loop, limits)
    try:
        yield run(anext(serving))
        run(_ended(serving))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _ended(serving: AsyncIterator[Streaming]) -> None:
    assert await anext(serving, None) is None


async def _served(
    folder: Path,
    environment: Mapping[str, str],
    task_root: Path,
    tenant: uuid.UUID,
    loop: asyncio.AbstractEventLoop,
    limits: Mapping[str, Any],
) -> AsyncIterator[Streaming]:
    api = RuntimeApi(ports=1)
    await api.open()
    launch = Launch("answer", "unused.handler", environment, task_root, folder / "tmp", folder / "log")
    defaults = {"timeout_seconds": 60, "memory_mib": 512, "concurrency": 1, "queue_seconds": 30}
    function = Function(launch, api, function_arn="arn:aws:lambda:x:1:function:answer", **{**defaults, **limits})
    authorizer = Authorizer(_Admitting(tenant), cache_seconds=60)
    functions = dict.fromkeys(("query", "answer"), function)
    gateway = Gateway(functions, of_the_table().routes, authorizer, max_body_bytes=100_000)
    door = listen()
    server = Server(gateway, grace_seconds=5)
    await server.open([door])
    try:
        yield Streaming(f"http://127.0.0.1:{door.getsockname()[1]}", function, launch.log, loop)
    finally:
        await server.close()
        await function.close()
        await api.close()
