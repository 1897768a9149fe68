"""The parser as the pipelines see it: a file's bytes become text in a process that cannot hurt this one.

One helper process without this one's environment waits with the parsers loaded and forks for each document
(milliseconds instead of a third of a second); what the forked child may do is in `confinement`, what it does in
`parser_child`.
"""

from __future__ import annotations

import json
import math
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rag import confinement, recognition
from rag import limits as limiting
from rag.confinement import Bounds
from rag.errors import DocumentError
from rag.limits import Limits
from rag.recognition import Kept, Scans
from rag.types import Parsed, Section

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_GRACE_SECONDS = 5.0
_MESSAGE_BYTES = 16 * 1024
_RESULT_BYTES = 1024 * 1024
_READ_BYTES = 1024 * 1024
_BYTES_PER_CHARACTER = 6  # of text as JSON, escapes included
_PASSED_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT")


class Parser:
    """Parses one document at a time; safe to share between threads. `close` ends its helper process."""

    def __init__(
        self,
        *,
        wall_seconds: float = 60.0,
        memory_mebibytes: int = 1024,
        limits: Limits = limiting.USUAL,
        scans: Scans = recognition.UNREAD,
    ) -> None:
        # More processor than wall-clock time is only used by threads that nobody asked for.
        file_bytes = max(confinement.FILE_BYTES, _BYTES_PER_CHARACTER * limits.characters)
        self._bounds = Bounds(wall_seconds, math.ceil(wall_seconds), memory_mebibytes, file_bytes)
        self._limits = limits
        self._scans = scans
        self._helper: _Helper | None = None
        self._lock = threading.Lock()

    def parse(self, path: Path, name: str, kept: Kept = recognition.NOTHING_KEPT) -> Parsed:
        """The text of the file at `path`, which its owner calls `name`; its sections stand in a file without a name.

        Raises DocumentError for whatever keeps it from being indexed, bounds included; the message says what to do.
        UnavailableError when text recognition does not answer; pages that are `kept` it is not asked for.
        """
        outcome, sections = self._run(path, name)
        read = Parsed(outcome["media_type"], sections, outcome["title"], tuple(outcome["pages_without_text"]))
        return recognition.completed(read, self._scans, lambda page: self._run(path, name, page)[1].data, kept)

    def close(self) -> None:
        """End the helper process and remove its directory; the next `parse` starts another."""
        with self._lock:
            self._drop_helper()

    def _run(self, path: Path, name: str, page: int | None = None) -> tuple[dict[str, Any], _Sections]:
        with self._lock:
            try:
                return self._run_once(path, name, page)
            except _KilledError:
                # Which does not say whether the document was why: once more, in a new child.
                return self._run_at_last(path, name, page)

    def _run_at_last(self, path: Path, name: str, page: int | None) -> tuple[dict[str, Any], _Sections]:
        try:
            return self._run_once(path, name, page)
        except _KilledError as error:
            raise error.verdict from error

    def _run_once(self, path: Path, name: str, page: int | None) -> tuple[dict[str, Any], _Sections]:
        if self._helper is None:
            confinement.hide_memory()
            self._helper = _Helper()
        sections = _Sections()
        with path.open("rb") as document:
            try:
                request = {"name": name, "page": page, "limits": asdict(self._limits)}
                result, ending = self._helper.run(document.fileno(), sections.descriptor, request, self._bounds)
            except (OSError, ValueError) as error:
                self._drop_helper()
                verdict = DocumentError("INTERNAL", "The parser ended twice while reading this document.")
                raise _KilledError(verdict) from error
        return _interpreted(result, ending), sections

    def _drop_helper(self) -> None:
        if self._helper is not None:
            self._helper.stop()
            self._helper = None


class _KilledError(Exception):
    """The helper or its child was ended from outside; `verdict` is what the document gets when it happens again."""

    def __init__(self, verdict: DocumentError) -> None:
        super().__init__(str(verdict))
        self.verdict = verdict


