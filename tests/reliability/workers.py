"""Ingest workers as processes: deliver to them, wait for them, freeze them, kill them."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integration.deployment import notification, sample

ROOT = Path(__file__).resolve().parents[2]
KILLED = -signal.SIGKILL


@dataclass(eq=False)
class Delivery:
    """One invocation under way; `pid` waits until it has begun."""

    _begun: threading.Event = field(default_factory=threading.Event)
    _ended: threading.Event = field(default_factory=threading.Event)
    _pid: int = 0
    _status: int | None = None

    @property
    def pid(self) -> int:
        assert self._begun.wait(120), "the worker did not begin"
        return self._pid

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def wait(self, seconds: float = 300) -> int:
        """Its exit status: 0 acknowledged, 1 left to the queue, -9 killed."""
        assert self._ended.wait(seconds), f"the worker has not ended after {seconds} s"
        assert self._status is not None
        return self._status

    def send(self, number: signal.Signals) -> None:
        if not self.ended:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)


class Workers:
    """Whoever delivers here gets a process of its own for each delivery."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        path = os.pathsep.join([str(ROOT), str(ROOT / "layers/rag/python")])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.ingest_worker"],
            cwd=ROOT,
            env={"PATH": os.defpath, "PYTHONPATH": path, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._waiting: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
        self._begun: dict[int, Delivery] = {}
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def deliver(
        self,
        *object_keys: str,
        messages: Mapping[str, str] | None = None,
        message: str = "1",
        receives: int = 1,
        seconds: float = 600,
        log: Path | None = None,
        alone: bool = False,
        apart: bool = False,
        memory_mib: int | None = None,
        **environment: str,
    ) -> Delivery:
        """Begin to work off one message that names these objects, or a batch of one for each, `apart`.

        Or a batch of `messages` that are written already, by their ids.
        `alone`: others are under way meanwhile. `memory_mib`: more than it has at first the worker does not get.
        """
        [record] = sample("ingest/object_created.json")["Records"]
        record["attributes"]["ApproximateReceiveCount"] = str(receives)
        if messages is None:
            named = [(key, [key]) for key in object_keys] if apart else [(message, object_keys)]
            messages = {name: notification(*keys) for name, keys in named}
        records = [{**record, "messageId": name, "body": body} for name, body in messages.items()]
        delivery = Delivery()
        self._waiting.put(delivery)
        sent = {"environment": environment, "event": {"Records": records}, "seconds": seconds, "alone": alone}
        sent["memory_mib"] = memory_mib
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(sent | {"log": None if log is None else str(log)}) + "\n")
        self._process.stdin.flush()
        return delivery

    def close(self) -> None:
        assert self._process.stdin is not None
        for delivery in list(self._begun.values()):
            delivery.kill()
        self._process.stdin.close()
        self._process.wait(10)
        self._thread.join()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                told: dict[str, Any] = json.loads(line)
                if "status" in told:
                    delivery = self._begun.pop(told["pid"])
                    delivery._status = told["status"]
                    delivery._ended.set()
                else:
                    delivery = self._begun[told["pid"]] = self._waiting.get_nowait()
                    delivery._pid = told["pid"]
                    delivery._begun.set()


@contextmanager
def working(environment: Mapping[str, str]) -> Iterator[Workers]:
    workers = Workers(environment)
    try:
        yield workers
    finally:
        workers.close()
