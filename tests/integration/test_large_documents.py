"""Documents too large for one run, or to be held: through the handler, on real services, until they are ready."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from rag.store.statements import statement
from tests.integration.deployment import BUCKET, Context, Deployment, notification
from tests.integration.test_ingest import DONE, Inbox, contents, counts, embedded, held, rows
from tests.integration.test_ingest import store as put
from tests.lexeme_counts import LEXEME_COUNTS

pytestmark = pytest.mark.slow

# Each chunk is staged, embedded and fetched with few others, so that few are many.
SMALL: dict[str, str] = {"held_chunks": "5", "batch_size": "4", "chunk_tokens": "40", "chunk_max_tokens": "80"}


@pytest.fixture
def inbox(deployment: Deployment) -> Iterator[Inbox]:
    opened = Inbox(deployment.aws)
    deployment.settings["RAG_QUEUE_URL"] = opened.url
    yield opened
    opened.delete()


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.staging.CHUNKS_AT_ONCE", 8)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time is short after every step, which makes a run of each; there is enough to begin with."""
    import functions.ingest.handler  # noqa: F401

    monkeypatch.setattr("rag.staging.RESERVE_SECONDS", 3600.0)


def book(pages: int, *, seed: int = 1) -> str:
    """A chunk a line, one in ten of them like another."""
    chance = random.Random(seed)
    lines = [
        f"Entry {page} " + " ".join(f"w{chance.randrange(500)}" for _ in range(9)) + "."
        if page % 10
        else "The usual entry, which says what usual entries say."
        for page in range(pages)
    ]
    return "\n\n".join(f"# Page\n\n{line * 3}" for line in lines)


def deliver(deployment: Deployment, records: list[dict[str, Any]], **settings: str) -> Any:
    from functions.ingest.handler import handler

    with deployment.function("rag_ingest", **SMALL, **settings):
        return handler({"Records": records}, Context())


def run_until_settled(
    deployment: Deployment, inbox: Inbox, object_key: str, *, between: Callable[[int], None] = id
) -> int:
    """Deliver what the queue holds, again and again; how many runs that took."""
    records = inbox.deliver(notification(object_key))
    for run in range(1, 100):
        assert deliver(deployment, records) == DONE
        for record in records:
            inbox.acknowledge(record)
        records = inbox.all()
        if not records:
            return run
        between(run)
    raise AssertionError


def state(deployment: Deployment) -> list[Any]:
    """All that a search could see, and the statistics."""
    return [
        rows(deployment, "select to_jsonb(chunks) from chunks order by document_id, position"),
        rows(deployment, "select to_jsonb(embeddings) from embeddings order by chunk_id"),
        rows(
            deployment, f"select lexeme, sum(document_frequency) from {LEXEME_COUNTS} group by lexeme order by lexeme"
        ),
        rows(deployment, "select sum(document_count), sum(chunk_count), sum(lexeme_count) from collection_statistics"),
        rows(deployment, "select status, chunk_count, title, media_type, content_hash, error_code from documents"),
    ]


@pytest.mark.usefixtures("few_at_once")
def test_a_staged_document_leaves_the_rows_that_one_held_in_memory_leaves(deployment: Deployment) -> None:
    object_key = put(deployment, "book.md", book(60))
    assert deployment.ingest(notification(object_key), **(SMALL | {"held_chunks": "1000"})) == DONE
    in_memory = state(deployment)
    calls = Counter(embedded(deployment))
    deployment.s3.delete_object(Bucket=BUCKET, Key=object_key)
    assert deployment.ingest(notification(object_key), **SMALL) == DONE
    assert set(held(deployment).values()) == {0}
    deployment.model.requests.clear()
    put(deployment, "book.md", book(60))
    assert deployment.ingest(notification(object_key), **SMALL) == DONE
    assert state(deployment) == in_memory
    assert Counter(embedded(deployment)) == calls
    assert set(calls.values()) == {1}
    assert len(calls) < len(in_memory[0])
    assert {table: counts(deployment)[table] for table in PENDING} == dict.fromkeys(PENDING, 0)


PENDING = ("pending_documents", "pending_chunks", "pending_embeddings")


