"""The process that parses: it imports the parsers once, then forks for each document a child that is thrown away.

Run by `rag.parser` as `python -m rag.parser_child FD`, where FD is its end of a socket pair. A request is one JSON
message that carries three descriptors: the document to read, the file for its sections (JSON lines) and the pipe for
the result; the answer is one JSON message that says how the child ended. A request for a page is for its picture
instead, which then is all that the file for sections holds. It ends itself, and removes its working
directory, when the socket closes.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import resource
import select
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Any, BinaryIO

from rag import confinement, parsing
from rag.confinement import Bounds
from rag.errors import DocumentError
from rag.limits import Limits
from rag.types import Parsed

_MESSAGE_BYTES = 16 * 1024
_TITLE_CHARACTERS = 1000
_OUT_OF_MEMORY = b'{"error": ["PARSE_MEMORY", "Reading the document took more memory than is allowed."]}'
# The smallest file that makes kreuzberg unpack its PDF library into TMPDIR, once for all children.
_SMALLEST_PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj "
    b"trailer<</Root 1 0 R>>"
)


def main() -> None:
    """Serve until the other end closes."""
    with socket.socket(fileno=int(sys.argv[1])) as channel, contextlib.suppress(ConnectionError):
        confinement.hide_memory()
        _unpack_libraries()
        # A child that collects garbage would copy the pages of all that stands there.
        gc.collect()
        gc.freeze()
        while True:
            message, descriptors, _, _ = socket.recv_fds(channel, _MESSAGE_BYTES, 3)
            if not message:
                break
            channel.sendall(json.dumps(_served(json.loads(message), descriptors, channel)).encode())
    shutil.rmtree(Path.cwd(), ignore_errors=True)


def _served(request: dict[str, Any], descriptors: list[int], channel: socket.socket) -> dict[str, Any]:
    """Parse one document in a child; says its exit code or negative signal, whether time ran out, memory used."""
    bounds = Bounds(**request["bounds"])
    alive, held_by_child = os.pipe()
    child = os.fork()
    if child == 0:
        channel.close()
        _parse_and_exit(descriptors, request, bounds)
    for descriptor in (*descriptors, held_by_child):
        os.close(descriptor)
    # Readable means ended: the child's end of the pipe has closed, or nobody is left to wait for the result.
    ended, _, _ = select.select([alive, channel.fileno()], [], [], bounds.wall_seconds)
    os.close(alive)
    return {"timed_out": not ended, **_reaped(child)}


def _reaped(child: int) -> dict[str, Any]:
    # The child may not have reached setpgid; its pid is still its own, as nobody has waited for it yet.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    return {"exit": os.waitstatus_to_exitcode(status), "peak_mebibytes": usage.ru_maxrss // 1024}


def _parse_and_exit(descriptors: list[int], request: dict[str, Any], bounds: Bounds) -> None:
    document, sections, result = descriptors
    try:
        os.setpgid(0, 0)
        confinement.confine(bounds)
        os.write(result, _outcome(document, sections, request))
    except MemoryError:
        os.write(result, _OUT_OF_MEMORY)
    finally:
        os._exit(0)


def _outcome(document: int, sections: int, request: dict[str, Any]) -> bytes:
    try:
        with os.fdopen(document, "rb") as file, os.fdopen(sections, "wb") as written:
            if request["page"]:
                written.write(parsing.picture(f"/proc/self/fd/{document}", request["page"]))
                return b"{}"
            return _parsed(parsing.read(file, request["name"], Limits(**request["limits"])), written)
    except DocumentError as error:
        return _failure(error.code, str(error))
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EFBIG}:
            return _failure("TOO_LARGE", "The text of the document does not fit into the temporary storage.")
        return _unforeseen(error)
    except MemoryError:
        raise
    except BaseException as error:  # noqa: BLE001 - a panic in native code is no Exception; whatever it is ends here
        return _unforeseen(error)


def _parsed(parsed: Parsed, written: BinaryIO) -> bytes:
    empty = []
    for section in parsed.sections:
        if section.text:
            line = json.dumps([section.text, section.page, section.heading, section.rows], ensure_ascii=False)
            written.write(line.encode() + b"\n")
        else:
            empty.append(section.page)
    title = parsed.title and parsed.title[:_TITLE_CHARACTERS]
    return json.dumps({"media_type": parsed.media_type, "title": title, "pages_without_text": empty}).encode()


def _unforeseen(error: BaseException) -> bytes:
    return _failure("INTERNAL", f"The parser failed on this document: {type(error).__name__}: {error}"[:500])


def _failure(code: str, message: str) -> bytes:
    return json.dumps({"error": [code, message]}).encode(errors="replace")


def _unpack_libraries() -> None:
    """In a child: extraction starts threads, and a process with threads must not fork."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            parsing.parse(_SMALLEST_PDF, "")
        os._exit(0)
    os.waitpid(child, 0)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
