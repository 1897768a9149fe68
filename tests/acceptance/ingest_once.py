"""One delivery of one message to the real ingest handler, ended by kill -9 at the named point if there is one.

Run as a program: `python -m tests.acceptance.ingest_once OBJECT_KEY MESSAGE_ID [POINT]`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

BUCKET = "rag-dev-documents"
POINTS = (
    "after the first look at the bucket",
    "after the document is marked as processing",
    "after the download",
    "after parsing",
    "after the first embeddings are kept",
    "under the lock",
    "after the chunks are written, before the commit",
    "after the commit, before the message is acknowledged",
)


def main(object_key: str, message_id: str, point: str | None) -> None:
    from functions.ingest import handler
    from rag import wiring
    from rag.store.database import Transaction

    after = {
        POINTS[0]: (wiring.bucket(), "head", 1),
        POINTS[1]: (wiring.index_store().__class__, "begin", 1),
        POINTS[2]: (wiring.bucket(), "fetch", 1),
        POINTS[3]: (wiring.parser(), "parse", 1),
        POINTS[4]: (wiring.index_store().__class__, "keep_embeddings", 1),
        POINTS[5]: (wiring.bucket(), "head", 2),
        POINTS[6]: (Transaction, "rows", lambda *arguments: "record_ingestion" in arguments),
        POINTS[7]: (wiring.index_store().__class__, "replace", 1),
    }
    if point:
        die_after(*after[point])
    # Whoever is not killed here is the delivery after one that was.
    answer = handler.handler(message(object_key, message_id, receives=1 if point else 2), Context())
    sys.stdout.write(json.dumps(answer) + "\n")


def die_after(owner: Any, name: str, when: int | Callable[..., bool]) -> None:
    """Let the call happen, then end as by kill -9."""
    call, calls = getattr(owner, name), []

    def dying(*arguments: Any, **keywords: Any) -> Any:
        result = call(*arguments, **keywords)
        calls.append(1)
        if when(*arguments) if callable(when) else len(calls) == when:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, dying)


def message(object_key: str, message_id: str, *, receives: int) -> dict[str, Any]:
    place = {"bucket": {"name": BUCKET}, "object": {"key": object_key}}
    body = {"Records": [{"eventName": "ObjectCreated:Put", "s3": place}]}
    return {
        "Records": [
            {
                "messageId": message_id,
                "receiptHandle": "handle",
                "body": json.dumps(body),
                "attributes": {"ApproximateReceiveCount": str(receives)},
                "messageAttributes": {},
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:queue",
                "awsRegion": "us-east-1",
            }
        ]
    }


class Context:
    function_name = "ingest"
    memory_limit_in_mb = 512
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:ingest"
    aws_request_id = "1"

    @staticmethod
    def get_remaining_time_in_millis() -> int:
        return 600_000


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None)
