"""EventBridge as far as it is told something: each event is a line of a file, durable before the client hears of it.

A bus of any name is there; nothing is routed from here.
"""

from __future__ import annotations

import json
import os
import threading
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from local.aws import ACCOUNT_ID, REGION
from local.aws.exchange import Reply

# EventBridge API reference, "PutEvents": so many at once, and so many bytes of all together.
_AT_ONCE = 10
_MOST_BYTES = 256 * 1024
_REQUIRED = ("Source", "DetailType", "Detail")


class Bus:
    """Writes events as their targets would get them, with the name of the bus beside."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._turn = threading.Lock()

    def answer(self, operation: str, body: bytes) -> Reply:
        """Reply when the events are on disk."""
        entries = json.loads(body).get("Entries", []) if operation == "PutEvents" else []
        if not 0 < len(entries) <= _AT_ONCE or len(body) > _MOST_BYTES:
            return _reply(400, {"__type": "ValidationException", "message": f"{operation} of {len(entries)} entries"})
        answers = [_problem(entry) or {"EventId": str(uuid.uuid4())} for entry in entries]
        taken = [_event(e, a["EventId"]) for e, a in zip(entries, answers, strict=True) if "EventId" in a]
        self._append(taken)
        return _reply(200, {"FailedEntryCount": len(entries) - len(taken), "Entries": answers})

    def _append(self, events: list[dict[str, Any]]) -> None:
        with self._turn, self._file.open("a") as file:
            file.writelines(json.dumps(event) + "\n" for event in events)
            file.flush()
            os.fsync(file.fileno())


def _problem(entry: dict[str, Any]) -> dict[str, str] | None:
    missing = [name for name in _REQUIRED if not entry.get(name)]
    if missing:
        return {"ErrorCode": "InvalidArgument", "ErrorMessage": f"{missing[0]} is a required argument."}
    try:
        is_object = isinstance(json.loads(entry["Detail"]), dict)
    except ValueError:
        is_object = False
    return None if is_object else {"ErrorCode": "MalformedDetail", "ErrorMessage": "Detail is malformed."}


def _event(entry: dict[str, Any], event_id: str) -> dict[str, Any]:
    said = entry.get("Time")
    at = datetime.fromtimestamp(said, UTC) if isinstance(said, int | float) else datetime.now(UTC)
    return {
        "version": "0",
        "id": event_id,
        "detail-type": entry["DetailType"],
        "source": entry["Source"],
        "account": ACCOUNT_ID,
        "time": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": REGION,
        "resources": entry.get("Resources", []),
        "detail": json.loads(entry["Detail"]),
        "bus": entry.get("EventBusName", "default"),
    }


def _reply(status: int, body: dict[str, Any]) -> Reply:
    return Reply(status, (("Content-Type", "application/x-amz-json-1.1"),), json.dumps(body).encode())
