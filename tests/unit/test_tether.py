"""The tether itself, on plain commands; with the servers it is tested in integration/test_local_services.py."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest

TETHER = Path(__file__).resolve().parents[2] / "local" / "tether.py"
ELSEWHERE = (
    "import runpy, sys; sys.platform = 'darwin'; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
)


def tethered(*arguments: str, platform: str = sys.platform) -> subprocess.Popen[str]:
    script = [str(TETHER)] if platform == "linux" else ["-c", ELSEWHERE, str(TETHER)]
    return subprocess.Popen(
        [sys.executable, "-I", "-S", *script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the tether stays")
def test_the_tether_becomes_the_command() -> None:
    with tethered("--", "sh", "-c", "echo $$; cat /proc/$$/cmdline") as process:
        output, _ = process.communicate()
    assert output.startswith(f"{process.pid}\nsh\0-c\0")


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_the_exit_code_is_the_command_s(platform: str) -> None:
    with tethered("--", "sh", "-c", "exit 7", platform=platform) as process:
        assert process.wait() == 7


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_a_signal_reaches_the_command(platform: str) -> None:
    code = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done"
    with tethered("--", "sh", "-c", code, platform=platform) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.wait() == 9


def test_a_command_whose_starter_is_gone_does_not_begin(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    with tethered("--parent", "1", "--", "touch", str(begun)) as process:
        _, message = process.communicate()
    assert process.returncode == 1
    assert "the starter was gone" in message
    assert not begun.exists()


def test_an_unknown_command_is_named() -> None:
    with tethered("--", "no-such-program") as process:
        _, message = process.communicate()
    assert process.returncode == 1
    assert message == "tether: cannot run no-such-program: No such file or directory\n"


def test_without_the_kernel_s_help_the_end_of_the_pipe_ends_the_command() -> None:
    with tethered("--signal", "SIGQUIT", "--", "sleep", "60", platform="darwin") as process:
        assert process.stdin
        process.stdin.close()
        assert process.wait() == 128 + signal.SIGQUIT


def test_a_tree_is_handed_over_with_all_that_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tmp_path / "tree"
    (tree / "folder").mkdir(parents=True)
    (tree / "folder" / "file").touch()
    (tree / "link").symlink_to("/")
    changed: list[str] = []
    monkeypatch.setattr(os, "chown", lambda path, *_, **__: changed.append(str(Path(path).relative_to(tmp_path))))
    own = runpy.run_path(str(TETHER))["_own"]
    own(tree, tree.stat().st_uid)
    assert changed == []
    own(tree, 12345)
    assert sorted(changed) == ["tree", "tree/folder", "tree/folder/file", "tree/link"]
    assert changed[-1] == "tree"
