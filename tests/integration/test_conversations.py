"""Conversations through the query function's handler: kept for whoever has them, and for nobody else."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

import psycopg
import pytest

from tests import fake_model
from tests.integration.deployment import Deployment

ANSWER = "Refunds are paid within nine working days. [1]"


@pytest.fixture
def filled(deployment: Deployment) -> Deployment:
    deployment.model.says = ANSWER
    deployment.put("policies/refunds.md", "# Refund policy\n\nRefunds are paid within nine working days.")
    return deployment


def says(text: str) -> fake_model.Reply:
    def reply(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
        fake_model.send_json(handler, fake_model.chat(text))

    return reply


def begin(deployment: Deployment, **event: Any) -> str:
    body = {"question": "How long do refunds take?", "conversation": True}
    answer = deployment.ask("POST", "/v1/query", body, **event).json
    assert answer["rewritten_question"] is None
    identity: str = answer["conversation_id"]
    return identity


def go_on(deployment: Deployment, conversation: str, question: str = "And in Spain?", **event: Any) -> Any:
    body = {"question": question, "conversation_id": conversation}
    return deployment.ask("POST", "/v1/query", body, **event)


def test_a_follow_up_is_answered_in_its_standalone_form_and_kept_as_it_was_put(filled: Deployment) -> None:
    conversation = begin(filled)
    filled.model.script = [says("How long do refunds take in Spain?")]
    answer = go_on(filled, conversation).json
    assert answer["question"] == "And in Spain?"
    assert answer["rewritten_question"] == "How long do refunds take in Spain?"
    assert answer["conversation_id"] == conversation
    embedded = [request["input"] for request in filled.model.requests if "input" in request]
    assert embedded[-1] == ["How long do refunds take in Spain?"]
    kept = filled.ask("GET", f"/v1/conversations/{conversation}").json
    assert [(message["role"], message["content"]) for message in kept["messages"]] == [
        ("user", "How long do refunds take?"),
        ("assistant", ANSWER),
        ("user", "And in Spain?"),
        ("assistant", ANSWER),
    ]
    assert (kept["title"], kept["message_count"]) == ("How long do refunds take?", 4)


def test_a_question_outside_a_conversation_leaves_nothing_behind(filled: Deployment) -> None:
    filled.ask("POST", "/v1/query", {"question": "How long do refunds take?"})
    assert filled.ask("GET", "/v1/conversations").json == {"conversations": []}


def test_the_conversation_used_last_stands_first(filled: Deployment) -> None:
    first, second = begin(filled), begin(filled)
    go_on(filled, first)
    listed = filled.ask("GET", "/v1/conversations").json["conversations"]
    assert [conversation["id"] for conversation in listed] == [first, second]


def test_absent_foreign_and_another_key_s_conversations_are_answered_alike(filled: Deployment) -> None:
    conversation = begin(filled)
    stranger, _ = filled.tenants.create("second")
    elsewhere: list[dict[str, Any]] = [{"tenant": stranger}, {"principal": "key:other000"}]
    for event in elsewhere:
        assert filled.ask("GET", "/v1/conversations", **event).json == {"conversations": []}
    asked = len(filled.model.requests)
    replies = [
        (filled.ask("GET", path, **event), filled.ask("DELETE", path, **event), go_on(filled, identity, **event))
        for identity, event in [(str(uuid.uuid4()), {}), *((conversation, event) for event in elsewhere)]
        for path in [f"/v1/conversations/{identity}"]
    ]
    assert {reply.status for each in replies for reply in each} == {404}
    assert len(filled.model.requests) == asked
    assert filled.ask("GET", f"/v1/conversations/{conversation}").json["message_count"] == 2


def test_a_deleted_conversation_is_gone_with_its_messages(filled: Deployment) -> None:
    conversation = begin(filled)
    assert filled.ask("DELETE", f"/v1/conversations/{conversation}").status == 204
    assert filled.ask("DELETE", f"/v1/conversations/{conversation}").status == 404
    assert go_on(filled, conversation).status == 404
    with psycopg.connect(filled.database.superuser_dsn()) as connection:
        assert connection.execute("select count(*) from messages").fetchone() == (0,)


def test_an_expired_conversation_does_not_exist_and_is_removed_by_the_next_one(filled: Deployment) -> None:
    conversation = begin(filled)
    with psycopg.connect(filled.database.superuser_dsn()) as connection:
        connection.execute("update conversations set expires_at = now()")
    assert filled.ask("GET", f"/v1/conversations/{conversation}").status == 404
    assert filled.ask("GET", "/v1/conversations").json == {"conversations": []}
    assert go_on(filled, conversation).status == 404
    other = begin(filled)
    with psycopg.connect(filled.database.superuser_dsn()) as connection:
        assert connection.execute("select id::text from conversations").fetchall() == [(other,)]


def test_a_conversation_lives_on_with_each_question(filled: Deployment) -> None:
    conversation = begin(filled)
    before = filled.ask("GET", f"/v1/conversations/{conversation}").json["expires_at"]
    go_on(filled, conversation)
    assert filled.ask("GET", f"/v1/conversations/{conversation}").json["expires_at"] > before


def test_a_conversation_is_kept_for_as_long_as_is_set_from_its_last_question(filled: Deployment) -> None:
    def kept(identity: str) -> dict[str, Any]:
        conversation: dict[str, Any] = filled.ask("GET", f"/v1/conversations/{identity}").json
        return conversation

    filled.settings["RAG_CONVERSATION_TTL_SECONDS"] = "7200"
    conversation = kept(begin(filled))
    end = datetime.fromisoformat(conversation["expires_at"])
    assert end - datetime.fromisoformat(conversation["created_at"]) == timedelta(hours=2)

    filled.settings["RAG_CONVERSATION_TTL_SECONDS"] = "600"
    with psycopg.connect(filled.database.superuser_dsn()) as connection:
        [[before]] = connection.execute("select now()")
    go_on(filled, conversation["id"])
    with psycopg.connect(filled.database.superuser_dsn()) as connection:
        [[after]] = connection.execute("select now()")
    end = datetime.fromisoformat(kept(conversation["id"])["expires_at"])
    assert before + timedelta(minutes=10) <= end <= after + timedelta(minutes=10)


def test_without_a_model_the_follow_up_is_kept_with_what_was_said_instead(filled: Deployment) -> None:
    conversation = begin(filled)
    filled.model.script = [fake_model.status(400)] * 9
    answer = go_on(filled, conversation, "Are those refunds paid within nine days?").json
    assert (answer["degraded"], answer["rewritten_question"]) == ("retrieval_only", None)
    assert answer["conversation_id"] == conversation
    assert filled.ask("GET", f"/v1/conversations/{conversation}").json["message_count"] == 4
