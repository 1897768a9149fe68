"""The HTTP API through the query function's handler, on real services."""

from __future__ import annotations

import base64
import json
import time
import uuid
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from tests import fake_model
from tests.benchmarks.wire import Tap
from tests.integration.deployment import BUCKET, Context, Deployment, Reply, notification, sample

PASSAGE = "Refunds are paid within nine working days. Shipping takes three days."

DONE: dict[str, list[Any]] = {"batchItemFailures": []}


@pytest.fixture
def filled(deployment: Deployment) -> Deployment:
    deployment.model.says = "Refunds are paid within nine working days. [1]"
    deployment.put("policies/refunds.md", f"# Refund policy\n\n{PASSAGE}")
    return deployment


def test_an_answer_cites_the_document_heading_and_literal_words(filled: Deployment) -> None:
    reply = filled.ask("POST", "/v1/query", {"question": "How long do refunds take?"})
    assert reply.status == 200
    body = reply.json
    assert body["answer"] == "Refunds are paid within nine working days. [1]"
    [citation] = body["citations"]
    assert (citation["n"], citation["key"], citation["page"]) == (1, "policies/refunds.md", None)
    assert citation["heading"] == "Refund policy"
    assert citation["quote"] in PASSAGE
    assert 0 < citation["score"] <= 1
    assert set(body) == {
        *("question", "rewritten_question", "conversation_id", "answer", "citations", "hits", "model", "cached"),
        *("degraded", "explanation", "usage", "timings_ms", "request_id"),
    }
    assert (body["model"], body["cached"], body["degraded"]) == ("fake", False, None)
    assert body["usage"] == {"prompt_tokens": 10, "completion_tokens": 5}
    assert body["request_id"] == sample("query/ask.json")["requestContext"]["requestId"]


def test_the_same_question_costs_one_model_call_until_a_passage_changes(filled: Deployment) -> None:
    ask: dict[str, Any] = {"question": "How long do refunds take?"}
    assert [filled.ask("POST", "/v1/query", ask).json["cached"] for _ in range(3)] == [False, True, True]
    filled.put("policies/refunds.md", "# Refund policy\n\nRefunds are paid within two working days.")
    filled.model.says = "Refunds are paid within two working days. [1]"
    fresh = filled.ask("POST", "/v1/query", ask).json
    assert (fresh["cached"], fresh["answer"]) == (False, "Refunds are paid within two working days. [1]")
    chats = [request for request in filled.model.requests if "messages" in request]
    assert len(chats) == 2


def test_a_citation_of_what_was_not_shown_is_dropped_and_said(filled: Deployment) -> None:
    filled.model.says = "Refunds are paid within nine working days. [7] The moon is made of cheese. [1]"
    body = filled.ask("POST", "/v1/query", {"question": "How long do refunds take?"}).json
    assert (body["citations"], body["degraded"]) == ([], "ungrounded")
    assert "[" not in body["answer"]


def test_a_question_that_nothing_fits_is_not_answered_and_costs_no_model_call(filled: Deployment) -> None:
    with filled.function("rag_query", min_score="0.99"):
        from functions.query.handler import handler

        event = sample("query/ask.json") | {"body": json.dumps({"question": "Who won the 1904 olympics?"})}
        event["requestContext"]["authorizer"]["tenant_id"] = str(filled.tenant)
        body = json.loads(handler(event, Context())["body"])
    assert body["citations"] == []
    assert body["model"] is None
    assert body["answer"] == "The documents do not answer this question."
    assert not [request for request in filled.model.requests if "messages" in request]


def test_when_the_chat_model_is_down_passages_come_without_an_answer(filled: Deployment) -> None:
    filled.model.script = [lambda h, _: fake_model.send_json(h, fake_model.embeddings([fake_model.unit("x", 4)]))]
    filled.model.script += [fake_model.status(400)]
    body = filled.ask("POST", "/v1/query", {"question": "How long do refunds take?"}).json
    assert (body["degraded"], body["citations"], body["model"]) == ("retrieval_only", [], None)
    assert [hit["key"] for hit in body["hits"]] == ["policies/refunds.md"]


