"""An OpenAI-compatible model server for a machine without models: MiniLM embeddings and an extractive chat model.

    python -m local.model_server --port 8001 [--workers 2]

It listens on 127.0.0.1 only and takes any credential.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from local import asgi, extractive, followups, openai_protocol
from local.embedding_pool import EmbeddingPool, PoolError
from local.openai_protocol import ChatRequest, ProtocolError, Said
from local.wordpieces import WordPieces, model_directory

# 2048 inputs of 16 kB each.
_BODY_LIMIT_BYTES = 32 * 1024 * 1024
_QUESTION_CHARACTERS = 4_000

if TYPE_CHECKING:
    from starlette.requests import Request

Work = Callable[[bytes], Awaitable[Response]]
T = TypeVar("T")
R = TypeVar("R")


class ModelServer:
    """The routes, over one tokenizer and one pool of workers."""

    def __init__(self, pool: EmbeddingPool, pieces: WordPieces) -> None:
        self._pool = pool
        self._pieces = pieces

    def app(self) -> Starlette:
        """The ASGI application; the pool must be open."""
        return Starlette(
            routes=[
                Route("/health", self._health),
                Route("/v1/models", self._models),
                Route("/v1/embeddings", _endpoint(self._embeddings), methods=["POST"]),
                Route("/v1/chat/completions", _endpoint(self._chat), methods=["POST"]),
            ],
            exception_handlers={
                ProtocolError: _refuse,
                PoolError: _unavailable,
                HTTPException: _http_error,
                Exception: _failed,
            },
        )

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok", "workers": self._pool.pids})

    async def _models(self, _: Request) -> Response:
        return JSONResponse(openai_protocol.models_response())

    async def _embeddings(self, body: bytes) -> Response:
        request = openai_protocol.embedding_request(body)
        characters = sum(map(len, request.texts))
        ids = await _aside(characters, self._pieces.ids, request.texts)
        vectors = await self._pool.embed(ids)
        answered = partial(openai_protocol.embedding_response, as_base64=request.as_base64, tokens=sum(map(len, ids)))
        content = await _aside(characters, answered, vectors)
        return Response(content, media_type="application/json")

    async def _chat(self, body: bytes) -> Response:
        request = openai_protocol.chat_request(body)
        said = self._said(request, await self._answer(request))
        if not request.stream:
            return JSONResponse(openai_protocol.chat_response(said))
        return StreamingResponse(_events(said, include_usage=request.include_usage), media_type="text/event-stream")

    async def _answer(self, request: ChatRequest) -> str:
        followup = followups.read(request.messages)
        if followup is not None:
            return await self._follow(followup)
        asked = extractive.read(request.messages)
        if asked is None:
            return extractive.STAND_IN
        chosen = await asyncio.to_thread(extractive.candidates, asked, count_tokens=self._lengths)
        texts = [asked.question, *(candidate.text for candidate in chosen)]
        question, *vectors = await self._pool.embed(self._pieces.ids(texts))
        return extractive.compose(asked, chosen, question, vectors)

    async def _follow(self, asked: followups.Asked) -> str:
        if asked.heading == "conversation":
            return followups.rewritten(asked)
        question, *vectors = await self._pool.embed(self._pieces.ids([asked.question, *asked.texts]))
        return followups.ordered(question, vectors)

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in self._pieces.ids(texts)]

    def _said(self, request: ChatRequest, text: str) -> Said:
        cut = text if request.maximum_tokens is None else self._pieces.beginning(text, request.maximum_tokens)
        return Said(
            text=cut,
            finish_reason="stop" if cut == text else "length",
            prompt_tokens=sum(self._pieces.count(content) for _, content in request.messages),
            completion_tokens=self._pieces.count(cut),
        )


async def _aside(characters: int, work: Callable[[T], R], argument: T) -> R:
    """In a thread for a batch, which must not stop the event loop that a question waits for; a thread costs 1 ms."""
    return work(argument) if characters <= _QUESTION_CHARACTERS else await asyncio.to_thread(work, argument)


def _endpoint(work: Work) -> Callable[[Request], Awaitable[Response]]:
    """Read the body, then work for as long as the client is there: nobody computes for one that has given up."""

    async def endpoint(request: Request) -> Response:
        try:
            body = await asgi.read_body(request.receive, limit_bytes=_BODY_LIMIT_BYTES)
        except asgi.BodyTooLargeError:
            raise ProtocolError(f"The body is larger than {_BODY_LIMIT_BYTES} bytes.", status=413) from None
        except asgi.DisconnectedError:
            return Response(status_code=499)
        working = asyncio.ensure_future(work(body))
        leaving = asyncio.ensure_future(request.receive())
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            return await working if working.done() else Response(status_code=499)
        finally:
            working.cancel()
            leaving.cancel()

    return endpoint


async def _events(said: Said, *, include_usage: bool) -> AsyncIterator[bytes]:
    for event in openai_protocol.chat_events(said, include_usage=include_usage):
        yield event


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, ProtocolError)  # noqa: S101  (registered for nothing else)
    return JSONResponse(error.body(), status_code=error.status)


async def _unavailable(request: Request, error: Exception) -> Response:
    return await _refuse(request, ProtocolError(str(error), status=503))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  (registered for nothing else)
    path = f"{request.method} {request.url.path}"
    return await _refuse(request, ProtocolError(f"{path}: {error.detail}", status=error.status_code))


async def _failed(request: Request, _: Exception) -> Response:
    return await _refuse(request, ProtocolError("The model server failed; its log says why.", status=500))


async def serve(port: int, workers: int) -> None:
    """Serve until SIGTERM or SIGINT; what is then running is answered 503."""
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    pool = EmbeddingPool(workers)
    try:
        opening = asyncio.create_task(pool.open())
        model_server = ModelServer(pool, WordPieces(model_directory()))
        await opening
        server = asgi.Server(model_server.app(), grace_seconds=1)
        await server.open([asgi.listen(port)])
        await ending.wait()
        await pool.close()
        await server.close()
    finally:
        await pool.close()


def main() -> None:
    """Parse the arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m local.model_server", description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.port, arguments.workers))


if __name__ == "__main__":
    main()
