"""What a caller does leaves a row, and who was shown a document can be asked."""

from __future__ import annotations

from typing import Any

import httpx
import psycopg

from tests.integration.deployment import Deployment

TEXT = "# Zeppelins\n\nA zeppelin is filled with helium. It carries nineteen passengers over the lake."


def rows(deployment: Deployment, **filters: str) -> list[dict[str, Any]]:
    reply = deployment.ask("GET", "/v1/audit", multiValueQueryStringParameters={k: [v] for k, v in filters.items()})
    assert reply.status == 200, reply.json
    return [row for row in reply.json["records"] if row["action"] != "audit.list"]


def test_a_search_leaves_who_when_from_where_and_which_passages(deployment: Deployment) -> None:
    deployment.put("zeppelin.md", TEXT)
    document = deployment.documents()["zeppelin.md"]
    reply = deployment.ask("POST", "/v1/search", {"query": "What is a zeppelin filled with?"}, role="reader")
    [row] = rows(deployment, action="search")
    assert row["principal"] == "key:aB3dE5gH"
    assert (row["role"], row["outcome"], row["address"]) == ("reader", 200, "203.0.113.7")
    assert row["request_id"] == reply.json["request_id"]
    assert row["details"] == {"collection": "default"}
    [shown] = row["documents"]
    assert (shown["document_id"], shown["version_id"]) == (document["id"], document["version_id"])
    assert len(shown["positions"]) == len(reply.json["hits"])


def test_erasing_a_user_takes_conversations_of_that_user_only(deployment: Deployment) -> None:
    deployment.put("zeppelin.md", TEXT)
    for principal in ("user:alice", "user:bob"):
        asked = {"question": "What is a zeppelin filled with?", "conversation": True}
        assert deployment.ask("POST", "/v1/query", asked, principal=principal, role="reader").status == 200
    begun = deployment.ask("DELETE", "/v1/users/user:alice/data")
    assert (begun.status, begun.json["scope"], begun.json["status"]) == (202, "principal", "pending")
    assert deployment.erase(begun.json) == {"batchItemFailures": []}
    receipt = deployment.ask("GET", f"/v1/erasures/{begun.json['id']}").json
    assert receipt["status"] == "done"
    assert (receipt["removed"]["conversations"], receipt["removed"]["documents"]) == (1, 0)
    left = {
        principal: len(deployment.ask("GET", "/v1/conversations", principal=principal).json["conversations"])
        for principal in ("user:alice", "user:bob")
    }
    assert left == {"user:alice": 0, "user:bob": 1}
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        # Whom it was about stands in the audit log alone.
        assert connection.execute("select principal from erasures").fetchall() == [(None,)]
    # No document went, and none is kept from coming.
    deployment.put("later.md", "A balloon needs no engine.")
    assert set(deployment.documents()) == {"zeppelin.md", "later.md"}


def test_an_erased_tenant_leaves_no_row_of_the_audit_log(deployment: Deployment) -> None:
    from functions.tenants.handler import handler
    from tests.integration.deployment import Context

    deployment.put("zeppelin.md", TEXT)
    for _ in range(3):
        deployment.ask("POST", "/v1/search", {"query": "zeppelin"})
    with deployment.function("rag_admin", erasure_queue_url=""):
        erasure = handler({"action": "erase", "tenant_id": str(deployment.tenant)}, Context())
    assert deployment.erase(erasure) == {"batchItemFailures": []}
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        assert connection.execute("select count(*) from audit_log").fetchall() == [(0,)]
        assert connection.execute("select count(*) from audit_documents").fetchall() == [(0,)]
        [(removed,)] = connection.execute("select removed from erasures").fetchall()
    assert removed["audit_rows"] >= 3


def test_an_export_has_everything_page_after_page_and_the_files(deployment: Deployment) -> None:
    for number in range(5):
        deployment.put(f"{number}.md", f"# Zeppelins\n\nZeppelin {number} is filled with helium.")
    for principal in ("user:alice", "user:bob"):
        asked = {"question": "What is a zeppelin filled with?", "conversation": True}
        assert deployment.ask("POST", "/v1/query", asked, principal=principal, role="reader").status == 200

    documents = exported(deployment, "documents", links="true", limit="2")
    assert {record["key"] for record in documents} == set(deployment.documents())
    [first] = [record for record in documents if record["key"] == "0.md"]
    file = httpx.get(first["download"]["url"], trust_env=False, timeout=60)
    assert file.text.startswith("# Zeppelins\n\nZeppelin 0")
    [of_alice] = exported(deployment, "conversations", principal="user:alice")
    assert (of_alice["principal"], len(of_alice["messages"])) == ("user:alice", 2)
    assert len(exported(deployment, "conversations", limit="1")) == 2
    assert {record["principal"] for record in exported(deployment, "audit", principal="user:bob")} == {"user:bob"}
    every = exported(deployment, "audit", limit="3")
    assert len({record["id"] for record in every}) == len(every)
    assert {record["action"] for record in every} >= {"query", "records.export", "documents.list"}
    assert [record["model"] for record in exported(deployment, "usage", principal="user:alice")] == ["fake"]
    assert [record["name"] for record in exported(deployment, "collections")] == ["default"]
    assert exported(deployment, "feedback") == exported(deployment, "erasures") == []
    for wrong, status in (
        ({"cursor": "bm9uc2Vuc2U="}, 400),
        ({"principal": "user:bob"}, 400),
        ({"principal": "bob"}, 422),
    ):
        given = {name: [value] for name, value in wrong.items()}
        reply = deployment.ask("GET", "/v1/export/documents", multiValueQueryStringParameters=given)
        assert reply.status == status, wrong
    assert deployment.ask("GET", "/v1/export/documents", role="writer").status == 403


def exported(deployment: Deployment, kind: str, **wanted: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        given = {name: [value] for name, value in (wanted | cursor).items()}
        reply = deployment.ask("GET", f"/v1/export/{kind}", multiValueQueryStringParameters=given)
        assert reply.status == 200, reply.json
        found += reply.json["records"]
        if reply.json["next_cursor"] is None:
            return found
        cursor = {"cursor": reply.json["next_cursor"]}
