"""The bus that other programs hear of documents by: EventBridge."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rag import sdk
from rag.errors import UnavailableError
from rag.types import JSON

SOURCE = "rag.documents"


class Bus:
    """EventBridge, told by one thread at a time."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._client: Any = None

    def put(self, events: Sequence[JSON]) -> list[bool]:
        """Put at most ten events; return of each whether it was taken. UnavailableError when none was."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 (boto3 costs 0.4 s to import)

        try:
            reply = self._events().put_events(
                Entries=[
                    {
                        "EventBusName": self._name,
                        "Source": SOURCE,
                        "DetailType": event["detail_type"],
                        "Detail": json.dumps(event["detail"]),
                        "Time": event["time"],
                    }
                    for event in events
                ]
            )
        except (BotoCoreError, ClientError) as error:
            msg = f"the bus is not available: {type(error).__name__}"
            raise UnavailableError(msg) from error
        return ["ErrorCode" not in entry for entry in reply["Entries"]]

    def _events(self) -> Any:
        if self._client is None:
            from botocore.config import Config  # noqa: PLC0415

            # What is not taken now is told a minute later.
            config = Config(connect_timeout=1, read_timeout=2, retries={"mode": "standard", "total_max_attempts": 1})
            self._client = sdk.client("events", config=config)
        return self._client
