"""S3, SQS and Secrets Manager on this machine, as one child process that keeps what it acknowledged."""

from __future__ import annotations

import functools
import os
import sys
import threading
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local import aws, service

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROOT = Path(__file__).resolve().parents[1]


class Aws:
    """One server on one directory: `aws.sqlite3`, `port`, `credentials`."""

    name = "aws"

    def __init__(self, directory: Path, port: int | None = None, *, log: Path | None = None) -> None:
        self.directory = directory.resolve()
        self.log = log or self.directory.with_name("logs") / "aws.log"
        self.process: service.Child | None = None
        self._port = port

    @property
    def port(self) -> int:
        if self._port is None:
            raise service.ServiceError("The local AWS has no port before its first start()")
        return self._port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables by which an AWS SDK finds this server."""
        return aws.environment(self.url, self.credentials)

    @property
    def credentials(self) -> aws.Credentials:
        """What opens queues and secrets, and signs URLs and upload forms; kept in the directory."""
        return aws.kept_credentials(self.directory)

    def start(self, *, timeout_seconds: float = 120) -> None:
        """Return when requests are answered and everything kept is back; safe to call again.

        Raises ServiceError with the end of the log.
        """
        if self.process and self.process.poll() is None:
            return
        with service.claimed(self.directory, timeout_seconds=timeout_seconds) as claim:
            self._port = self._port or service.kept_port(self.directory / "port")
            aws.kept_credentials(self.directory)
            self.process = service.spawn(
                [sys.executable, "-m", "local.aws", "--data", self.directory, "--port", str(self._port)],
                name=self.name,
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "PYTHONUNBUFFERED": "1"},
                cwd=_ROOT,
                log=self.log,
                inherit=[claim],
            )
        try:
            service.wait_until(self._ready, timeout_seconds=timeout_seconds, process=self.process)
        except service.ServiceError:
            self.stop()
            raise

    def stop(self, *, timeout_seconds: float = 10) -> None:
        """End at once: everything acknowledged is on disk already."""
        if self.process:
            service.stop(self.process, timeout_seconds=timeout_seconds)

    def client(self, service_name: str) -> Any:
        """A boto3 client of `s3`, `sqs` or `secretsmanager` for this server."""
        from botocore.config import Config  # noqa: PLC0415

        # Without it boto3 would sign URLs and forms by version 2, which S3 takes in its oldest regions only.
        config = Config(signature_version="s3v4") if service_name == "s3" else None
        with _making_a_client:
            return _session().client(
                service_name,
                endpoint_url=self.url,
                region_name=aws.REGION,
                aws_access_key_id=self.credentials.access_key_id,
                aws_secret_access_key=self.credentials.secret_access_key,
                config=config,
            )

    def _ready(self) -> bool:
        with urllib.request.urlopen(f"{self.url}/health", timeout=5) as reply:  # noqa: S310  # our own loopback URL
            return bool(reply.status == 200)


# A session reads each service's description once, but only one thread at a time may have a client made.
_making_a_client = threading.Lock()


@functools.cache
def _session() -> Any:
    import boto3  # noqa: PLC0415  # 0.4 s that starting the server need not pay

    return boto3.Session()
