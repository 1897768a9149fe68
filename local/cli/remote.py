"""What every command that talks to a platform has in common: which one, with which key, and whether JSON is wanted."""

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, get_type_hints

import typer

from local.cli.connection import Wanted, connection
from local.cli.output import as_json

if TYPE_CHECKING:
    from local.cli.client import JSON, Client

P = ParamSpec("P")

Url = Annotated[str | None, typer.Option("--url", metavar="URL", help="The API to talk to. [env: RAG_URL]")]
ApiKey = Annotated[str | None, typer.Option("--api-key", metavar="KEY", help="Its API key. [env: RAG_API_KEY]")]
Token = Annotated[
    str | None, typer.Option("--token", metavar="TOKEN", help="A user's access token instead. [env: RAG_TOKEN]")
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="Where the local platform keeps its data. [env: RAG_DATA; default: .rag]"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON only, for scripts.")]
CollectionName = Annotated[str, typer.Option("--collection", metavar="NAME", help="The collection.")]

_SHARED: dict[str, tuple[Any, Any]] = {
    "url": (Url, None),
    "api_key": (ApiKey, None),
    "token": (Token, None),
    "data": (Data, None),
    "json": (AsJson, False),
}


@dataclass(frozen=True, slots=True)
class Given:
    """What stood before the command's name, as in `rag --json status`."""

    wanted: Wanted = field(default_factory=Wanted)
    json: bool = False


@dataclass(frozen=True, slots=True)
class Session:
    """An open connection, and how the result is wanted."""

    client: "Client"
    json: bool

    def show(self, result: "JSON", tell: "Callable[[JSON], None]") -> None:
        """Print the result: as JSON, or in words by `tell`."""
        print(as_json(result)) if self.json else tell(result)


def remote(command: Callable[Concatenate[Session, P], Awaitable[int]]) -> Callable[..., int]:
    """Turn a coroutine of a session into a command that also takes --url, --api-key, --token, --data and --json."""

    @functools.wraps(command)
    def run(
        ctx: typer.Context,
        url: str | None,
        api_key: str | None,
        token: str | None,
        data: Path | None,
        json: bool,
        **own: Any,
    ) -> int:
        before = ctx.obj or Given()
        wanted = Wanted(url, api_key, data, token).over(before.wanted)
        return asyncio.run(_in_session(functools.partial(command, **own), wanted, json=json or before.json))

    run.__signature__ = _signature(command)  # type: ignore[attr-defined]  # inspect reads it; typer reads inspect
    return run


async def _in_session(command: Callable[[Session], Awaitable[int]], wanted: Wanted, *, json: bool) -> int:
    from local.cli.client import Client  # noqa: PLC0415 (httpx costs 0.3 s, which `rag --help` need not wait for)

    async with Client(connection(wanted)) as client:
        return await command(Session(client, json))


def _signature(command: Callable[..., Any]) -> inspect.Signature:
    hints = get_type_hints(command, include_extras=True)
    _, *own = inspect.signature(command).parameters.values()
    named = inspect.Parameter.KEYWORD_ONLY
    shared = [inspect.Parameter(name, named, default=value, annotation=hint) for name, (hint, value) in _SHARED.items()]
    context = inspect.Parameter("ctx", named, annotation=typer.Context)
    return inspect.Signature([*(p.replace(kind=named, annotation=hints[p.name]) for p in own), *shared, context])
