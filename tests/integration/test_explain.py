"""Stages of ranking and what is told of them, through the query function's handler."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest

from tests.integration.deployment import BUCKET, Deployment, notification

QUERY = {"query": "refunds for parcels"}


@pytest.fixture
def filled(deployment: Deployment) -> Deployment:
    for number, text in enumerate(["Refunds for parcels.", "Parcels and letters.", "Nothing of the kind."]):
        deployment.put(f"{number}.txt", text)
    deployment.put("elsewhere.txt", "Refunds for parcels.", collection="other")
    return deployment


def search(deployment: Deployment, **body: Any) -> Any:
    reply = deployment.ask("POST", "/v1/search", QUERY | body)
    assert reply.status == 200, reply.json
    return reply.json


def test_nothing_is_explained_unless_it_is_asked_for(filled: Deployment) -> None:
    assert search(filled)["explanation"] is None


def test_each_hit_tells_its_rank_and_score_in_each_leg_and_after_each_stage(filled: Deployment) -> None:
    found = search(filled, explain=True, diversity=0.3, per_document=1, top_k=2)
    told = found["explanation"]
    assert (told["mode"], told["fusion"], told["why_not"]) == ("hybrid", "weighted", None)
    assert told["left"] == {
        "dense": 3,
        "lexical": 2,
        "fused": 3,
        "distinct": 3,
        "capped": 3,
        "diversified": 2,
        "returned": 2,
    }
    assert [path["chunk_id"] for path in told["hits"]] == [hit["chunk_id"] for hit in found["hits"]]
    assert [path["returned"] for path in told["hits"]] == [1, 2]
    assert [path["fused"]["score"] for path in told["hits"]] == [hit["score"] for hit in found["hits"]]
    best, other = told["hits"]
    assert best["diversified"]["rank"] == 1
    assert best["diversified"]["score"] == pytest.approx(0.7 * best["fused"]["score"], abs=1e-5)
    assert other["diversified"]["rank"] == 2
    assert other["diversified"]["score"] <= 0.7 * other["fused"]["score"] + 1e-5
    assert best["lexical"]["rank"] == 1
    assert best["lexical"]["score"] > 0
    assert best["dense"]["rank"] in {1, 2, 3}
    assert best["reranked"] is None
    assert set(told["timings_ms"]) == {"fuse", "diversify"}


def test_a_leg_that_was_not_asked_has_no_places(filled: Deployment) -> None:
    told = search(filled, explain=True, mode="lexical")["explanation"]
    assert {path["dense"] for path in told["hits"]} == {None}


@pytest.mark.parametrize(
    ("body", "document", "stage"),
    [
        ({}, "0.txt", "none"),
        ({"top_k": 1}, "2.txt", "fusion"),
        ({"top_k": 1, "diversity": 1}, "2.txt", "diversity"),
        ({"mode": "lexical"}, "2.txt", "candidates"),
        ({"filters": {"key": "0.txt"}}, "2.txt", "filters"),
        ({}, "elsewhere.txt", "other_collection"),
        ({}, "", "not_found"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_stage_at_which_a_document_fell_out_is_told(
    filled: Deployment, body: dict[str, Any], document: str, stage: str
) -> None:
    asked = filled.documents()[document]["id"] if document else str(uuid.uuid4())
    fate = search(filled, why_not=asked, **body)["explanation"]["why_not"]
    assert (fate["document_id"], fate["stage"]) == (asked, stage)
    assert fate["detail"]


def test_the_very_words_of_a_better_passage_stand_behind_all_others(filled: Deployment) -> None:
    for name in ("copy.txt", "again.txt"):
        filled.put(name, "Refunds for parcels.")
    keys = [hit["key"] for hit in search(filled)["hits"]]
    assert len(keys) == 5
    same = {"0.txt", "copy.txt", "again.txt"}
    assert keys[0] in same
    assert keys[1:3] == ["1.txt", "2.txt"]
    hidden = filled.documents()[(same - {keys[0]}).pop()]["id"]
    assert search(filled, why_not=hidden, top_k=3)["explanation"]["why_not"]["stage"] == "repeat"


def test_a_document_without_passages_says_why(filled: Deployment) -> None:
    filled.put("empty.txt", b"")
    asked = filled.documents()["empty.txt"]["id"]
    fate = search(filled, why_not=asked)["explanation"]["why_not"]
    assert (fate["stage"], fate["status"], fate["error_code"], fate["best"]) == ("not_ready", "failed", "EMPTY", None)


def test_a_foreign_document_is_explained_as_an_absent_one(filled: Deployment) -> None:
    stranger, _ = filled.tenants.create("second")
    filled.put("secret.txt", "Refunds for parcels.", tenant=stranger)
    theirs = filled.ask("GET", "/v1/documents", tenant=stranger).json["documents"][0]["id"]
    fates = [search(filled, why_not=asked)["explanation"]["why_not"] for asked in (theirs, str(uuid.uuid4()))]
    assert [fate | {"document_id": ""} for fate in fates] == [fates[0] | {"document_id": ""}] * 2


@pytest.mark.parametrize("kept", [4, 14])
def test_the_reranker_sees_the_candidates_and_an_answer_rests_on_what_is_kept_of_them(
    deployment: Deployment, kept: int
) -> None:
    keys = [f"{deployment.tenant}/default/{number}.txt" for number in range(24)]
    for number, key in enumerate(keys):
        deployment.s3.put_object(Bucket=BUCKET, Key=key, Body=f"Refunds for parcels of kind {number}.")
    assert deployment.ingest(notification(*keys)) == {"batchItemFailures": []}
    deployment.settings |= {"RAG_RERANK": "llm", "RAG_TOP_K": "22", "RAG_RERANK_TOP_K": str(kept)}
    deployment.model.says = "[22] > [1]"

    def ask(**body: Any) -> tuple[list[int], list[str]]:
        """How many passages each call to the chat model showed, and the texts of the hits."""
        before = len(deployment.model.requests)
        reply = deployment.ask("POST", "/v1/query", {"question": QUERY["query"], **body})
        assert reply.status == 200, reply.json
        chats = [request["messages"] for request in deployment.model.requests[before:] if "messages" in request]
        shown = [len(re.findall(r'^{"n": ', messages[-1]["content"], re.MULTILINE)) for messages in chats]
        return shown, [hit["content"] for hit in reply.json["hits"]]

    in_order = [hit["content"] for hit in search(deployment, rerank="none", top_k=22)["hits"]]
    shown, hits = ask()
    assert shown == [22, kept]
    assert hits == [in_order[21], *in_order[: kept - 1]]
    shown, hits = ask(top_k=2)
    assert (shown[-1], hits) == (2, [in_order[21], in_order[0]])
    shown, hits = ask(style="summary")
    assert (shown[-1], len(hits)) == (20, 20)


def test_what_was_found_and_not_cited_is_told_of_an_answer(filled: Deployment) -> None:
    filled.model.says = "Refunds for parcels. [1]"
    documents = filled.documents()

    def fate(key: str, **body: Any) -> Any:
        asked = {"question": QUERY["query"], "why_not": documents[key]["id"], **body}
        return filled.ask("POST", "/v1/query", asked).json["explanation"]

    told = fate("0.txt")
    assert told["why_not"]["stage"] == "none"
    assert told["relevance"] >= told["least_relevance"]
    assert told["shown"] == 3
    assert fate("1.txt")["why_not"]["stage"] == "citation"
    nothing = filled.ask("POST", "/v1/query", {"question": "zebra?", "mode": "lexical", "explain": True}).json
    assert nothing["explanation"]["hits"] == []


def test_the_chat_model_puts_passages_in_order_where_it_is_asked_to(filled: Deployment) -> None:
    plain = [hit["key"] for hit in search(filled)["hits"]]
    filled.model.says = "[3] > [1] > [2]"
    found = search(filled, rerank="llm", explain=True)
    assert [hit["key"] for hit in found["hits"]] == [plain[2], plain[0], plain[1]]
    assert [path["reranked"] for path in found["explanation"]["hits"]] == [1, 2, 3]
    assert found["degraded"] is None
    assert "rerank" in found["timings_ms"]


def test_a_reranker_that_gives_no_order_leaves_the_search_s_own(filled: Deployment) -> None:
    plain = [hit["key"] for hit in search(filled)["hits"]]
    filled.model.says = "I would rather not."
    found = search(filled, rerank="llm")
    assert [hit["key"] for hit in found["hits"]] == plain
    assert found["degraded"] == "not_reranked"


def test_a_document_gives_no_more_passages_than_it_may(filled: Deployment) -> None:
    filled.put("long.txt", "Refunds for parcels are slow. " * 200)
    keys = [hit["key"] for hit in search(filled, per_document=2)["hits"]]
    assert keys.count("long.txt") == 2
    assert [hit["key"] for hit in search(filled)["hits"]].count("long.txt") > 2


@pytest.mark.parametrize(("style", "most_tokens"), [("short", 300), ("detailed", 500), ("summary", 500)])
def test_a_style_is_a_rule_for_the_model_and_a_cap(filled: Deployment, style: str, most_tokens: int) -> None:
    filled.ask("POST", "/v1/query", {"question": QUERY["query"], "style": style})
    [asked] = [request for request in filled.model.requests if "messages" in request]
    assert asked["max_tokens"] == most_tokens


@pytest.mark.parametrize(
    "body",
    [
        {"fusion": "best"},
        {"diversity": 1.5},
        {"per_document": 0},
        {"rerank": "yes"},
        {"why_not": "0.txt"},
        {"style": "short"},
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(filled: Deployment, body: dict[str, Any]) -> None:
    reply = filled.ask("POST", "/v1/search", QUERY | body)
    assert (reply.status, reply.json["errors"][0]["path"]) == (422, f"body.{next(iter(body))}")
