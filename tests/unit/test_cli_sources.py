from __future__ import annotations

import os
from pathlib import Path

import pytest

from local.cli.failure import UsageFailure
from local.cli.sources import find


def _write(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)


def test_a_file_has_its_name_as_key_wherever_it_lies(tmp_path: Path) -> None:
    _write(tmp_path / "deep" / "down" / "a.txt")
    [source] = find([tmp_path / "deep" / "down" / "a.txt"])
    assert (source.key, source.size) == ("a.txt", 5)


def test_a_file_in_a_folder_has_its_path_below_that_folder_as_key(tmp_path: Path) -> None:
    _write(tmp_path / "docs" / "b.txt", tmp_path / "docs" / "hr" / "a.txt", tmp_path / "docs" / "it" / "a.txt")
    assert [source.key for source in find([tmp_path / "docs"])] == ["b.txt", "hr/a.txt", "it/a.txt"]


def test_keys_do_not_depend_on_how_the_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "docs" / "hr" / "a.txt")
    monkeypatch.chdir(tmp_path / "docs")
    spellings = [Path(), Path("../docs"), Path("..", "docs", "hr", ".."), tmp_path / "docs"]
    assert {find([path])[0].key for path in spellings} == {"hr/a.txt"}


@pytest.mark.parametrize("prefix", ["2026", "2026/", "/2026/"])
def test_a_prefix_is_a_folder_before_the_key(tmp_path: Path, prefix: str) -> None:
    _write(tmp_path / "hr" / "a.txt")
    assert [source.key for source in find([tmp_path], prefix)] == ["2026/hr/a.txt"]


def test_hidden_files_and_folders_are_left_out_unless_named_themselves(tmp_path: Path) -> None:
    _write(tmp_path / ".git" / "config", tmp_path / ".hidden", tmp_path / "seen.txt")
    assert [source.key for source in find([tmp_path])] == ["seen.txt"]
    assert [source.key for source in find([tmp_path / ".hidden"])] == [".hidden"]


def test_the_same_file_named_twice_is_put_once(tmp_path: Path) -> None:
    _write(tmp_path / "a.txt")
    assert len(find([tmp_path / "a.txt", tmp_path / "a.txt", tmp_path])) == 1


def test_two_files_with_one_key_are_refused_with_both_names(tmp_path: Path) -> None:
    _write(tmp_path / "one" / "a.txt", tmp_path / "two" / "a.txt")
    with pytest.raises(UsageFailure, match=r"one.a\.txt and .*two.a\.txt would both have the key a\.txt"):
        find([tmp_path / "one", tmp_path / "two"])


def test_a_decomposed_name_has_the_key_of_the_composed_one(tmp_path: Path) -> None:
    _write(tmp_path / "u\u0308ber.txt")
    assert find([tmp_path])[0].key == "\u00fcber.txt"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_is_no_file_is_left_out(tmp_path: Path) -> None:
    _write(tmp_path / "a.txt")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    assert [source.key for source in find([tmp_path])] == ["a.txt"]


@pytest.mark.parametrize("name", ["absent", "."])
def test_a_path_without_a_file_is_a_usage_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageFailure, match="There is no file"):
        find([tmp_path / name])