@pytest.mark.usefixtures("few_at_once", "hurried")
def test_a_document_goes_on_over_many_runs_and_every_chunk_is_embedded_once(
    deployment: Deployment, inbox: Inbox
) -> None:
    seen: list[tuple[int, int]] = []
    shown: list[Any] = []
    told: list[Any] = []

    def look(_: int) -> None:
        assert contents(deployment) == []
        [collection] = deployment.ask("GET", "/v1/collections").json["collections"]
        told.append(collection["ingesting"])
        seen.extend(rows(deployment, "select chunk_count, embedded_through from pending_documents"))
        shown.append(deployment.documents()["book.md"])

    object_key = put(deployment, "book.md", book(60))
    runs = run_until_settled(deployment, inbox, object_key, between=look)
    assert runs > 10
    assert seen == sorted(seen)
    assert len(set(seen)) >= len(seen) - 1  # the last run but one only stages what is complete
    document = deployment.documents()["book.md"]
    assert (document["status"], document["chunk_count"]) == ("ready", len(contents(deployment)))
    assert set(Counter(embedded(deployment)).values()) == {1}
    assert {one["status"] for one in shown} == {"processing"}
    assert [(one["processing"], one["passages_read"], one["passages_embedded"]) for one in told] == [
        (1, *progress) for progress in seen
    ]
    assert [(one["progress"]["read"], one["progress"]["embedded"]) for one in shown] == seen
    assert [one["progress"]["all_read"] for one in shown] == sorted(one["progress"]["all_read"] for one in shown)
    assert (document["progress"], shown[-1]["progress"]["all_read"]) == (None, True)
    assert rows(deployment, "select max(embedded_count) from ingestions") == [(len(embedded(deployment)),)]


@pytest.mark.usefixtures("few_at_once", "hurried")
def test_a_new_version_of_a_large_document_embeds_what_is_new_and_is_seen_at_once(
    deployment: Deployment, inbox: Inbox
) -> None:
    object_key = put(deployment, "book.md", book(60))
    run_until_settled(deployment, inbox, object_key)
    before = contents(deployment)
    deployment.model.requests.clear()
    put(deployment, "book.md", book(60) + "\n\n# Afterword\n\nThis was not said before, and is now.")

    def look(_: int) -> None:
        assert contents(deployment) == before

    assert run_until_settled(deployment, inbox, object_key, between=look) > 3
    assert len(embedded(deployment)) == 1
    assert len(contents(deployment)) == len(before) + 1
    put(deployment, "book.md", "One line about rivers.")
    run_until_settled(deployment, inbox, object_key)
    assert contents(deployment) == ["One line about rivers."]
    lexemes = rows(deployment, f"select lexeme from {LEXEME_COUNTS} group by 1 having sum(document_frequency) <> 0")
    assert len(lexemes) == len(["one", "line", "about", "rivers"])


@pytest.mark.usefixtures("few_at_once", "hurried")
def test_a_large_document_that_is_replaced_while_it_is_staged_ends_as_the_new_one(
    deployment: Deployment, inbox: Inbox
) -> None:
    def overwrite(run: int) -> None:
        if run == 3:
            put(deployment, "book.md", book(40, seed=2))

    object_key = put(deployment, "book.md", book(60))
    run_until_settled(deployment, inbox, object_key, between=overwrite)
    mixed = contents(deployment)
    assert deployment.ingest(notification(put(deployment, "book.md", "gone")), **SMALL) == DONE
    whole = SMALL | {"held_chunks": "1000"}
    assert deployment.ingest(notification(put(deployment, "book.md", book(40, seed=2))), **whole) == DONE
    assert mixed == contents(deployment)


@pytest.mark.usefixtures("few_at_once", "hurried")
def test_a_large_document_that_is_deleted_while_it_is_staged_leaves_nothing(
    deployment: Deployment, inbox: Inbox
) -> None:
    def delete(run: int) -> None:
        if run == 3:
            assert counts(deployment)["pending_chunks"] > 0
            deployment.s3.delete_object(Bucket=BUCKET, Key=object_key)

    object_key = put(deployment, "book.md", book(60))
    assert run_until_settled(deployment, inbox, object_key, between=delete) == 4
    assert set(held(deployment).values()) == {0}


