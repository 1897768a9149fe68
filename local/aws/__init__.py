"""The one account and region of the local AWS: S3, SQS and Secrets Manager that keep what they acknowledged.

moto answers; the modules here stand in front of it and add what it lacks. Read them in the order of a request:
`__main__` listens, `gateway` and `access` decide who is asking for what, `buckets`, `queues` and `vault` let moto do
it, `journal` makes it durable, and only then is the request answered. `inside_moto` is the only module that touches
moto's data.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, NamedTuple

from local import service

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

REGION = "us-east-1"
ACCOUNT_ID = "123456789012"


# Beside the rest of its data: a JSON object a line.
EVENTS = "events.jsonl"


class Credentials(NamedTuple):
    """The one key pair of a data directory."""

    access_key_id: str
    secret_access_key: str


def kept_credentials(directory: Path) -> Credentials:
    """Those of this directory, in a file that only its owner may read; the first time, random ones."""
    made = Credentials(f"LOCALRAG{secrets.token_hex(16).upper()}", secrets.token_hex(20))
    return Credentials(*service.kept_secret(directory / "credentials", lambda: " ".join(made)).split())


def environment(url: str, credentials: Credentials) -> Mapping[str, str]:
    """The variables by which any AWS SDK finds the local AWS at `url`."""
    return {
        "AWS_ACCESS_KEY_ID": credentials.access_key_id,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_access_key,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": url,
    }
