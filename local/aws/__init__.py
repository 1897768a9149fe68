"""The one account and region of the local AWS: S3, SQS and Secrets Manager that keep what they acknowledged.

moto answers; the modules here stand in front of it and add what it lacks. Read them in the order of a request:
`__main__` listens, `gateway` decides who is asking for what, `buckets`, `queues` and `vault` let moto do it, `journal`
makes it durable, and only then is the request answered. `inside_moto` is the only module that touches moto's data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ACCESS_KEY_ID = "LOCALRAG"
SECRET_ACCESS_KEY = "local-rag-not-a-secret"  # noqa: S105  # it opens one server, which listens on loopback only
REGION = "us-east-1"
ACCOUNT_ID = "123456789012"


def environment(url: str) -> Mapping[str, str]:
    """The variables by which any AWS SDK finds the local AWS at `url`."""
    return {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": url,
    }
