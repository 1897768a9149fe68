"""A versioned bucket in memory, as ingestion sees one: what it must be like is compared with S3 by a test."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field
from pathlib import Path

from rag.types import Beside, ObjectVersion

_ids = itertools.count(1)


@dataclass(frozen=True)
class Kept:
    """One version; without a body, a delete marker."""

    version_id: str
    body: bytes | None


@dataclass(frozen=True)
class Opened:
    """What was current when it was opened, whatever becomes of it meanwhile."""

    version: ObjectVersion
    body: bytes

    def fetch(self, path: Path, *, limit_bytes: int) -> bytes:
        path.write_bytes(self.body)
        return hashlib.sha256(self.body).digest()

    def close(self) -> None:
        """There is nothing to let go of."""


@dataclass
class BucketModel:
    """Versions of each key, the current one last."""

    keys: dict[str, list[Kept]] = field(default_factory=dict)

    def put(self, key: str, body: bytes) -> str:
        return self._add(key, body)

    def delete(self, key: str) -> str:
        """Without naming a version: a delete marker becomes the current one."""
        return self._add(key, None)

    def delete_version(self, key: str, position: int) -> None:
        """For good: what was before the current one is current again when that is deleted."""
        del self.keys[key][position]

    def versions(self, key: str) -> list[Kept]:
        return self.keys.get(key, [])

    def current(self, key: str) -> Kept | None:
        """None where S3 has no object: never put, or deleted."""
        last = self.versions(key)[-1:]
        return last[0] if last and last[0].body is not None else None

    def head(self, object_key: str, *, hurried: bool = False) -> ObjectVersion | None:
        now = self.current(object_key)
        if now is None or now.body is None:
            return None
        return ObjectVersion(now.version_id, f'"{hashlib.md5(now.body).hexdigest()}"', len(now.body))  # noqa: S324

    def open(self, object_key: str) -> Opened | None:
        now, version = self.current(object_key), self.head(object_key)
        return Opened(version, now.body) if now and now.body is not None and version else None

    def read(self, object_key: str, *, limit_bytes: int) -> Beside | None:
        now = self.current(object_key)
        return None if now is None or now.body is None else Beside(now.body[: limit_bytes + 1], None, now.version_id)

    def _add(self, key: str, body: bytes | None) -> str:
        kept = Kept(f"v{next(_ids)}", body)
        self.keys.setdefault(key, []).append(kept)
        return kept.version_id
