"""What a process may still do once it touches a stranger's bytes: bounded memory, time, files; no network, no programs.

On Linux the kernel enforces all of it (resource limits, a seccomp filter). Elsewhere only the limits hold: there an
audit hook stops Python code from opening sockets or starting programs, but not native code.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import signal
import struct
import sys
from dataclasses import dataclass

_MEBIBYTE = 1024 * 1024
FILE_BYTES = 16 * _MEBIBYTE
_OPEN_FILES = 64

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_LOAD_WORD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _RETURN = 0x20, 0x15, 0x35, 0x06  # classic BPF, <linux/bpf_common.h>
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET, _FIRST_ARGUMENT_OFFSET = 0, 4, 16  # in struct seccomp_data; little-endian
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
_X32_CALLS = 0x40000000  # x86-64's second calling convention, which would pass by the numbers below

# socket bind listen accept connect sendto execve execveat ptrace kill tkill rt_sigqueueinfo rt_tgsigqueueinfo
# pidfd_send_signal pidfd_open pidfd_getfd process_vm_readv process_vm_writev process_madvise io_uring_setup, by
# machine: <asm/unistd.h>. Not socketpair: kreuzberg's runtime talks to itself over one.
_REFUSED_CALLS = {
    "x86_64": (41, 49, 50, 43, 42, 44, 59, 322, 101, 62, 200, 129, 297, 424, 434, 438, 310, 311, 440, 425),
    "aarch64": (198, 200, 201, 202, 203, 206, 221, 281, 117, 129, 130, 138, 240, 424, 434, 438, 270, 271, 440, 425),
}
_BECOMING = (6, 7)  # of those: execve, execveat
# The architecture as the kernel names it, and tgkill: by it abort() ends a process, so to oneself it is allowed.
_MACHINES = {"x86_64": (0xC000003E, 234), "aarch64": (0xC00000B7, 131)}
_REFUSED_EVENTS = ("socket.", "subprocess.", "os.exec", "os.posix_spawn", "os.system", "os.kill")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one document may cost."""

    wall_seconds: float
    cpu_seconds: int
    memory_mebibytes: int
    file_bytes: int = FILE_BYTES


def confine(bounds: Bounds, *, becoming: bool = False) -> None:
    """Bind this process for good: call it after the fork, before the first byte of the document.

    One that is `becoming` another program may do so; what binds it binds the program.
    """
    _die_with_parent()
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, bounds.file_bytes)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _limit(resource.RLIMIT_CPU, bounds.cpu_seconds)
    _limit(resource.RLIMIT_AS, bounds.memory_mebibytes * _MEBIBYTE)
    if not _filter_system_calls(becoming=becoming) and not becoming:
        sys.addaudithook(_refuse_event)


def hide_memory() -> None:
    """Keep other processes of this user out of this one's memory and environment, also by /proc; but not root's."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _limit(what: int, value: int) -> None:
    """The soft limit and, a second or byte above it, the hard one; a limit already lower stays."""
    _, hard = resource.getrlimit(what)
    ceiling = value + 1 if hard == resource.RLIM_INFINITY else min(value + 1, hard)
    try:
        resource.setrlimit(what, (min(value, ceiling), ceiling))
    except (ValueError, OSError):
        if sys.platform == "linux":  # macOS refuses RLIMIT_AS; the wall clock and the CPU limit remain
            raise


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _filter_system_calls(*, becoming: bool) -> bool:
    """Whether the kernel now refuses the calls above; False where it cannot."""
    if sys.platform != "linux" or platform.machine() not in _REFUSED_CALLS:
        return False
    refused: tuple[int, ...] = _REFUSED_CALLS[platform.machine()]
    if becoming:
        refused = tuple(number for index, number in enumerate(refused) if index not in _BECOMING)
    program = _program(*_MACHINES[platform.machine()], refused)
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.c_char_p(header), 0, 0) == 0)


def _program(architecture: int, tgkill: int, refused: tuple[int, ...]) -> bytes:
    """The filter: kill on a foreign architecture; refuse the listed calls, and tgkill of others; allow the rest."""
    to_refusal = len(refused) + 4
    steps = [
        (_LOAD_WORD, 0, 0, _ARCHITECTURE_OFFSET),
        (_JUMP_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD_WORD, 0, 0, _NUMBER_OFFSET),
        (_JUMP_GREATER_EQUAL, to_refusal, 0, _X32_CALLS),
        *((_JUMP_EQUAL, to_refusal - 1 - index, 0, number) for index, number in enumerate(refused)),
        (_JUMP_EQUAL, 0, 2, tgkill),
        (_LOAD_WORD, 0, 0, _FIRST_ARGUMENT_OFFSET),
        (_JUMP_EQUAL, 0, 1, os.getpid()),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def _refuse_event(event: str, _: object) -> None:
    if event.startswith(_REFUSED_EVENTS):
        raise PermissionError(errno.EPERM, f"{event} is not allowed while a document is parsed")


if __name__ == "__main__":
    _seconds, _command = int(sys.argv[1]), sys.argv[2:]
    confine(Bounds(_seconds, _seconds, 1024), becoming=True)
    os.execv(_command[0], _command)  # noqa: S606 (by its path, without a shell: this is what this module is run for)
