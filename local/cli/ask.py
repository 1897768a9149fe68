"""`rag ask` and `rag search`: what the documents say, and where they say it."""

from typing import Annotated, Any, Literal

import typer

from local.cli.expressions import filters
from local.cli.output import milliseconds, one_line, plural, safe, wrapped
from local.cli.remote import CollectionName, Session, remote

TopK = Annotated[int, typer.Option("--top-k", metavar="N", min=1, max=100, help="How many passages to look at.")]
Mode = Annotated[
    Literal["hybrid", "dense", "lexical"],
    typer.Option("--mode", help="Search by meaning and words, or by one of them."),
]
Filter = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        metavar="EXPRESSION",
        help="Only documents of which this holds: name=value, or with != > >= < <= and ^= (begins with); of a "
        "document's key, title, media_type, document_id, created_at, updated_at, or of its metadata. A JSON object "
        'says the rest: \'{"tags": {"any": ["a", "b"]}}\'. Given several times, all must hold.',
    ),
]

ASK_EPILOG = """\b
Examples:
  rag ask "How many days of leave do I have?"
  rag ask "Who approves a flight?" --collection hr --top-k 5
  rag ask "Who approves a flight?" --filter 'year>=2024' --filter lang=en
  rag ask "Who approves a flight?" --json | jq -r '.citations[].key'
"""

SEARCH_EPILOG = """\b
Examples:
  rag search "parental leave"
  rag search "E-4012" --mode lexical         # exact words: numbers, names, codes
  rag search "leave" --filter 'key^=hr/' --filter '{"tags": {"any": ["a", "b"]}}'
  rag search "time off" --top-k 3 --json | jq -r '.hits[].content'
"""

_DEGRADED = {
    "lexical_only": "The embedding model did not answer, so this was searched by words alone.",
    "ungrounded": "Some of this rests on no passage; check it against the documents.",
}


@remote
async def ask(
    session: Session,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="In quotes, as one argument.")],
    collection: CollectionName = "default",
    top_k: TopK = 10,
    mode: Mode = "hybrid",
    filter: Filter = None,  # noqa: A002 (the name of the option)
) -> int:
    """Answer a question, with citations.

    The answer comes from the documents alone, and every citation quotes its passage literally. When nothing fits, the
    answer says so; that is no error.
    """
    body = _body(collection, top_k, mode, filter) | {"question": question}
    session.show(await session.client.call("POST", "/v1/query", body=body), tell_answer)
    return 0


@remote
async def search(
    session: Session,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="In quotes, as one argument.")],
    collection: CollectionName = "default",
    top_k: TopK = 10,
    mode: Mode = "hybrid",
    filter: Filter = None,  # noqa: A002 (the name of the option)
) -> int:
    """Find the passages that fit, best first.

    No chat model is asked.
    """
    body = _body(collection, top_k, mode, filter) | {"query": query}
    session.show(await session.client.call("POST", "/v1/search", body=body), _tell_hits)
    return 0


def _body(collection: str, top_k: int, mode: str, expressions: list[str] | None) -> dict[str, Any]:
    body = {"collection": collection, "top_k": top_k, "mode": mode}
    return body | ({"filters": filters(expressions)} if expressions else {})


def tell_answer(reply: dict[str, Any]) -> None:
    """Print the answer, its citations, and how it came about."""
    print(wrapped(reply["answer"]))
    for citation in reply["citations"]:
        print("\n" + wrapped(f"[{citation['n']}] {place(citation)}"))
        print(wrapped(f"“{one_line(citation['quote'])}”", indent="    "))
    if reply["degraded"] == "retrieval_only":
        print()
        _print_hits(reply["hits"][:3])
    elif reply["degraded"]:
        print("\n" + wrapped(_degraded(reply["degraded"])))
    print("\n" + made_by(reply))


def made_by(reply: dict[str, Any]) -> str:
    """One line: the model, whether its words came from the cache, and the milliseconds of each step."""
    cached = ["cached"] if reply["cached"] else []
    times = [f"{one_line(step)} {milliseconds(value)}" for step, value in reply["timings_ms"].items()]
    return " · ".join([one_line(reply["model"] or "without a model"), *cached, ", ".join(times)])


def place(passage: dict[str, Any]) -> str:
    """Where a passage stands, as one would look it up: `handbook.pdf, page 2 › Leave`."""
    page = f", page {passage['page']}" if passage["page"] is not None else ""
    heading = f" › {one_line(passage['heading'])}" if passage["heading"] else ""
    return f"{one_line(passage['key'])}{page}{heading}"


def _tell_hits(reply: dict[str, Any]) -> None:
    if not reply["hits"]:
        print("Nothing fits. `rag documents` lists what is there; other words may find it.")
        return
    _print_hits(reply["hits"])
    times = ", ".join(f"{one_line(step)} {milliseconds(value)}" for step, value in reply["timings_ms"].items())
    if reply.get("degraded"):
        print("\n" + wrapped(_degraded(reply["degraded"])))
    print(f"\n{plural(len(reply['hits']), 'passage')} · {times}")


def _degraded(code: str) -> str:
    return _DEGRADED.get(code, f"Degraded: {one_line(code)}.")


def _print_hits(hits: list[dict[str, Any]]) -> None:
    for number, hit in enumerate(hits, start=1):
        print(("\n" if number > 1 else "") + wrapped(f"{number}. {place(hit)} ({hit['score']:.3f})"))
        print(wrapped(safe(hit["content"]), indent="   "))
