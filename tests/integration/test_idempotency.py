"""Writes that name themselves, through the query function's handler."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.integration.deployment import Context, Deployment, Reply, sample


def send(deployment: Deployment, method: str, path: str, body: Any = None, *, key: str = "one", **more: Any) -> Reply:
    headers = sample("query/search.json")["headers"] | {"Idempotency-Key": key}
    return deployment.ask(method, path, body, headers=headers, multiValueHeaders={}, **more)


def rows(deployment: Deployment) -> list[tuple[Any, ...]]:
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        return connection.execute(
            "select principal, status, body, expires_at - now() from idempotent_requests"
        ).fetchall()


def change(deployment: Deployment, statement: str) -> None:
    with psycopg.connect(deployment.database.superuser_dsn(), autocommit=True) as connection:
        connection.execute(statement.encode())


def test_a_request_that_is_sent_again_is_answered_as_it_was_and_does_nothing(deployment: Deployment) -> None:
    deployment.put("one.txt", "A note about rivers.")
    path = f"/v1/documents/{deployment.documents()['one.txt']['id']}"
    first = send(deployment, "DELETE", path)
    deployment.erase(first.json)
    again = send(deployment, "DELETE", path)
    assert (first.status, again.status) == (202, 202)
    assert again.json == first.json
    assert (again.headers["idempotency-replayed"], "idempotency-replayed" in first.headers) == ("true", False)
    assert again.headers["content-type"] == first.headers["content-type"]
    assert send(deployment, "DELETE", path, key="two").status == 404


def test_the_name_of_another_request_is_refused(deployment: Deployment) -> None:
    assert send(deployment, "POST", "/v1/collections", {"name": "a"}).status == 201
    for method, path, body in (
        ("POST", "/v1/collections", {"name": "b"}),
        ("POST", "/v1/documents", {"name": "a"}),
        ("DELETE", "/v1/collections/a", None),
    ):
        reply = send(deployment, method, path, body)
        assert (reply.status, reply.headers["content-type"]) == (422, "application/problem+json")
        assert "Idempotency-Key" in reply.json["detail"]
    assert [one["name"] for one in deployment.ask("GET", "/v1/collections").json["collections"]] == ["a", "default"]


def test_a_request_that_is_under_way_is_not_carried_out_beside_itself(deployment: Deployment) -> None:
    assert send(deployment, "POST", "/v1/collections", {"name": "a"}).status == 201
    change(deployment, "update idempotent_requests set status = null, body = null")
    waiting = send(deployment, "POST", "/v1/collections", {"name": "a"})
    assert (waiting.status, waiting.headers["retry-after"]) == (409, "1")
    assert send(deployment, "POST", "/v1/collections", {"name": "b"}).status == 422


def test_a_run_that_was_killed_blocks_for_a_minute_at_most(deployment: Deployment) -> None:
    assert send(deployment, "POST", "/v1/collections", {"name": "a"}).status == 201
    change(deployment, "update idempotent_requests set status = null, leased_until = now()")
    again = send(deployment, "POST", "/v1/collections", {"name": "a"})
    assert (again.status, "idempotency-replayed" in again.headers) == (200, False)
    assert send(deployment, "POST", "/v1/collections", {"name": "a"}).headers["idempotency-replayed"] == "true"


def test_what_came_to_nothing_may_be_tried_again(deployment: Deployment) -> None:
    body = {"name": "a", "language": "klingon"}
    assert [send(deployment, "POST", "/v1/collections", body).status for _ in range(2)] == [422, 422]
    assert rows(deployment) == []
    assert send(deployment, "POST", "/v1/collections", {"name": "a"}).status == 201


def test_what_failed_inside_may_be_tried_again(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    from rag.store.catalog import Catalog

    def broken(*_: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "create_collection", broken)
        assert send(deployment, "POST", "/v1/collections", {"name": "a"}).status == 500
    assert send(deployment, "POST", "/v1/collections", {"name": "a"}).status == 201


def test_nobody_else_is_told_what_was_answered(deployment: Deployment) -> None:
    stranger, _ = deployment.tenants.create("second")
    assert send(deployment, "POST", "/v1/collections", {"name": "a"}).status == 201
    for more in ({"tenant": stranger}, {"principal": "key:another"}):
        reply = send(deployment, "POST", "/v1/collections", {"name": "a"}, **more)
        assert "idempotency-replayed" not in reply.headers
        assert reply.status in {200, 201}
    assert send(deployment, "POST", "/v1/collections", {"name": "a"}, anonymous=True).status == 401


def test_an_upload_s_form_is_repeated_as_long_as_it_is_valid(deployment: Deployment) -> None:
    first, again = (send(deployment, "POST", "/v1/documents", {"key": "one.txt"}).json for _ in range(2))
    assert first == again
    [(_, status, _, left)] = rows(deployment)
    assert status == 201
    assert 800 < left.total_seconds() <= 900


def test_a_question_has_no_effect_to_repeat(deployment: Deployment) -> None:
    replies = [send(deployment, "POST", "/v1/search", {"query": "rivers"}) for _ in range(2)]
    assert [reply.status for reply in replies] == [200, 200]
    assert rows(deployment) == []


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, '"half', "é", "a\tb"])
def test_a_name_that_is_none_is_refused(deployment: Deployment, key: str) -> None:
    assert send(deployment, "POST", "/v1/collections", {"name": "a"}, key=key).status == 400
    assert rows(deployment) == []


def test_a_name_in_quotation_marks_is_the_same_name(deployment: Deployment) -> None:
    assert send(deployment, "POST", "/v1/collections", {"name": "a"}, key='"one"').status == 201
    assert send(deployment, "POST", "/v1/collections", {"name": "a"}).headers["idempotency-replayed"] == "true"


def test_what_is_shown_only_once_is_kept_nowhere(deployment: Deployment) -> None:
    from rag import wiring
    from rag.types import Caller, KeptAnswer, RequestClaim

    caller = Caller(deployment.tenant, "key:aB3dE5gH", "admin")
    with deployment.function("rag_query"):
        store = wiring.idempotency_store()
        body = json.dumps({"name": "a"}, separators=(", ", ": ")).encode()
        claim = store.claim(caller, "one", b"\0".join([b"POST", b"/v1/collections", b"", body]))
        assert isinstance(claim, RequestClaim)
        store.settle(claim, KeptAnswer(201, "application/json", None))
    reply = send(deployment, "POST", "/v1/collections", {"name": "a"}, principal=caller.principal)
    assert (reply.status, "only once" in reply.json["detail"]) == (409, True)


def test_maintenance_forgets_what_is_kept_long_enough(deployment: Deployment) -> None:
    from functions.maintain.handler import handler

    stranger, _ = deployment.tenants.create("second")
    for more in ({}, {"tenant": stranger}, {"key": "two"}):
        assert send(deployment, "POST", "/v1/collections", {"name": "a"}, **more).status in {200, 201}
    change(deployment, "update idempotent_requests set expires_at = now() where key_hash = sha256('one')")
    with deployment.function("rag_owner"):
        handler(sample("maintain/schedule.json"), Context())
    assert len(rows(deployment)) == 1


def test_after_a_day_a_name_is_free_again(deployment: Deployment) -> None:
    assert send(deployment, "POST", "/v1/collections", {"name": "a"}).status == 201
    change(deployment, "update idempotent_requests set expires_at = now()")
    assert send(deployment, "POST", "/v1/collections", {"name": "b"}).status == 201
