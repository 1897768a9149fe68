"""Which platform a command talks to: what was asked for, the environment, or the one that runs on this machine."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.cli.failure import NotRunning

DEFAULT_DATA = Path(".rag")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line says; None where it says nothing."""

    url: str | None = None
    api_key: str | None = None
    data: Path | None = None
    token: str | None = None

    def over(self, other: Wanted) -> Wanted:
        """Take the values of `other` where this one has none."""
        own = bool(self.api_key or self.token)
        api_key, token = (self.api_key, self.token) if own else (other.api_key, other.token)
        return Wanted(self.url or other.url, api_key, self.data or other.data, token)


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the API is (no trailing slash) and the key for it; `data` where it was found through a local platform.

    With a `token`, a user's, there is no key.
    """

    url: str
    api_key: str | None
    data: Path | None = None
    token: str | None = None


def data_directory(wanted: Path | None) -> Path:
    """`--data`, else RAG_DATA, else `.rag` in the working directory."""
    return wanted or Path(os.environ.get("RAG_DATA") or DEFAULT_DATA)


def connection(wanted: Wanted) -> Connection:
    """Find the platform: options, then RAG_URL, RAG_TOKEN and RAG_API_KEY, then `ready.json`; raises NotRunning.

    The key of the local platform is never sent to another URL, and no key where there is a token.
    """
    url = wanted.url or os.environ.get("RAG_URL")
    set_here = Wanted(api_key=os.environ.get("RAG_API_KEY"), token=os.environ.get("RAG_TOKEN"))
    given = wanted.over(set_here)
    api_key = None if given.token else given.api_key
    if url:
        return Connection(_checked(url), api_key, token=given.token)
    directory = data_directory(wanted.data)
    ready = ready_file(directory)
    own = None if given.token else ready["api_key"]
    return Connection(_checked(ready["url"]), api_key or own, directory, given.token)


def ready_file(directory: Path) -> dict[str, Any]:
    """Read what a running platform wrote about itself in `DIR/ready.json`; raises NotRunning."""
    path = directory / "ready.json"
    try:
        ready = json.loads(path.read_text())
        return {"url": str(ready["url"]), "api_key": str(ready["api_key"]), **ready}
    except FileNotFoundError:
        hint = f"Start one with `{start_command(directory)}`, or name another with --url (RAG_URL)."
        raise NotRunning(f"No platform is running here: there is no {path}.", hint=hint) from None
    except (OSError, ValueError, KeyError, TypeError) as problem:
        hint = f"`{start_command(directory)}` writes it anew."
        raise NotRunning(f"{path} cannot be read ({problem}).", hint=hint) from problem


def start_command(directory: Path) -> str:
    """The `rag up` that serves this data directory, to be copied."""
    return f"{program()} up{data_option(directory)}"


def program() -> str:
    """How this program is called, for commands to be copied: in a clone `uv run` finds it, and the shell does not."""
    return "uv run rag" if under_uv() else "rag"


def under_uv() -> bool:
    """Whether `uv run` started this program."""
    return "UV_RUN_RECURSION_DEPTH" in os.environ


def data_option(directory: Path) -> str:
    """What to write after a command for this data directory: nothing for the usual one."""
    return "" if directory == DEFAULT_DATA else f" --data {shlex.quote(str(directory))}"


def _checked(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise NotRunning(f"{url} is no http:// or https:// address.", hint="Give --url or RAG_URL in full.")
    return url.rstrip("/")
