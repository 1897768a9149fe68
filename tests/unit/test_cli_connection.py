from __future__ import annotations

import json
from pathlib import Path

import pytest

from local.cli.connection import Connection, Wanted, connection
from local.cli.failure import NotRunning


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("RAG_URL", "RAG_API_KEY", "RAG_TOKEN", "RAG_DATA"):
        monkeypatch.delenv(name, raising=False)


def _running(directory: Path) -> None:
    directory.mkdir()
    (directory / "ready.json").write_text(json.dumps({"url": "http://127.0.0.1:20080", "api_key": "local-key"}))


def test_the_platform_of_this_directory_is_found_without_being_named() -> None:
    _running(Path(".rag"))
    assert connection(Wanted()) == Connection("http://127.0.0.1:20080", "local-key", Path(".rag"))


def test_the_data_directory_comes_from_the_option_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    _running(Path("option"))
    monkeypatch.setenv("RAG_DATA", "environment")
    assert connection(Wanted(data=Path("option"))).data == Path("option")
    with pytest.raises(NotRunning, match=r"environment.ready\.json"):
        connection(Wanted())


def test_an_option_wins_over_the_environment_and_that_over_the_local_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    _running(Path(".rag"))
    monkeypatch.setenv("RAG_URL", "https://environment.example/prod/")
    monkeypatch.setenv("RAG_API_KEY", "environment-key")
    assert connection(Wanted()) == Connection("https://environment.example/prod", "environment-key")
    assert connection(Wanted("https://option.example", "option-key")) == Connection(
        "https://option.example", "option-key"
    )


def test_the_key_of_the_local_platform_goes_to_no_other_address() -> None:
    _running(Path(".rag"))
    assert connection(Wanted(url="https://elsewhere.example")).api_key is None


def test_a_users_token_goes_instead_of_any_key(monkeypatch: pytest.MonkeyPatch) -> None:
    _running(Path(".rag"))
    assert connection(Wanted(token="t")) == Connection("http://127.0.0.1:20080", None, Path(".rag"), "t")
    monkeypatch.setenv("RAG_API_KEY", "environment-key")
    monkeypatch.setenv("RAG_TOKEN", "environment-token")
    assert connection(Wanted(url="https://elsewhere.example")).token == "environment-token"
    assert connection(Wanted(url="https://elsewhere.example")).api_key is None
    by_key = connection(Wanted(api_key="option-key"))
    assert (by_key.api_key, by_key.token) == ("option-key", None)


def test_another_key_can_be_used_with_the_local_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    _running(Path(".rag"))
    monkeypatch.setenv("RAG_API_KEY", "second-tenant")
    assert connection(Wanted()) == Connection("http://127.0.0.1:20080", "second-tenant", Path(".rag"))


def test_without_a_platform_the_next_command_is_named() -> None:
    with pytest.raises(NotRunning) as raised:
        connection(Wanted(data=Path("my data")))
    assert "rag up --data 'my data'" in str(raised.value.hint)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"url": "http://127.0.0.1"}', "\0"])
def test_a_broken_ready_file_is_named_and_no_traceback(content: str) -> None:
    Path(".rag").mkdir()
    Path(".rag/ready.json").write_text(content)
    with pytest.raises(NotRunning, match=r"ready\.json cannot be read"):
        connection(Wanted())


def test_an_address_without_a_scheme_is_refused_before_it_is_tried() -> None:
    with pytest.raises(NotRunning, match="no http:// or https:// address"):
        connection(Wanted(url="localhost:8080"))
