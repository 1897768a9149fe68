"""Processes with the model, behind one queue in which small requests go first.

Work is handed out in packs of at most 256 tokens (some 70 ms), so a question waits for one pack of a running batch and
never for the batch. Small requests could starve a batch only by keeping every worker busy, which nobody's questions do.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from local.packing import packs
from local.wordpieces import MAXIMUM_TOKENS, WIDTH

VECTOR_BYTES = 4 * WIDTH

_READY_BYTES = 1
# A question; what the chat model weighs for one answer; a batch.
_URGENT_TOKENS = (MAXIMUM_TOKENS, 4096)
_ATTEMPTS = 2


class PoolError(RuntimeError):
    """The vectors cannot be had: a worker ended while computing them, twice, or the pool was closed."""


@dataclass(order=True, slots=True)
class _Pack:
    urgency: int
    arrival: int
    texts: list[list[int]] = field(compare=False)
    vectors: asyncio.Future[bytes] = field(compare=False)
    attempts: int = field(default=0, compare=False)


class EmbeddingPool:
    """Worker processes, each fed one pack at a time; one that ends is started again and its pack is repeated."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._queue: asyncio.PriorityQueue[_Pack] = asyncio.PriorityQueue()
        self._arrivals = itertools.count()
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._feeders: list[asyncio.Task[None]] = []
        self._pending: set[asyncio.Future[bytes]] = set()

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers."""
        return [process.pid for process in self._processes.values()]

    async def open(self) -> None:
        """Return when every worker has loaded the model; raises PoolError when one cannot."""
        await asyncio.gather(*(self._start(slot) for slot in range(self._workers)))
        self._feeders = [asyncio.create_task(self._feed(slot)) for slot in range(self._workers)]

    async def close(self) -> None:
        """End the workers at once; what is being waited for fails with PoolError."""
        for feeder in self._feeders:
            feeder.cancel()
        await asyncio.gather(*self._feeders, return_exceptions=True)
        for vectors in self._pending:
            if not vectors.done():
                vectors.set_exception(PoolError("The model server is being stopped."))
        for process in self._processes.values():
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def embed(self, texts: Sequence[list[int]]) -> list[bytes]:
        """Embed token ids: 384 little-endian float32 for each text; what has not begun when cancelled never does."""
        lengths = [len(text) for text in texts]
        chosen = list(packs(lengths, tokens=MAXIMUM_TOKENS))
        urgency = sum(sum(lengths) > limit for limit in _URGENT_TOKENS)
        waiting = [self._enqueue([texts[index] for index in pack], urgency) for pack in chosen]
        vectors = [b""] * len(texts)
        for pack, reply in zip(chosen, await asyncio.gather(*waiting), strict=True):
            for row, index in enumerate(pack):
                vectors[index] = reply[row * VECTOR_BYTES : (row + 1) * VECTOR_BYTES]
        return vectors

    def _enqueue(self, texts: list[list[int]], urgency: int) -> asyncio.Future[bytes]:
        vectors: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._pending.add(vectors)
        vectors.add_done_callback(self._pending.discard)
        self._queue.put_nowait(_Pack(urgency, next(self._arrivals), texts, vectors))
        return vectors

    async def _feed(self, slot: int) -> None:
        while True:
            pack = await self._queue.get()
            if pack.vectors.done():
                continue
            try:
                reply = await _ask(self._processes[slot], pack.texts)
            except (asyncio.IncompleteReadError, ConnectionError):
                self._repeat(pack)
                await self._restart(slot)
            else:
                if not pack.vectors.done():
                    pack.vectors.set_result(reply)

    def _repeat(self, pack: _Pack) -> None:
        pack.attempts += 1
        if pack.attempts < _ATTEMPTS:
            self._queue.put_nowait(pack)
        elif not pack.vectors.done():
            pack.vectors.set_exception(PoolError("The process that computes embeddings ended twice on this input."))

    async def _restart(self, slot: int) -> None:
        while True:
            await self._processes[slot].wait()
            try:
                return await self._start(slot)
            except PoolError as error:
                sys.stderr.write(f"{error}\n")
                await asyncio.sleep(1)

    async def _start(self, slot: int) -> None:
        process = self._processes[slot] = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "local.minilm_worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # A second BLAS thread on a busy core spins: measured ten times slower.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )
        try:
            await _read(process, _READY_BYTES)
        except asyncio.IncompleteReadError:
            raise PoolError(
                f"A worker could not load the model (exit code {await process.wait()}); see the log."
            ) from None


async def _ask(process: asyncio.subprocess.Process, texts: list[list[int]]) -> bytes:
    assert process.stdin is not None  # noqa: S101  (a pipe, by the way it was started)
    process.stdin.write(json.dumps(texts).encode() + b"\n")
    await process.stdin.drain()
    return await _read(process, len(texts) * VECTOR_BYTES)


async def _read(process: asyncio.subprocess.Process, size: int) -> bytes:
    assert process.stdout is not None  # noqa: S101  (a pipe, by the way it was started)
    return await process.stdout.readexactly(size)