def test_when_questions_cannot_be_embedded_words_still_find(filled: Deployment) -> None:
    filled.model.script = [fake_model.status(400)]
    body = filled.ask("POST", "/v1/search", {"query": "refunds"}).json
    assert (body["degraded"], [hit["key"] for hit in body["hits"]]) == ("lexical_only", ["policies/refunds.md"])
    filled.model.script = [fake_model.status(400)]
    assert filled.ask("POST", "/v1/search", {"query": "shipping", "mode": "dense"}).status == 503


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_a_search_returns_hits_of_the_documented_shape(filled: Deployment, mode: str) -> None:
    reply = filled.ask("POST", "/v1/search", {"query": "refunds", "mode": mode, "top_k": 1})
    [hit] = reply.json["hits"]
    assert set(hit) == {
        *("chunk_id", "document_id", "collection", "key", "title", "page", "heading", "content", "score")
    }
    assert PASSAGE in hit["content"]


def test_filters_choose_documents(filled: Deployment) -> None:
    filled.put("other/refunds.txt", "Refunds of another kind.")

    def keys(filters: Any) -> set[str]:
        body = {"query": "refunds", "filters": filters}
        return {hit["key"] for hit in filled.ask("POST", "/v1/search", body).json["hits"]}

    identity = filled.documents()["other/refunds.txt"]["id"]
    assert keys({"key": {"prefix": "policies/"}}) == {"policies/refunds.md"}
    assert keys({"key": "other/refunds.txt"}) == {"other/refunds.txt"}
    assert keys({"document_id": identity}) == {"other/refunds.txt"}
    assert keys({"document_id": {"any": [str(uuid.uuid4())]}}) == set()
    assert keys({"media_type": "text/plain"}) == {"other/refunds.txt"}


def test_a_filter_that_does_not_fit_is_named_by_field_and_operator(filled: Deployment) -> None:
    body = {"query": "refunds", "filters": {"year": {"gte": True}}}
    reply = filled.ask("POST", "/v1/search", body)
    [error] = reply.json["errors"]
    assert (reply.status, error["path"]) == (422, "body.filters.year.gte")
    assert error["message"] == "must be a number or a string"


def upload(deployment: Deployment, key: str, content: bytes, **request: Any) -> dict[str, Any]:
    """Upload by the form that the API returns, and have the object's message delivered."""
    created: dict[str, Any] = deployment.ask("POST", "/v1/documents", {"key": key, **request}).json
    with httpx.Client(timeout=60) as client:
        sent = client.post(created["upload"]["url"], data=created["upload"]["fields"], files={"file": content})
    assert sent.status_code == 204, sent.text
    deployment.ingest(notification(created["upload"]["fields"]["key"]))
    return created


def test_metadata_comes_with_the_upload_or_beside_it_and_is_filtered_by(deployment: Deployment) -> None:
    given = {"year": 2024, "open": True, "tags": ["a", "é"], "who": 'says "no", twice'}
    created = upload(deployment, "one.txt", b"A note about rivers.", metadata=given)
    upload(deployment, "two.txt", b"A note about lakes.")
    document = deployment.documents()["one.txt"]
    assert (document["metadata"], document["metadata_error"]) == (given, None)

    def found(filters: Any) -> set[str]:
        reply = deployment.ask("POST", "/v1/search", {"query": "note", "filters": filters})
        return {hit["key"] for hit in reply.json["hits"]}

    assert found({"year": {"gte": 2020}, "tags": {"any": ["é", "x"]}, "key": {"prefix": "one"}}) == {"one.txt"}
    assert found({"year": {"not": {"gte": 2020}}}) == {"two.txt"}
    beside = upload(deployment, "one.txt.metadata.json", b'{"year": 1999}')
    assert beside["id"] == created["id"]
    assert deployment.documents()["one.txt"]["metadata"] == {"year": 1999}
    assert found({"year": 1999}) == {"one.txt"}
    assert set(deployment.documents()) == {"one.txt", "two.txt"}


