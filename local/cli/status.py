"""`rag status`: does the platform answer, is every part of it well, and what does it hold."""

from typing import Any

from local.cli.documents import tell_collections
from local.cli.output import one_line, table
from local.cli.remote import Session, remote

EPILOG = """\b
Examples:
  rag status
  rag status --url https://abc.example.com/prod --api-key rag_…
  rag status --json | jq -e '.health.status == "ok"'
"""


@remote
async def status(session: Session) -> int:
    """Show whether the platform is well.

    And what it holds. Exit 1 when a part of it is not well.
    """
    health = await session.client.health()
    listed = await session.client.call("GET", "/v1/collections")
    session.show({"url": session.client.connection.url, "health": health, **listed}, _tell)
    return 0 if health["status"] == "ok" else 1


def _tell(reply: dict[str, Any]) -> None:
    health = reply["health"]
    print(f"{reply['url']} is {one_line(health['status'])} (version {one_line(health['version'])})\n")
    table(("part", "status"), [(name, _word(check)) for name, check in health["checks"].items()])
    print()
    tell_collections(reply)


def _word(check: Any) -> Any:
    return check.get("status", check) if isinstance(check, dict) else check
