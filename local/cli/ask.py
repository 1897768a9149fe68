"""`rag ask` and `rag search`: what the documents say, and where they say it."""

from typing import Annotated, Any, Literal

import typer

from local.cli import explanation
from local.cli.expressions import filters
from local.cli.listening import listen
from local.cli.output import is_terminal, milliseconds, one_line, plural, safe, wrapped
from local.cli.remote import CollectionName, Session, remote

TopK = Annotated[int, typer.Option("--top-k", metavar="N", min=1, max=100, help="How many passages to show.")]
TopKOfAnswer = Annotated[
    int | None,
    typer.Option(
        "--top-k", metavar="N", min=1, max=100, help="How many passages to look at. [default: as the platform is set]"
    ),
]
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

Fusion = Annotated[
    Literal["weighted", "rrf"] | None,
    typer.Option("--fusion", help="How both legs become one order. [default: as the platform is set]"),
]
Diversity = Annotated[
    float | None,
    typer.Option(
        "--diversity",
        metavar="0…1",
        min=0,
        max=1,
        help="How much a passage loses by saying what one before it says. [default: as the platform is set]",
    ),
]
PerDocument = Annotated[
    int | None,
    typer.Option("--per-document", metavar="N", min=1, max=300, help="At most so many passages of one document."),
]
Rerank = Annotated[
    Literal["none", "llm"] | None,
    typer.Option("--rerank", help="Let the chat model order the passages. [default: as the platform is set]"),
]
Explain = Annotated[
    bool, typer.Option("--explain", help="Show the rank and score of each passage in each leg and after each stage.")
]
WhyNot = Annotated[
    str | None,
    typer.Option("--why-not", metavar="KEY", help="Say where this document, by key or id, fell out; explains too."),
]

ASK_EPILOG = """\b
Examples:
  rag ask "How many days of leave do I have?"
  rag ask "Who approves a flight?" --collection hr --top-k 5
  rag ask "Who approves a flight?" --filter 'year>=2024' --filter lang=en
  rag ask "Who approves a flight?" --style detailed --conversation new
  rag ask "And in Spain?" --conversation 6f1c…      # its id was printed with the answer
  rag ask "Who approves a flight?" --why-not hr/travel.md
  rag ask "Who approves a flight?" --json | jq -r '.citations[].key'
"""

SEARCH_EPILOG = """\b
Examples:
  rag search "parental leave"
  rag search "E-4012" --mode lexical         # exact words: numbers, names, codes
  rag search "leave" --filter 'key^=hr/' --filter '{"tags": {"any": ["a", "b"]}}'
  rag search "leave" --explain --why-not hr/travel.md
  rag search "time off" --top-k 3 --json | jq -r '.hits[].content'
"""

_DEGRADED = {
    "lexical_only": "The embedding model did not answer, so this was searched by words alone.",
    "not_reranked": "The model gave no order, so the passages stand in the order of the search.",
    "ungrounded": "Some of this rests on no passage; check it against the documents.",
}


@remote
async def ask(
    session: Session,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="In quotes, as one argument.")],
    collection: CollectionName = "default",
    top_k: TopKOfAnswer = None,
    mode: Mode = "hybrid",
    filter: Filter = None,  # noqa: A002 (the name of the option)
    fusion: Fusion = None,
    diversity: Diversity = None,
    per_document: PerDocument = None,
    rerank: Rerank = None,
    explain: Explain = False,
    why_not: WhyNot = None,
    style: Annotated[
        Literal["short", "detailed", "summary"], typer.Option("--style", help="How much the answer says.")
    ] = "short",
    conversation: Annotated[
        str | None,
        typer.Option(
            "--conversation", metavar="ID", help="Ask as the next question of this conversation; `new` begins one."
        ),
    ] = None,
    no_stream: Annotated[
        bool,
        typer.Option("--no-stream", help="Show nothing until the answer is whole, as it is done without a terminal."),
    ] = False,
) -> int:
    """Answer a question, with citations.

    The answer comes from the documents alone, and every citation quotes its passage literally. When nothing fits, the
    answer says so; that is no error. A terminal shows the words as they come; what was checked takes their place.
    """
    options = {"fusion": fusion, "diversity": diversity, "per_document": per_document, "rerank": rerank}
    fate = None if why_not is None else await explanation.document_id(session.client, why_not, collection)
    body = _body(collection, mode, filter, top_k=top_k, explain=explain or None, why_not=fate, **options)
    body |= {"question": question, "style": style} | _turn(conversation)
    if is_terminal() and not (no_stream or session.json):
        reply = await listen(session, body)
    else:
        reply = await session.client.call("POST", "/v1/query", body=body)
    session.show(reply, tell_answer)
    return 0


