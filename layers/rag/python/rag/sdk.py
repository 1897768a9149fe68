"""Clients of AWS's SDK, which is imported when the first one is needed: it takes 0.4 s."""

from __future__ import annotations

import threading
from typing import Any

# Its default session may be used by one thread at a time; the clients that it makes, by any number.
# https://docs.aws.amazon.com/boto3/latest/guide/session.html#multithreading-or-multiprocessing-with-sessions
_making = threading.Lock()

# Given here, it is not put together for each request, twice: an eighth of what the SDK takes for one.
_AGENT = "rag"


def client(service: str, **options: Any) -> Any:
    """A client of a service, with boto3's options."""
    with _making:
        import boto3  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415

        config = Config(user_agent=_AGENT).merge(options.pop("config", Config()))
        return boto3.client(service, config=config, **options)  # type: ignore[call-overload]
