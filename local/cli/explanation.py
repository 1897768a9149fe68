"""`--explain` and `--why-not` in words: where each passage stood after every stage, and where a document fell out."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from local.cli.failure import Failure
from local.cli.output import milliseconds, one_line, table, wrapped

if TYPE_CHECKING:
    from local.cli.client import Client

_LEGS = ("dense", "lexical", "fused")
_STAGES = ("capped", "diversified", "reranked")


async def document_id(client: Client, name: str, collection: str) -> str:
    """Return the id of a document named by it or by its key; Failure when the collection has no such key."""
    try:
        return str(uuid.UUID(name))
    except ValueError:
        async for document in client.documents(collection=collection, key=name, limit=1):
            return str(document["id"])
        hint = "`rag documents` lists what is there."
        raise Failure(f"There is no document {name} in the collection {collection}.", hint=hint) from None


def tell(explanation: dict[str, Any], hits: list[dict[str, Any]]) -> None:
    """Print one row for each hit, what each stage left, and the fate of the document that was asked about."""
    ran = [stage for stage in _STAGES if explanation["left"].get(stage) is not None]
    keys = {hit["chunk_id"]: hit["key"] for hit in hits}
    rows = [
        (
            place,
            *(_stood(path[leg]) for leg in _LEGS),
            *(_stood(path[stage]) if stage == "diversified" else _rank(path[stage]) for stage in ran),
            keys.get(path["chunk_id"], path["document_id"]),
        )
        for place, path in enumerate(explanation["hits"], start=1)
    ]
    print()
    table(("", *_LEGS, *ran, "key"), rows)
    left = ", ".join(f"{stage} {count}" for stage, count in explanation["left"].items())
    times = "".join(f", {stage} {milliseconds(value)}" for stage, value in explanation["timings_ms"].items())
    print("\n" + wrapped(f"Passages after each stage: {left}{times}."))
    if explanation["relevance"] is not None:
        needed = explanation["least_relevance"]
        print(wrapped(f"Relevance {explanation['relevance']:.3f}, of {needed:.3f} that an answer needs."))
    if explanation["why_not"]:
        _tell_fate(explanation["why_not"], explanation["last"])


def _tell_fate(fate: dict[str, Any], last: dict[str, float]) -> None:
    print("\n" + wrapped(f"{fate['document_id']}: {one_line(fate['stage'])}. {one_line(fate['detail'])}"))
    if fate["best"]:
        stood = [
            f"{leg} {_stood(fate['best'][leg])} (last {last.get(leg, 0):.3f})" for leg in _LEGS if fate["best"][leg]
        ]
        print(wrapped(f"Its best passage: {', '.join(stood)}.", indent="  "))


def _stood(place: dict[str, Any] | None) -> str:
    if place is None:
        return ""
    return _rank(place["rank"]) + ("" if place["score"] is None else f"  {place['score']:.3f}")


def _rank(rank: int | None) -> str:
    return "–" if rank is None else f"{rank}."
