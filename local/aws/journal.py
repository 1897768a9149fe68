"""What the local AWS promised to keep, in one SQLite file.

The journal is written before a request is answered. SQLite's write-ahead log with `synchronous = FULL` costs one fsync
a commit and loses nothing; `NORMAL` would survive kill -9 too, but lose the last commits to a power cut.
Bodies lie in the same file, so an object, its event and its bytes appear together or not at all.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_SCHEMA = """
CREATE TABLE buckets (
    position INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, headers TEXT NOT NULL, body BLOB NOT NULL
);
CREATE TABLE bucket_settings (
    bucket TEXT NOT NULL REFERENCES buckets (name) ON DELETE CASCADE,
    name TEXT NOT NULL, query TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (bucket, name, query)
);
CREATE TABLE versions (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    bucket TEXT NOT NULL REFERENCES buckets (name) ON DELETE CASCADE,
    key TEXT NOT NULL, version_id TEXT NOT NULL, is_marker INTEGER NOT NULL, last_modified TEXT NOT NULL,
    etag TEXT NOT NULL, metadata TEXT NOT NULL, properties TEXT NOT NULL, tags TEXT NOT NULL,
    UNIQUE (bucket, key, version_id)
);
CREATE TABLE bodies (
    position INTEGER PRIMARY KEY REFERENCES versions (position) ON DELETE CASCADE, content BLOB NOT NULL
);
CREATE TABLE queues (
    position INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, attributes TEXT NOT NULL, tags TEXT NOT NULL
);
CREATE TABLE messages (
    position INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL,
    queue TEXT NOT NULL REFERENCES queues (name) ON DELETE CASCADE, entry TEXT NOT NULL,
    sent_ms INTEGER NOT NULL, delayed_until_ms INTEGER NOT NULL, sequence_number TEXT,
    receive_count INTEGER NOT NULL, first_received_ms INTEGER
);
CREATE TABLE secrets (name TEXT PRIMARY KEY, state TEXT NOT NULL);
CREATE TABLE sequencer (only INTEGER PRIMARY KEY CHECK (only = 1), last INTEGER NOT NULL);
INSERT INTO sequencer VALUES (1, 0);
PRAGMA user_version = 2;
"""
_SCHEMA_VERSION = 2


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an object, or a delete marker."""

    bucket: str
    key: str
    version_id: str
    is_marker: bool
    last_modified: str
    etag: str
    metadata: Mapping[str, str]
    properties: Mapping[str, Any]
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Message:
    """A message that nobody has deleted yet; `entry` is the SendMessage request that makes it again."""

    id: str
    queue: str
    entry: Mapping[str, Any]
    sent_ms: int
    delayed_until_ms: int = 0
    sequence_number: str | None = None
    receive_count: int = 0
    first_received_ms: int | None = None


_VERSION = [column.name for column in fields(Version)]


class JournalVersionError(Exception):
    """The file has tables that this code does not know."""