class _Helper:
    """The waiting process, its private directory and the socket to it."""

    def __init__(self) -> None:
        directory = tempfile.mkdtemp(prefix="rag-parser-")
        self._channel, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-s", "-P", "-m", "rag.parser_child", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_environment(directory),
                cwd=directory,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self.stop = weakref.finalize(self, _stop, process, self._channel, directory)

    def run(
        self, document: int, sections: int, request: dict[str, Any], bounds: Bounds
    ) -> tuple[bytes, dict[str, Any]]:
        """The result's bytes and how the child ended; OSError or ValueError when the helper itself is gone."""
        deadline = time.monotonic() + bounds.wall_seconds + _GRACE_SECONDS
        message = json.dumps({**request, "bounds": asdict(bounds)}).encode()
        incoming, outgoing = os.pipe()
        try:
            try:
                socket.send_fds(self._channel, [message], [document, sections, outgoing])
            finally:
                os.close(outgoing)
            result = _read_all(incoming, deadline, _RESULT_BYTES)
        finally:
            os.close(incoming)
        self._channel.settimeout(max(0.1, deadline - time.monotonic()))
        return result, json.loads(self._channel.recv(_MESSAGE_BYTES))


class _Sections:
    """What the child wrote, a section a line, or a picture; the file is gone with it, or with this process."""

    def __init__(self) -> None:
        with tempfile.TemporaryFile(prefix="rag-") as file:
            self.descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self.descriptor)

    @property
    def data(self) -> bytes:
        return b"".join(self._pieces())

    def __iter__(self) -> Iterator[Section]:
        rest = b""
        for data in self._pieces():
            *lines, rest = (rest + data).split(b"\n")
            yield from (Section(*json.loads(line)) for line in lines)

    def _pieces(self) -> Iterator[bytes]:
        place = 0
        while data := os.pread(self.descriptor, _READ_BYTES, place):
            place += len(data)
            yield data


def _environment(directory: str) -> dict[str, str]:
    """What the helper needs to find its modules and nothing that is secret; one thread for each native library."""
    passed = {name: os.environ[name] for name in _PASSED_ENVIRONMENT if name in os.environ}
    return {
        **passed,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "TMPDIR": directory,
        "HOME": directory,
        "LANG": "C.UTF-8",
        "MALLOC_ARENA_MAX": "2",
        "RAYON_NUM_THREADS": "1",
        "TOKIO_WORKER_THREADS": "1",
    }


def _stop(process: subprocess.Popen[bytes], channel: socket.socket, directory: str) -> None:
    channel.close()
    process.kill()
    process.wait()
    shutil.rmtree(directory, ignore_errors=True)


def _read_all(descriptor: int, deadline: float, limit: int) -> bytes:
    received = bytearray()
    while select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
        data = os.read(descriptor, _READ_BYTES)
        received += data
        if not data or len(received) > limit:
            return bytes(received)
    raise TimeoutError("The parser's helper process did not answer in time.")


def _interpreted(result: bytes, ending: dict[str, Any]) -> dict[str, Any]:
    if ending["timed_out"]:
        raise DocumentError("PARSE_TIMEOUT", "Reading the document took longer than is allowed.")
    if ending["exit"] != 0:
        raise _ended(-ending["exit"], ending["peak_mebibytes"])
    try:
        outcome: dict[str, Any] = json.loads(result)
    except ValueError as error:
        raise DocumentError("INTERNAL", "The parser gave no readable result for this document.") from error
    if "error" in outcome:
        raise DocumentError(*outcome["error"])
    return outcome


def _ended(signal_number: int, peak_mebibytes: int) -> Exception:
    memory = DocumentError("PARSE_MEMORY", f"Reading the document took too much memory (over {peak_mebibytes} MiB).")
    if signal_number == signal.SIGKILL:  # the kernel short of memory, or somebody else; the limits below come first
        return _KilledError(memory)
    if signal_number == signal.SIGXCPU:
        return DocumentError("PARSE_TIMEOUT", "Reading the document took more processor time than is allowed.")
    if signal_number == signal.SIGABRT:  # what native code does when an allocation fails
        return memory
    return DocumentError("CORRUPT", f"The document is damaged: reading it crashed the parser (signal {signal_number}).")
