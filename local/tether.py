"""Run a command that ends when whoever started it ends, even by kill -9.

    python -I -S local/tether.py [--parent PID] [--signal NAME] [--drop-root DIR] -- command…

On Linux the kernel sends the signal (prctl PR_SET_PDEATHSIG) and this process *becomes* the command. Elsewhere it stays
as the command's parent and sends the signal itself when its standard input, a pipe from the starter, reaches its end.

`--drop-root DIR` is for programs that refuse to run as root: with root's rights the command runs as an ordinary user to
whom DIR belongs. It stands alone (standard library only), because it is run by file name.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import pwd
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import NoReturn

# linux/prctl.h, linux/sched.h, linux/capability.h
PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 1, 8, 47, 2
CLONE_NEWUSER = 0x10000000
CAPABILITY_VERSION_3, CAP_DAC_OVERRIDE = 0x20080522, 1

_libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: list[str]) -> NoReturn:
    """Become the command, or stay as its parent; exits with the command's code."""
    options = _options(arguments)
    if options.drop_root and os.geteuid() == 0:
        _drop_root(options.drop_root)
    death = signal.Signals[options.signal]
    if death != signal.SIGKILL:
        # What a shell starts in the background ignores SIGINT and SIGQUIT, and so would the command.
        signal.signal(death, signal.SIG_DFL)
    if sys.platform != "linux":
        _stay(options.command, death)
    # Last before exec: any change of credentials clears it.
    _call("prctl", PR_SET_PDEATHSIG, death, 0, 0, 0)
    if options.parent and os.getppid() != options.parent:
        sys.exit("tether: the starter was gone before the command began")
    _become(options.command)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tether", description="Run a command that ends with its starter.")
    parser.add_argument("--parent", type=int, help="process id of the starter")
    parser.add_argument("--signal", default="SIGKILL", help="what the command gets when the starter ends")
    parser.add_argument("--drop-root", type=Path, metavar="DIR", help="run as an ordinary user who owns DIR")
    parser.add_argument("command", nargs="+")
    return parser.parse_args(arguments)


def _become(command: list[str]) -> NoReturn:
    try:
        os.execvp(command[0], command)  # noqa: S606  (becoming the command is the point)
    except OSError as error:
        sys.exit(f"tether: cannot run {command[0]}: {error.strerror}")


def _stay(command: list[str], death: signal.Signals) -> NoReturn:
    """Pass signals on to the command, end it at the end of standard input, leave with its exit code."""
    early: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, lambda received, _: early.append(received))
    # Descriptors that the starter let through (the claim on a directory) belong to the command.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, lambda received, _: child.send_signal(received))
    for received in early:
        child.send_signal(received)
    threading.Thread(target=_end_with_input, args=(child, death), daemon=True).start()
    code = child.wait()
    sys.exit(code if code >= 0 else 128 - code)


def _end_with_input(child: subprocess.Popen[bytes], death: signal.Signals) -> None:
    while os.read(0, 4096):
        pass
    child.send_signal(death)


def _drop_root(directory: Path) -> None:
    """A user namespace in which root carries another number; where that is refused, that other user.

    In the namespace files stay root's, so a closed folder above DIR is no obstacle. As another user, DIR is handed over
    and, on Linux, the right to pass closed folders is kept (CAP_DAC_OVERRIDE); without it a closed folder is an error.
    """
    if _namespace_works():
        _own(directory, os.getuid())
        _enter_namespace()
        return
    _own(directory, _ordinary_user())
    _change_user(_ordinary_user())
    try:
        list(directory.iterdir())
    except OSError as error:
        sys.exit(f"tether: {directory} is closed to ordinary users ({error.strerror}); choose a folder they can reach")


def _ordinary_user() -> int:
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        return 65534


def _namespace_works() -> bool:
    """Tried in a child, because a half-made namespace cannot be left again."""
    if sys.platform != "linux":
        return False
    child = os.fork()
    if child == 0:
        try:
            _enter_namespace()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def _enter_namespace() -> None:
    """Inside, the ordinary user's number stands for the root outside (user_namespaces(7))."""
    uid = os.geteuid()
    _call("unshare", CLONE_NEWUSER)
    Path("/proc/self/uid_map").write_text(f"{_ordinary_user()} {uid} 1")


def _change_user(uid: int) -> None:
    os.setgroups([])
    os.setgid(uid)
    if sys.platform != "linux":
        os.setuid(uid)
        return
    _call("prctl", PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setuid(uid)
    try:
        _keep_through_exec(CAP_DAC_OVERRIDE)
    except OSError:
        return  # a container without it: the folders above decide


def _keep_through_exec(capability: int) -> None:
    """Leave the process this one capability, and make it ambient so that exec does not take it (capabilities(7))."""
    bit = 1 << capability
    header, sets = struct.pack("=Ii", CAPABILITY_VERSION_3, 0), struct.pack("=6I", bit, bit, bit, 0, 0, 0)
    _call("capset", header, sets)
    _call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)


def _own(directory: Path, uid: int) -> None:
    """Hand the whole tree over, its top last: where that belongs to `uid`, all of it does."""
    if directory.stat().st_uid == uid:
        return
    for folder, folders, files in os.walk(directory):
        for name in [*folders, *files]:
            os.chown(Path(folder, name), uid, -1, follow_symlinks=False)
    os.chown(directory, uid, -1)


def _call(name: str, *arguments: int | bytes) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


if __name__ == "__main__":
    main(sys.argv[1:])