class Journal:
    """One writer at a time; safe to share between threads."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = directory / "aws.sqlite3"
        # SQLite gives its log and its index the permissions of the file itself.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        for setting in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            "journal_size_limit = 67108864",
        ):
            self._connection.execute(f"PRAGMA {setting}")
        [(version,)] = self._rows("PRAGMA user_version")
        if version == 0:
            self._connection.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
        elif version != _SCHEMA_VERSION:
            self.close()
            raise JournalVersionError(f"{path} was written by another version of this project: delete {directory}")

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def commit(self) -> Iterator[Journal]:
        """Write all or nothing of the block; return when it is on disk.

        Whoever writes has already changed moto's memory. If the disk does not follow, only a restart makes the two
        agree, so the process ends: what was in flight was not acknowledged.
        """
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self
                self._connection.execute("COMMIT")
            except BaseException:  # noqa: BLE001  # whatever it was: the answer must not be sent
                traceback.print_exc()
                os._exit(70)

    def _rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(sql, values).fetchall()

    def _write(self, sql: str, *values: Any) -> None:
        self._connection.execute(sql, values)

    # Buckets

    def save_bucket(self, name: str, headers: Mapping[str, str], body: bytes) -> None:
        self._write("INSERT OR IGNORE INTO buckets (name, headers, body) VALUES (?, ?, ?)", name, _dump(headers), body)

    def remove_bucket(self, name: str) -> None:
        self._write("DELETE FROM buckets WHERE name = ?", name)

    def buckets(self) -> list[tuple[str, Mapping[str, str], bytes]]:
        rows = self._rows("SELECT name, headers, body FROM buckets ORDER BY position")
        return [(name, json.loads(headers), body) for name, headers, body in rows]

    def save_setting(self, bucket: str, name: str, query: str, body: bytes) -> None:
        self._write("INSERT OR REPLACE INTO bucket_settings VALUES (?, ?, ?, ?)", bucket, name, query, body)

    def remove_setting(self, bucket: str, name: str, query: str) -> None:
        self._write("DELETE FROM bucket_settings WHERE (bucket, name, query) = (?, ?, ?)", bucket, name, query)

    def settings(self) -> list[tuple[str, str, str, bytes]]:
        """(bucket, subresource, query, body of the PUT)."""
        return self._rows("SELECT bucket, name, query, body FROM bucket_settings")

    # Versions

    def add_version(self, version: Version, content: bytes) -> None:
        """Add a version, or put it in the place of the one of the same id."""
        self.remove_version(version.bucket, version.key, version.version_id)
        row = [_column(getattr(version, name)) for name in _VERSION]
        self._write(f"INSERT INTO versions ({', '.join(_VERSION)}) VALUES ({', '.join('?' * len(row))})", *row)  # noqa: S608
        if not version.is_marker:
            self._write("INSERT INTO bodies VALUES (last_insert_rowid(), ?)", content)

    def save_tags(self, version: Version) -> None:
        sql = "UPDATE versions SET tags = ? WHERE (bucket, key, version_id) = (?, ?, ?)"
        self._write(sql, _dump(version.tags), version.bucket, version.key, version.version_id)

    def remove_version(self, bucket: str, key: str, version_id: str) -> None:
        self._write("DELETE FROM versions WHERE (bucket, key, version_id) = (?, ?, ?)", bucket, key, version_id)

    def version_count(self) -> int:
        return int(self._rows("SELECT count(*) FROM versions")[0][0])

    def versions(self) -> Iterator[tuple[Version, bytes]]:
        """All versions with their bytes, oldest first."""
        for position, *row in self._rows(f"SELECT position, {', '.join(_VERSION)} FROM versions ORDER BY position"):  # noqa: S608
            bucket, key, version_id, is_marker, last_modified, etag, *rest = row
            version = Version(bucket, key, version_id, bool(is_marker), last_modified, etag, *map(json.loads, rest))
            content = self._rows("SELECT content FROM bodies WHERE position = ?", position)
            yield version, content[0][0] if content else b""

    def next_sequencer(self) -> str:
        """A hexadecimal number greater than every one before, even when the data was deleted in between."""
        [(last,)] = self._rows("SELECT last FROM sequencer")
        value = max(last + 1, time.time_ns())
        self._write("UPDATE sequencer SET last = ?", value)
        return f"{value:018X}"

    # Queues

    def save_queue(self, name: str, attributes: Mapping[str, str], tags: Mapping[str, str]) -> None:
        sql = """INSERT INTO queues (name, attributes, tags) VALUES (?, ?, ?)
                 ON CONFLICT (name) DO UPDATE SET attributes = excluded.attributes, tags = excluded.tags"""
        self._write(sql, name, _dump(attributes), _dump(tags))

    def remove_queue(self, name: str) -> None:
        self._write("DELETE FROM queues WHERE name = ?", name)

    def queues(self) -> list[tuple[str, Mapping[str, str], Mapping[str, str]]]:
        rows = self._rows("SELECT name, attributes, tags FROM queues ORDER BY position")
        return [(name, json.loads(attributes), json.loads(tags)) for name, attributes, tags in rows]

    def save_message(self, message: Message) -> None:
        """Add a message, or note where it lies now and how often it was received; nothing if its queue is gone."""
        sql = """INSERT INTO messages (id, queue, entry, sent_ms, delayed_until_ms, sequence_number, receive_count,
                                       first_received_ms)
                 SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 WHERE EXISTS (SELECT 1 FROM queues WHERE name = ?2)
                 ON CONFLICT (id) DO UPDATE SET queue = excluded.queue, receive_count = excluded.receive_count,
                                                first_received_ms = excluded.first_received_ms"""
        m = message
        row = (m.id, m.queue, _dump(m.entry), m.sent_ms, m.delayed_until_ms, m.sequence_number)
        self._write(sql, *row, m.receive_count, m.first_received_ms)

    def remove_message(self, message_id: str) -> None:
        self._write("DELETE FROM messages WHERE id = ?", message_id)

    def messages(self) -> list[Message]:
        """All messages, oldest first."""
        columns = "id, queue, entry, sent_ms, delayed_until_ms, sequence_number, receive_count, first_received_ms"
        rows = self._rows(f"SELECT {columns} FROM messages ORDER BY position")  # noqa: S608
        return [Message(row[0], row[1], json.loads(row[2]), *row[3:]) for row in rows]

    # Secrets

    def save_secret(self, name: str, state: str) -> None:
        self._write("INSERT OR REPLACE INTO secrets VALUES (?, ?)", name, state)

    def remove_secret(self, name: str) -> None:
        self._write("DELETE FROM secrets WHERE name = ?", name)

    def secrets(self) -> dict[str, str]:
        return dict(self._rows("SELECT name, state FROM secrets"))


def _column(value: Any) -> Any:
    return value if isinstance(value, str | int) else _dump(value)


def _dump(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True)
