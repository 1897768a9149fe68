"""Nothing that a caller does goes unwritten, and nobody can unwrite it."""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.integration.deployment import Deployment

Attack = Callable[..., None]

SUBJECTS = ("zeppelin", "balloon", "glider", "airship", "rocket", "kite", "parachute", "helicopter")
ABSENT = "00000000-0000-5000-8000-000000000000"
# What a request needs to be carried out, and not only refused; what is not here is asked as it is, with an empty body.
BODIES: dict[str, Any] = {
    "search": {"query": "zeppelin"},
    "query": {"question": "What is a zeppelin filled with?"},
    "create_document": {"key": "new.md"},
    "create_collection": {"name": "new"},
    "create_key": {"name": "second"},
}


@pytest.fixture
def filled(deployment: Deployment) -> Deployment:
    with deployment.function("rag_ingest"):
        for number, subject in enumerate(SUBJECTS):
            first = f"# {subject.title()}s\n\nA {subject} carries {number + 2} passengers."
            deployment.put(f"{subject}.md", f"{first}\n\n# More\n\nEvery {subject} is kept dry.")
    return deployment


def rows(deployment: Deployment) -> list[Any]:
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        return connection.execute("select id, action, outcome, tenant_id from audit_log").fetchall()


def operations(deployment: Deployment) -> Iterator[tuple[str, str, str]]:
    """Method, path and name of every operation that needs a credential."""
    described = deployment.ask("GET", "/openapi.json", anonymous=True).json
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            if operation["security"]:
                yield method.upper(), path, operation["operationId"]


def test_every_route_leaves_exactly_one_row(filled: Deployment, record_attack: Attack) -> None:
    unwritten = tried = 0
    for method, path, name in operations(filled):
        told = path
        for placeholder in ("document_id", "conversation_id", "erasure_id"):
            told = told.replace(f"{{{placeholder}}}", ABSENT)
        told = (
            told.replace("{name}", "nowhere")
            .replace("{key_id}", "aB3dE5gH")
            .replace("{principal}", "user:nobody")
            .replace("{kind}", "documents")
        )
        assert "{" not in told, f"say what {path} is to be asked for"
        body = BODIES.get(name, {}) if method in {"POST", "PUT", "PATCH"} else None
        with filled.function("rag_query"):
            for role, raw in (("admin", None), ("reader", None), ("admin", "{")):
                before = {row[0] for row in rows(filled)}
                more = {"raw": raw} if raw and body is not None else {}
                reply = filled.ask(method, told, body, role=role, **more)
                written = [row for row in rows(filled) if row[0] not in before]
                tried += 1
                unwritten += [(outcome, owner) for _, _, outcome, owner in written] != [(reply.status, filled.tenant)]
    record_attack(
        "P23", figure="a request that leaves no row of the audit log, or two", tried=tried, succeeded=unwritten
    )
    assert unwritten == 0


def test_what_is_shown_is_what_is_written(
    filled: Deployment, record_attack: Attack, amount: Callable[[str], int]
) -> None:
    questions = amount("questions looked up in the audit log")
    chosen = random.Random(6)
    filled.settings |= {"RAG_RATE_LIMIT_REQUESTS": "0", "RAG_TENANT_RATE_LIMIT_REQUESTS": "0"}
    shown: list[Any] = []
    with filled.function("rag_query"):
        for _ in range(questions):
            words = chosen.sample(SUBJECTS, k=chosen.randint(1, 3))
            body: dict[str, Any] = {"query": " ".join(words), "top_k": chosen.randint(1, 8)}
            reply = filled.ask("POST", "/v1/search", body | {"mode": chosen.choice(["hybrid", "dense", "lexical"])})
            shown.append(sorted(hit["document_id"] for hit in reply.json["hits"]))
    wanted = {"action": ["search"], "limit": ["1000"]}
    records = filled.ask("GET", "/v1/audit", multiValueQueryStringParameters=wanted).json["records"]
    written = [
        sorted(one["document_id"] for one in record["documents"] if one["version_id"] for _ in one["positions"])
        for record in reversed(records)
    ]
    unlike = sum(before != after for before, after in zip(shown, written, strict=True))
    record_attack("P23", figure="passages that are shown and not written down", tried=questions, succeeded=unlike)
    assert unlike == 0


TAMPERING = {
    "change": "update audit_log set principal = 'user:other'",
    "change documents": "update audit_documents set positions = '{}'",
    "delete": "delete from audit_log",
    "delete documents": "delete from audit_documents",
    "truncate": "truncate audit_log cascade",
    "truncate documents": "truncate audit_documents",
    "drop": "drop table audit_documents, audit_log",
    "disarm": "alter table audit_log disable trigger append_only",
    "open": "alter table audit_log no force row level security",
    "date back": "insert into audit_log (tenant_id, id, at, principal, role, action, outcome, request_id)"
    " values ('{tenant}', gen_random_uuid(), now() - interval '1 year', 'user:x', 'admin', 'search', 200, '')",
    "write for another": "insert into audit_log (tenant_id, id, principal, role, action, outcome, request_id)"
    " values ('{stranger}', gen_random_uuid(), 'user:x', 'admin', 'search', 200, '')",
    "overwrite": "insert into audit_log (tenant_id, id, principal, role, action, outcome, request_id)"
    " select tenant_id, id, 'user:x', role, action, outcome, request_id from audit_log"
    " on conflict (tenant_id, id) do update set principal = excluded.principal",
    "by age": "select drop_old_audit(0, 1000)",
    "by erasure": "select erase_audit(1000)",
    "as the definer": "set role rag_definer; delete from audit_log",
}
# By these the owner makes migrations: who has its password has the database (decision 32).
OF_THE_OWNER = {"drop", "disarm", "open", "as the definer"}