@pytest.mark.usefixtures("few_at_once", "hurried")
def test_a_continuation_that_brings_a_document_no_further_is_a_failure(deployment: Deployment, inbox: Inbox) -> None:
    object_key = put(deployment, "book.md", book(60))
    [record] = inbox.deliver(notification(object_key))
    assert deliver(deployment, [record]) == DONE
    [going_on] = inbox.all()
    said = json.loads(going_on["body"])["Continuation"]
    version = deployment.s3.head_object(Bucket=BUCKET, Key=object_key)["VersionId"]
    assert said[:2] == [version, 1]
    assert said[2] > 0
    # As if the runs before had already been as far as this one comes, or as often.
    for claimed in ([version, 1, 10**9], [version, 200, 0]):
        [stuck] = inbox.deliver(json.dumps(json.loads(going_on["body"]) | {"Continuation": claimed}))
        failed = deliver(deployment, [stuck])
        assert failed == {"batchItemFailures": [{"itemIdentifier": stuck["messageId"]}]}


def test_a_document_of_more_chunks_than_are_allowed_fails_by_name(deployment: Deployment) -> None:
    object_key = put(deployment, "book.md", book(60))
    assert deployment.ingest(notification(object_key), **SMALL, max_document_chunks="30") == DONE
    assert deployment.documents()["book.md"]["error"]["code"] == "TOO_MANY_CHUNKS"
    assert {table: counts(deployment)[table] for table in PENDING} == dict.fromkeys(PENDING, 0)


@pytest.mark.parametrize(("chunk_count", "allowed"), [(10_000, "1min"), (10_001, "5min")])
def test_what_goes_of_a_large_document_may_take_longer(deployment: Deployment, chunk_count: int, allowed: str) -> None:
    deployment.put("note.txt", "A note.")
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        connection.execute("update documents set chunk_count = %s", [chunk_count])
    [(document,)] = rows(deployment, "select id from documents")
    with psycopg.connect(deployment.database.dsn("rag_ingest")) as connection:
        connection.execute("select set_config('app.tenant', %s, true)", [str(deployment.tenant)])
        connection.execute(statement("lock_document"), {"tenant": deployment.tenant, "document": document})
        assert connection.execute("show statement_timeout").fetchone() == (allowed,)


@pytest.mark.parametrize(
    ("name", "vectors"), [("complete_pending", 0), ("unembedded_chunks", 300), ("publish_chunks", 600)]
)
def test_what_was_just_staged_is_not_compared_each_with_each(deployment: Deployment, name: str, vectors: int) -> None:
    """Nothing has counted these tables yet, and the planner takes them for small ones."""
    deployment.put("book.md", book(40))
    [(document, collection, dimensions)] = rows(
        deployment, "select d.id, d.collection_id, e.dimensions from documents d, embeddings e limit 1"
    )
    chunks = 600
    staged = """
insert into pending_documents (tenant_id, document_id, version_id, chunk_count, complete)
  values (%(tenant)s, %(document)s, 'next', %(chunks)s, true);
insert into pending_chunks
  select %(tenant)s, %(document)s, number, gen_random_uuid(), null, null, '', 'text', sha256(number::text::bytea),
    1, 100, '{1:1}/1000000000', '{1}', 1
  from generate_series(0, %(chunks)s - 1) number;
insert into pending_embeddings
  select tenant_id, document_id, 1, content_hash, (select embedding from embeddings limit 1)
  from pending_chunks where position < %(vectors)s;
update chunks set content_hash = sha256(position::text::bytea), position = position + %(chunks)s
  where document_id = %(document)s
"""
    asked = {
        "tenant": deployment.tenant,
        "document": document,
        "collection": collection,
        "space": 1,
        "dimensions": dimensions,
        "first": 0,
        "most": chunks,
        "chunks": chunks,
        "vectors": vectors,
        "content_hash": None,
        "media_type": None,
        "title": None,
        "warnings": [],
    }
    with psycopg.connect(deployment.database.superuser_dsn(), cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute(staged.encode(), asked)
        connection.execute("select set_config('app.tenant', %(tenant)s::text, true)", asked)
        connection.execute("set local role rag_ingest")
        [(plan,)] = connection.execute(b"explain (analyze, format json) " + statement(name), asked).fetchall()
        connection.rollback()
    met = [round(node["Actual Rows"] * node["Actual Loops"]) for node in nodes(plan[0]["Plan"])]
    assert 40 <= max(met) <= 2 * chunks


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)