@remote
async def search(
    session: Session,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="In quotes, as one argument.")],
    collection: CollectionName = "default",
    top_k: TopK = 10,
    mode: Mode = "hybrid",
    filter: Filter = None,  # noqa: A002 (the name of the option)
    fusion: Fusion = None,
    diversity: Diversity = None,
    per_document: PerDocument = None,
    rerank: Rerank = None,
    explain: Explain = False,
    why_not: WhyNot = None,
) -> int:
    """Find the passages that fit, best first.

    No chat model is asked.
    """
    options = {"fusion": fusion, "diversity": diversity, "per_document": per_document, "rerank": rerank}
    fate = None if why_not is None else await explanation.document_id(session.client, why_not, collection)
    body = _body(collection, mode, filter, top_k=top_k, explain=explain or None, why_not=fate, **options)
    reply = await session.client.call("POST", "/v1/search", body=body | {"query": query})
    session.show(reply, _tell_hits)
    return 0


def _body(collection: str, mode: str, expressions: list[str] | None, **options: Any) -> dict[str, Any]:
    body = {"collection": collection, "mode": mode}
    chosen = {name: value for name, value in options.items() if value is not None}
    return body | chosen | ({"filters": filters(expressions)} if expressions else {})


def _turn(conversation: str | None) -> dict[str, Any]:
    if conversation is None:
        return {}
    return {"conversation": True} if conversation == "new" else {"conversation_id": conversation}


def tell_answer(reply: dict[str, Any]) -> None:
    """Print the answer, its citations, and how it came about."""
    if reply.get("rewritten_question"):
        print(wrapped(f"Searched for: {one_line(reply['rewritten_question'])}") + "\n")
    print(wrapped(reply["answer"]))
    for citation in reply["citations"]:
        print("\n" + wrapped(f"[{citation['n']}] {place(citation)}"))
        print(wrapped(f"“{one_line(citation['quote'])}”", indent="    "))
    if reply["degraded"] == "retrieval_only":
        print()
        _print_hits(reply["hits"][:3])
    elif reply["degraded"]:
        print("\n" + wrapped(_degraded(reply["degraded"])))
    _tell_explanation(reply)
    print("\n" + made_by(reply))
    if reply.get("conversation_id"):
        print(f"Go on with --conversation {one_line(reply['conversation_id'])}")


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
        _tell_explanation(reply)
        return
    _print_hits(reply["hits"])
    times = ", ".join(f"{one_line(step)} {milliseconds(value)}" for step, value in reply["timings_ms"].items())
    if reply.get("degraded"):
        print("\n" + wrapped(_degraded(reply["degraded"])))
    _tell_explanation(reply)
    print(f"\n{plural(len(reply['hits']), 'passage')} · {times}")


def _tell_explanation(reply: dict[str, Any]) -> None:
    if reply.get("explanation"):
        explanation.tell(reply["explanation"], reply["hits"])


def _degraded(code: str) -> str:
    return _DEGRADED.get(code, f"Degraded: {one_line(code)}.")


def _print_hits(hits: list[dict[str, Any]]) -> None:
    for number, hit in enumerate(hits, start=1):
        print(("\n" if number > 1 else "") + wrapped(f"{number}. {place(hit)} ({hit['score']:.3f})"))
        print(wrapped(safe(hit["content"]), indent="   "))
