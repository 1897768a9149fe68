"""One file's way in: ask for a place, send it there, and follow that version until it is ready or failed."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from local.cli.failure import Failure, NotAccepted, NotRunning

if TYPE_CHECKING:
    from local.cli.client import JSON, Client
    from local.cli.progress import Meter
    from local.cli.sources import Source

SIDECAR = ".metadata.json"

# So many are asked about at once; those that are not finished go to the end of the queue.
_ROUND = 8
_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 2.0


@dataclass(slots=True)
class Upload:
    """What became of a file so far: `waiting` until it has arrived, then the document's own status."""

    source: Source
    collection: str
    status: str = "waiting"
    document_id: str | None = None
    version_id: str | None = None
    chunk_count: int | None = None
    error: JSON | None = None
    metadata: JSON | None = None
    metadata_error: str | None = None
    allowed: Any = None
    visible: bool = True

    @property
    def key(self) -> str:
        return self.source.key

    @property
    def is_sidecar(self) -> bool:
        """Whether it describes a document, and is none that would become ready."""
        return self.key.endswith(SIDECAR)

    @property
    def is_done(self) -> bool:
        return self.status == ("uploaded" if self.is_sidecar or not self.visible else "ready")

    @property
    def reason(self) -> str:
        if self.error:
            return f"{self.error['code']}: {self.error['message']}"
        if self.metadata_error:
            return f"metadata: {self.metadata_error}"
        return "" if self.visible else "for others: you cannot see what becomes of it"

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.document_id,
            "key": self.key,
            "collection": self.collection,
            "path": str(self.source.path),
            "size": self.source.size,
            "version_id": self.version_id,
            "status": self.status,
            "chunk_count": self.chunk_count,
            "error": self.error,
        }

    def fail(self, code: str, message: str) -> None:
        self.status, self.error = "failed", {"code": code, "message": message}


class _Counted:
    """A file that tells how much of it was read; no more than `size` bytes, should it grow meanwhile."""

    def __init__(self, file: IO[bytes], size: int, progress: Meter) -> None:
        self._file, self._left, self._progress = file, size, progress

    def read(self, count: int = -1) -> bytes:
        block = self._file.read(self._left if count < 0 else min(count, self._left))
        self._left -= len(block)
        self._progress.sent(len(block))
        return block

    def fileno(self) -> int:
        return self._file.fileno()


async def send(client: Client, upload: Upload, progress: Meter) -> None:
    """Upload one file; its own failure is noted in it, a platform that is gone or refuses the key is raised."""
    source = upload.source
    body = {"key": source.key, "collection": upload.collection, "size": source.size}
    if upload.metadata and not upload.is_sidecar:
        body["metadata"] = upload.metadata
    if upload.allowed is not None and not upload.is_sidecar:
        body["allowed_principals"] = upload.allowed
    try:
        with source.path.open("rb") as file:
            place = await client.call("POST", "/v1/documents", body=body)
            upload.document_id, upload.visible = place["id"], place["visible"]
            counted: Any = _Counted(file, source.size, progress)
            upload.version_id = await client.upload(place["upload"], counted, source.path.name)
        upload.status = "uploaded"
    except (NotRunning, NotAccepted):
        raise
    except Failure as failure:
        upload.fail("REFUSED", failure.message)
    except OSError as problem:
        upload.fail("UNREADABLE", problem.strerror or str(problem))
    except UnicodeEncodeError:
        upload.fail("UNREADABLE", "The file's name is no valid text.")
    progress.arrived(upload)


async def settle(client: Client, uploads: Sequence[Upload], progress: Meter, *, timeout_seconds: float) -> None:
    """Ask until every upload is ready or failed, or the time is over; then what is known stands in each."""
    pending = deque(upload for upload in uploads if upload.status == "uploaded" and not upload.is_done)
    end, pause = time.monotonic() + timeout_seconds, _SHORTEST_PAUSE_SECONDS
    while pending and time.monotonic() < end:
        asked = [pending.popleft() for _ in range(min(_ROUND, len(pending)))]
        finished = [await _look(client, upload) for upload in asked]
        for upload, done in zip(asked, finished, strict=True):
            if done:
                progress.settled(upload)
            else:
                pending.append(upload)
        pause = _SHORTEST_PAUSE_SECONDS if any(finished) else min(pause * 1.5, _LONGEST_PAUSE_SECONDS)
        if not all(finished):
            await asyncio.sleep(pause)


async def _look(client: Client, upload: Upload) -> bool:
    document = await client.document(upload.document_id or "")
    if document is None:
        return False
    # Until the platform has seen this version, it still tells what became of the one before.
    if upload.version_id is not None and document["version_id"] != upload.version_id:
        return False
    upload.status, upload.error, upload.chunk_count = document["status"], document["error"], document["chunk_count"]
    upload.metadata_error = document["metadata_error"]
    return upload.status in {"ready", "failed"}