def test_metadata_that_an_upload_does_not_carry_is_pointed_to_the_sidecar(deployment: Deployment) -> None:
    given = {"key": "one.txt", "metadata": {"a": "x" * 999, "b": "y" * 999, "c": "z" * 99}}
    reply = deployment.ask("POST", "/v1/documents", given)
    assert (reply.status, "<key>.metadata.json" in reply.json["detail"]) == (422, True)


def test_what_was_signed_with_an_upload_is_what_it_carries(deployment: Deployment) -> None:
    for given in ({}, {"metadata": {"year": 2024}}):
        form = deployment.ask("POST", "/v1/documents", {"key": "one.txt", **given}).json["upload"]
        forged = {**form["fields"], "x-amz-meta-rag-metadata": '{"year": 1}'}
        with httpx.Client(timeout=60) as client:
            assert client.post(form["url"], data=forged, files={"file": b"x"}).status_code == 403


def test_a_sidecar_goes_with_its_document(deployment: Deployment) -> None:
    created = upload(deployment, "one.txt", b"A note about rivers.")
    upload(deployment, "one.txt.metadata.json", b'{"year": 1999}')
    assert deployment.erase(deployment.ask("DELETE", f"/v1/documents/{created['id']}").json) == DONE
    left = deployment.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{deployment.tenant}/")
    assert left["KeyCount"] == 0


def test_an_upload_into_a_collection_that_is_there_asks_for_it_and_leaves_its_row_and_no_more(
    deployment: Deployment,
) -> None:
    url = urlsplit(deployment.database.dsn("rag_query"))
    with Tap(url.port or 0) as tap:
        through = url._replace(netloc=url.netloc.replace(f":{url.port}", f":{tap.port}")).geturl()
        with deployment.function("rag_query", database_url=through):
            for round_trips in (None, 2):
                before = tap.round_trips
                sent = {"key": "one.txt", "collection": "team"}
                assert deployment.ask("POST", "/v1/documents", sent, database_url=through).status == 201
                assert round_trips in (None, tap.round_trips - before)
    collections = deployment.ask("GET", "/v1/collections").json["collections"]
    assert "team" in [each["name"] for each in collections]


def test_the_life_of_a_document(deployment: Deployment) -> None:
    created = deployment.ask("POST", "/v1/documents", {"key": "notes/one.txt", "collection": "team"}).json
    upload = created["upload"]
    with httpx.Client(timeout=60) as client:
        sent = client.post(upload["url"], data=upload["fields"], files={"file": b"A note about rivers."})
    assert sent.status_code == 204
    path = f"/v1/documents/{created['id']}"
    assert deployment.ask("GET", path).status == 404
    deployment.ingest(notification(upload["fields"]["key"]))
    deployment.put("empty.txt", "", collection="team")
    ready = deployment.ask("GET", path).json
    assert (ready["status"], ready["error"], ready["chunk_count"], ready["collection"]) == ("ready", None, 1, "team")
    assert ready["version_id"] == sent.headers["x-amz-version-id"]
    [team] = [c for c in deployment.ask("GET", "/v1/collections").json["collections"] if c["name"] == "team"]
    assert (team["document_count"], team["chunk_count"]) == (1, 1)
    waits = {"uploaded": 0, "processing": 0, "failed": 1, "passages_read": 0, "passages_embedded": 0}
    assert team["ingesting"] == waits
    assert deployment.erase(deployment.ask("DELETE", path).json) == DONE
    deployment.ingest(notification(upload["fields"]["key"], event="ObjectRemoved:DeleteMarkerCreated"))
    assert deployment.ask("GET", path).status == 404
    assert deployment.ask("DELETE", path).status == 404


def test_an_upload_of_another_key_or_of_too_much_is_refused(deployment: Deployment) -> None:
    upload = deployment.ask("POST", "/v1/documents", {"key": "mine.txt"}).json["upload"]
    stolen = {**upload["fields"], "key": f"{uuid.uuid4()}/default/theirs.txt"}
    with httpx.Client(timeout=60) as client:
        assert client.post(upload["url"], data=stolen, files={"file": b"x"}).status_code == 403
    listed = deployment.aws.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=stolen["key"])
    assert listed["KeyCount"] == 0
    assert deployment.ask("POST", "/v1/documents", {"key": "mine.txt", "size": 10**9}).status == 413


