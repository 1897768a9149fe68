"""The model server as a child of the supervisor."""

from __future__ import annotations

import os
import sys
import urllib.request
from pathlib import Path

from local import service

_ROOT = Path(__file__).resolve().parents[1]


class ModelServer:
    """`python -m local.model_server`; writes `model_server.log` into the directory it is given."""

    name = "model_server"

    def __init__(self, logs: Path, port: int | None = None, *, workers: int = 2) -> None:
        self.log = logs / f"{self.name}.log"
        self.port = port or service.free_port()
        self.process: service.Child | None = None
        self._workers = workers

    @property
    def url(self) -> str:
        """Base URL for an OpenAI client."""
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self, *, timeout_seconds: float = 60) -> None:
        """Return when every worker has loaded the model; safe to call again. Raises ServiceError."""
        if self.process and self.process.poll() is None:
            return
        self.process = self._spawn()
        try:
            service.wait_until(self._ready, timeout_seconds=timeout_seconds, process=self.process)
        except service.ServiceError:
            self.stop()
            raise

    def stop(self, *, timeout_seconds: float = 5) -> None:
        """End it and its workers."""
        if self.process:
            service.stop(self.process, timeout_seconds=timeout_seconds)

    def _spawn(self) -> service.Child:
        return service.spawn(
            [sys.executable, "-m", "local.model_server", "--port", str(self.port), "--workers", str(self._workers)],
            name=self.name,
            env=dict(os.environ),
            cwd=_ROOT,
            log=self.log,
        )

    def _ready(self) -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=1) as response:
            return bool(response.status == 200)