def test_nobody_changes_the_log(filled: Deployment, record_attack: Attack) -> None:
    stranger, _ = filled.tenants.create("second")
    filled.ask("POST", "/v1/search", {"query": "zeppelin"})
    kept = "select a::text, (select json_agg(d)::text from audit_documents d where d.audit_id = a.id) from audit_log a"
    with psycopg.connect(filled.database.superuser_dsn(), autocommit=True) as connection:
        before = set(connection.execute(kept).fetchall())
        roles = sorted(filled.database.passwords)
        succeeded = []
        tried = [
            (role, name)
            for role, name in itertools.product(roles, TAMPERING)
            if (role, name)[0] != "rag_owner" or name not in OF_THE_OWNER
        ]
        for role, name in tried:
            attempt(
                filled,
                role,
                TAMPERING[name].replace("{tenant}", str(filled.tenant)).replace("{stranger}", str(stranger)),
            )
            after = set(connection.execute(kept).fetchall())
            if after != before:
                succeeded.append((role, name))
                before = after
    record_attack(
        "P23",
        figure="rows of the audit log changed, deleted or made up",
        tried=len(tried),
        succeeded=len(succeeded),
    )
    assert succeeded == []


def attempt(deployment: Deployment, role: str, statement: str) -> None:
    """In a transaction of the tenant, as the role's function has it."""
    with psycopg.connect(deployment.database.dsn(role), autocommit=True) as connection:
        connection.execute("select set_config('app.tenant', %s, false)", [str(deployment.tenant)])
        connection.execute("select set_config('app.identities', '*', false), set_config('app.collections', '*', false)")
        try:
            connection.execute(statement.encode())
        except psycopg.Error:
            return


def test_a_tenant_sees_no_row_of_another(filled: Deployment, record_attack: Attack) -> None:
    stranger, _ = filled.tenants.create("second")
    document = filled.documents()["zeppelin.md"]["id"]
    filled.ask("POST", "/v1/search", {"query": "zeppelin"})
    wanted: list[dict[str, str]] = [{}, {"document": document}, {"action": "search"}, {"principal": "key:aB3dE5gH"}]
    seen = 0
    for filters in wanted:
        given = {name: [value] for name, value in filters.items()}
        reply = filled.ask("GET", "/v1/audit", tenant=stranger, multiValueQueryStringParameters=given)
        seen += sum(record["action"] != "audit.list" for record in reply.json["records"])
    for role in ("reader", "writer"):
        seen += filled.ask("GET", "/v1/audit", role=role).status != 403
    record_attack(
        "P23",
        figure="rows of another tenant's audit log, or for who is no admin",
        tried=len(wanted) + 2,
        succeeded=seen,
    )
    assert seen == 0


def test_the_log_has_neither_secrets_nor_content(filled: Deployment, record_attack: Attack) -> None:
    canary = f"canary-{uuid.uuid4().hex}"
    filled.put(f"{canary}.md", f"The word is {canary}.")
    document = filled.documents()[f"{canary}.md"]["id"]
    made = filled.ask("POST", "/v1/keys", {"name": canary}).json["api_key"]
    for method, path, body in (
        ("POST", "/v1/search", {"query": f"What of {canary}?"}),
        ("POST", "/v1/search", {"query": "word", "filters": {"key": f"{canary}.md"}}),
        ("POST", "/v1/query", {"question": f"Which word is {canary}?", "conversation": True}),
        ("POST", "/v1/documents", {"key": f"{canary}.txt", "metadata": {"of": canary}}),
        ("GET", f"/v1/documents/{document}", None),
        ("DELETE", f"/v1/documents/{document}", None),
    ):
        assert filled.ask(method, path, body, headers={"x-api-key": made}).status < 300
    with psycopg.connect(filled.database.superuser_dsn()) as connection:
        [(text,)] = connection.execute(
            "select string_agg(a::text, ' ') || (select string_agg(d::text, ' ') from audit_documents d)"
            " from audit_log a"
        ).fetchall()
    found = [secret for secret in (canary, made, made.partition(".")[2]) if secret in text]
    record_attack("P23", figure="secrets, questions, names or text in the audit log", tried=7, succeeded=len(found))
    assert found == []


def test_a_row_that_cannot_be_written_is_loud(
    filled: Deployment, record_attack: Attack, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with psycopg.connect(filled.database.superuser_dsn(), autocommit=True) as connection:
        connection.execute("revoke insert on audit_log from rag_query")
        connection.execute("alter table audit_log add constraint full_disk check (false) not valid")
    lost = 0
    for failure, status in (("open", 200), ("closed", 503)):
        filled.settings["RAG_AUDIT_FAILURE"] = failure
        capsys.readouterr()
        caplog.clear()
        reply = filled.ask("POST", "/v1/search", {"query": "zeppelin"})
        assert reply.status == status
        assert ("hits" in reply.json) == (status == 200)
        lost += '"AuditFailures":[1.0]' not in capsys.readouterr().out
        [line] = [record for record in caplog.records if record.message == "not in the audit log"]
        lost += line.__dict__["audit"]["action"] != "search" or not line.__dict__["audit"]["documents"]
    record_attack("P23", figure="rows of the audit log that are lost in silence", tried=2, succeeded=lost)
    assert lost == 0