def test_documents_are_listed_in_pages(deployment: Deployment) -> None:
    for number in range(5):
        deployment.put(f"{number}.txt", f"text number {number}")
    seen, cursor = [], None
    while True:
        query = {"limit": "2", **({"cursor": cursor} if cursor else {})}
        multi = {name: [value] for name, value in query.items()}
        event = {"queryStringParameters": query, "multiValueQueryStringParameters": multi}
        page = deployment.ask("GET", "/v1/documents", **event).json
        seen += [document["key"] for document in page["documents"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [f"{number}.txt" for number in range(5)]


def test_a_collection_is_made_once_and_keeps_its_language(deployment: Deployment) -> None:
    made = [deployment.ask("POST", "/v1/collections", {"name": "notes", "language": "spanish"}) for _ in range(2)]
    assert [reply.status for reply in made] == [201, 200]
    deployment.put("a.txt", "Una nota.", collection="notes")
    again = deployment.ask("POST", "/v1/collections", {"name": "notes", "language": "spanish"}).json
    assert (again["document_count"], again["created_at"]) == (1, made[0].json["created_at"])
    assert deployment.ask("POST", "/v1/collections", {"name": "notes", "language": "german"}).status == 409


ROUTES: list[tuple[str, str, Any]] = [
    ("POST", "/v1/query", {"question": "refunds"}),
    ("POST", "/v1/search", {"query": "refunds"}),
    ("GET", "/v1/documents", None),
    ("GET", "/v1/collections", None),
]


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
def test_another_tenant_finds_nothing_by_any_route(filled: Deployment, method: str, path: str, body: Any) -> None:
    stranger, _ = filled.tenants.create("second")
    reply = filled.ask(method, path, body, tenant=stranger)
    assert reply.status == 200
    for secret in ("refunds.md", "nine working days"):
        assert secret not in reply.raw["body"]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_foreign_document_and_an_absent_one_answer_alike(filled: Deployment, method: str) -> None:
    stranger, _ = filled.tenants.create("second")
    foreign = filled.documents()["policies/refunds.md"]["id"]
    absent = str(uuid.uuid4())
    replies = [filled.ask(method, f"/v1/documents/{i}", tenant=stranger) for i in (foreign, absent)]
    bodies = [reply.raw["body"].replace(i, "ID") for reply, i in zip(replies, (foreign, absent), strict=True)]
    assert [reply.status for reply in replies] == [404, 404]
    assert bodies[0] == bodies[1]
    assert filled.documents()["policies/refunds.md"]["status"] == "ready"


def test_a_reader_may_ask_and_not_write(filled: Deployment) -> None:
    identity = filled.documents()["policies/refunds.md"]["id"]
    assert filled.ask("POST", "/v1/search", {"query": "refunds"}, role="reader").status == 200
    assert filled.ask("POST", "/v1/documents", {"key": "x.txt"}, role="reader").status == 403
    assert filled.ask("DELETE", f"/v1/documents/{identity}", role="reader").status == 403
    assert filled.ask("POST", "/v1/collections", {"name": "x"}, role="reader").status == 403


def test_without_the_authorizers_word_nobody_is_let_in(filled: Deployment) -> None:
    reply = filled.ask("POST", "/v1/search", {"query": "refunds"}, anonymous=True)
    assert (reply.status, reply.headers["content-type"]) == (401, "application/problem+json")


BAD: list[tuple[str, str, Any, int]] = [
    ("POST", "/v1/search", {}, 422),
    ("POST", "/v1/search", {"query": "   "}, 422),
    ("POST", "/v1/search", {"query": "x", "top_k": 0}, 422),
    ("POST", "/v1/search", {"query": "x", "top_k": 10**9}, 422),
    ("POST", "/v1/search", {"query": "x", "mode": "magic"}, 422),
    ("POST", "/v1/search", {"query": "x", "filters": {"no name": 1}}, 422),
    ("POST", "/v1/search", {"query": "x", "filters": {"year": {"between": [1, 2]}}}, 422),
    ("POST", "/v1/search", {"query": "x", "filters": []}, 422),
    ("POST", "/v1/search", {"query": "x", "filters": {"\ud800": 1}}, 422),
    ("POST", "/v1/search", {"query": "x", "filters": {"year": {"\ud800": 1}}}, 422),
    ("POST", "/v1/documents", {"key": "a.txt", "metadata": {"a": None}}, 422),
    ("POST", "/v1/documents", {"key": "a.txt", "metadata": {"a": "x" * 900, "b": "\u00e9" * 900}}, 422),
    ("POST", "/v1/documents", {"key": "a.txt.metadata.json", "metadata": {}}, 422),
    ("POST", "/v1/documents", {"key": "a/.metadata.json"}, 422),
    ("POST", "/v1/search", {"query": "x", "filters": {"key": "a\0b"}}, 422),
    ("POST", "/v1/search", {"query": "\ud800"}, 422),
    ("POST", "/v1/search", {"query": "x\0y"}, 422),
    ("POST", "/v1/search", {"query": "x" * 5000}, 422),
    ("POST", "/v1/search", {"query": "x", "collection": "absent"}, 404),
    ("POST", "/v1/search", {"query": "x", "collection": "Bad Name"}, 422),
    ("POST", "/v1/search", {"query": ["x"]}, 422),
    ("POST", "/v1/search", {"query": "x", "surprise": True}, 422),
    ("POST", "/v1/search", [], 422),
    ("POST", "/v1/query", {"question": None}, 422),
    ("POST", "/v1/documents", {"key": "../up.txt"}, 422),
    ("POST", "/v1/documents", {"key": "/rooted.txt"}, 422),
    ("POST", "/v1/documents", {"key": "folder/"}, 422),
    ("POST", "/v1/documents", {"key": "all/${filename}"}, 422),
    ("POST", "/v1/documents", {"key": "a\nb"}, 422),
    ("POST", "/v1/documents", {"key": "x" * 901}, 422),
    ("POST", "/v1/documents", {"key": "ok.txt", "size": -1}, 422),
    ("POST", "/v1/collections", {"name": "x", "language": "klingon"}, 422),
    ("GET", "/v1/documents/not-a-uuid", None, 422),
    ("GET", "/v1/nothing", None, 404),
    ("GET", "/v1/documents/", None, 404),
    ("PUT", "/v1/search", {}, 405),
]


@pytest.mark.parametrize(("method", "path", "body", "status"), BAD)
def test_bad_input_is_a_problem_that_says_what_is_wrong(
    deployment: Deployment, method: str, path: str, body: Any, status: int
) -> None:
    reply = deployment.ask(method, path, body)
    assert reply.status == status
    assert reply.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail", "request_id"} <= set(reply.json)
    assert reply.json["detail"]


@pytest.mark.parametrize("body", ["{", "", "nonsense", '{"query": NaN}', "[" * 20_000])
def test_a_body_that_is_not_json_is_refused(deployment: Deployment, body: str) -> None:
    reply = deployment.ask("POST", "/v1/search", body=None, raw=body)
    assert reply.status in {400, 422}


def test_an_answer_that_lambda_would_not_pass_on_is_asked_for_in_smaller_pieces(deployment: Deployment) -> None:
    deployment.put("note.md", "A note.")
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        connection.execute(
            "insert into documents (tenant_id, id, collection_id, key, status, error_code, metadata) "
            "select tenant_id, gen_random_uuid(), collection_id, 'described-' || number, 'failed', 'EMPTY', "
            "jsonb_build_object('words', repeat('word ', 3000)) from documents, generate_series(1, 400) as number"
        )

    def page(limit: int) -> Reply:
        event = {
            "queryStringParameters": {"limit": f"{limit}"},
            "multiValueQueryStringParameters": {"limit": [f"{limit}"]},
        }
        return deployment.ask("GET", "/v1/documents", **event)

    whole, part = page(1000), page(200)
    assert (whole.status, whole.headers["content-type"]) == (400, "application/problem+json")
    assert whole.json["detail"].endswith("ask for fewer at once")
    assert (part.status, len(part.json["documents"])) == (200, 200)


CURSORS = ["null", "[1,2]", '["a", "\\u0000"]', '["a", "\\ud800"]', '["a"]', "[" * 20_000]


@pytest.mark.parametrize("cursor", ["nonsense", "é", *(base64.urlsafe_b64encode(c.encode()).decode() for c in CURSORS)])
def test_a_cursor_that_was_not_given_is_refused(deployment: Deployment, cursor: str) -> None:
    event = {"queryStringParameters": {"cursor": cursor}, "multiValueQueryStringParameters": {"cursor": [cursor]}}
    assert deployment.ask("GET", "/v1/documents", **event).status == 400


def test_an_unforeseen_error_tells_nothing_of_the_inside(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rag import searching

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("SELECT secret FROM /var/task/store.py")

    monkeypatch.setattr(searching, "search", broken)
    reply = deployment.ask("POST", "/v1/search", {"query": "x"})
    assert reply.status == 500
    assert "SELECT" not in reply.raw["body"]
    assert "/var" not in reply.raw["body"]


def test_health_names_what_is_down(deployment: Deployment) -> None:
    tries = (deployment.ask("GET", "/health", anonymous=True) for _ in range(4))  # the model may be kept waiting
    healthy = next((one for one in tries if one.json["status"] == "ok"), None)
    assert healthy is not None
    assert (healthy.status, healthy.json["status"]) == (200, "ok")
    assert healthy.json["checks"] == {"database": "ok", "cache": "ok", "model": "ok"}
    deployment.settings["RAG_REDIS_URL"] = "redis://127.0.0.1:1/0"
    limping = deployment.ask("GET", "/ready", anonymous=True)
    assert (limping.status, limping.json["checks"]["cache"]) == (200, "down")
    assert limping.json["status"] == "degraded"


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_a_probe_may_ask_by_head(deployment: Deployment, path: str) -> None:
    reply = deployment.ask("HEAD", path, anonymous=True)
    assert (reply.status, reply.raw["body"]) == (200, "")
    dead = deployment.database.dsn("rag_query").replace(str(deployment.database.server.port), "1")
    assert deployment.ask("HEAD", path, anonymous=True, database_url=dead).status == 503


def test_a_cache_that_is_away_changes_no_answer(filled: Deployment) -> None:
    ask = {"question": "How long do refunds take?"}
    warm = filled.ask("POST", "/v1/query", ask).json
    filled.settings["RAG_REDIS_URL"] = "redis://127.0.0.1:1/0"
    cold = filled.ask("POST", "/v1/query", ask).json
    assert (cold["answer"], cold["citations"]) == (warm["answer"], warm["citations"])


def test_a_request_ends_at_its_deadline_with_what_was_found(filled: Deployment) -> None:
    filled.settings["RAG_REQUEST_SECONDS"] = "5"
    filled.ask("POST", "/v1/search", {"query": "How long do refunds take?"})
    filled.model.script = [fake_model.drip(60)]
    started = time.monotonic()
    body = filled.ask("POST", "/v1/query", {"question": "How long do refunds take?"}).json
    assert time.monotonic() - started < 40
    assert body["degraded"] == "retrieval_only"


def test_the_reference_page_shows_every_route_and_loads_nothing(deployment: Deployment) -> None:
    page = deployment.ask("GET", "/docs", anonymous=True)
    assert page.headers["content-type"].startswith("text/html")
    paths = deployment.ask("GET", "/openapi.json", anonymous=True).json["paths"]
    assert {"/v1/query", "/v1/search", "/v1/documents", "/v1/collections", "/health"} <= set(paths)
    for path in paths:
        assert path in page.raw["body"]
    assert "src=" not in page.raw["body"]
    assert "http" not in page.raw["body"].replace("http-equiv", "")


def test_every_route_is_documented(deployment: Deployment) -> None:
    from pathlib import Path

    text = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text()
    for path, methods in deployment.ask("GET", "/openapi.json", anonymous=True).json["paths"].items():
        for method in methods:
            assert f"`{method.upper()} {path}`" in text
