"""A large collection gets indexes of its own, and nobody who searches notices but by the time it takes."""

from __future__ import annotations

import random
import time
from array import array
from functools import partial
from typing import Any

import psycopg
import pytest

from functions.query.filters import read
from rag import ranking, wiring
from rag.errors import UnavailableError
from rag.store import recall, search
from rag.types import Scope
from tests import fake_model
from tests.integration.deployment import BUCKET, SPACE, Context, Deployment, notification, sample
from tests.lexeme_counts import LEXEME_COUNTS
from tests.scopes import ALL_OF

WORDS = [f"{first}{second}" for first in "bcdfghklmnprst" for second in ("arol", "enit", "omun", "ulis")]
LARGE = 40


def run(deployment: Deployment, *, threshold: int = LARGE, event: str = "maintain/schedule.json") -> Any:
    from functions.maintain.handler import handler

    with deployment.function("rag_owner", index_chunks=str(threshold)):
        return handler(sample(event), Context())


def maintain(deployment: Deployment, *, threshold: int = LARGE) -> dict[str, str]:
    """Index → what was done to it, without the collection's number."""
    changes = run(deployment, threshold=threshold)["changes"]
    forget_scans(deployment)
    return {change["name"].rstrip("0123456789"): change["action"] for change in changes}


def forget_scans(deployment: Deployment) -> None:
    """Maintenance itself asks an index; it has told of it when its connection is gone."""
    until = time.monotonic() + 30
    there = "select from pg_stat_activity where usename = 'rag_owner' and datname = current_database()"
    while superuser(deployment, there):
        assert time.monotonic() < until
        time.sleep(0.01)
    superuser(deployment, "select pg_stat_reset()")


def fill(deployment: Deployment) -> None:
    """Four documents of fifteen chunks."""
    chosen = random.Random(1)
    for number in range(4):
        pages = ["# {}\n\n{}.".format(*(" ".join(chosen.choices(WORDS, k=k)) for k in (2, 70))) for _ in range(15)]
        deployment.put(f"{number % 2}/{number}.md", "\n\n".join(pages))


def hits(deployment: Deployment, query: str, **more: Any) -> list[tuple[str, float]]:
    body = deployment.ask("POST", "/v1/search", {"query": query, "top_k": 20, **more}).json
    return [(hit["chunk_id"], round(hit["score"], 6)) for hit in body["hits"]]


def superuser(deployment: Deployment, statement: str) -> list[Any]:
    with psycopg.connect(deployment.database.superuser_dsn(), autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def scans(deployment: Deployment) -> dict[str, int]:
    statement = "select indexrelname, idx_scan from pg_stat_user_indexes where indexrelname ~ '_of_[0-9]+$'"
    return {name.rstrip("0123456789"): count for name, count in superuser(deployment, statement)}


def by_index(deployment: Deployment) -> None:
    """So few rows are sorted as fast: the index is to be used all the same."""
    superuser(deployment, f"alter role rag_query in database {deployment.database.name} set enable_sort = off")


@pytest.fixture
def large(deployment: Deployment) -> Deployment:
    fill(deployment)
    by_index(deployment)
    return deployment


QUESTIONS = ["barol cenit", "domun", "fulis garol henit karol lomun", "nothing that is there"]


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_a_large_collection_answers_the_same_by_its_indexes(large: Deployment, mode: str) -> None:
    before = [hits(large, question, mode=mode) for question in QUESTIONS]
    assert maintain(large) == {"embeddings_of_": "created", "chunks_of_": "created"}
    assert [hits(large, question, mode=mode) for question in QUESTIONS] == before
    used = {"dense": {"embeddings_of_"}, "lexical": {"chunks_of_"}, "hybrid": {"embeddings_of_", "chunks_of_"}}[mode]
    assert {name for name, count in scans(large).items() if count} == used
    assert maintain(large) == {}


def scattered(text: str) -> list[float]:
    """A vector of this text alone."""
    direction = random.Random(text)
    return [direction.gauss(0, 1) for _ in range(SPACE.dimensions)]


def nearest(deployment: Deployment, embeddings: list[list[float]]) -> list[str]:
    """The chunk that questions of the dense leg alone find first, for each of the vectors."""
    with deployment.function("rag_query"):
        asked = partial(
            wiring.search_store().search,
            Scope(deployment.tenant),
            "default",
            lexemes=lambda _: {},
            rank=lambda candidates, _: ranking.fuse(candidates, mode="dense"),
            mode="dense",
            filters=read({}),
            depth=10,
        )
        return [str(asked(embedding=array("f", embedding)).hits[0].chunk_id) for embedding in embeddings]


def test_every_chunk_that_is_ready_is_found_by_its_own_vector_exactly_and_by_index(deployment: Deployment) -> None:
    def reply(handler: Any, body: dict[str, Any]) -> None:
        fake_model.send_json(handler, fake_model.embeddings([scattered(text) for text in body["input"]]))

    deployment.model.always = reply
    fill(deployment)
    own = """
        select c.id::text, e.embedding::real[] from documents d join chunks c on c.document_id = d.id
        left join embeddings e on e.chunk_id = c.id where d.status = 'ready' order by 1
    """
    chunks, embeddings = zip(*superuser(deployment, own), strict=True)
    assert superuser(deployment, "select sum(chunk_count) from documents") == [(len(chunks),)]
    assert len(set(map(tuple, embeddings))) == len(chunks) > LARGE
    assert nearest(deployment, embeddings) == list(chunks)
    by_index(deployment)
    maintain(deployment)
    assert nearest(deployment, embeddings) == list(chunks)
    assert scans(deployment)["embeddings_of_"] == len(chunks)


def test_a_small_collection_gets_no_index(large: Deployment) -> None:
    assert maintain(large, threshold=1000) == {}


@pytest.mark.parametrize("few", [0, 10_000], ids=["by index", "exactly"])
@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_a_filter_takes_nothing_from_the_list_of_a_large_collection(
    large: Deployment, monkeypatch: pytest.MonkeyPatch, mode: str, few: int
) -> None:
    filters = {"key": {"prefix": "1/"}}
    before = [hits(large, question, mode=mode, filters=filters) for question in QUESTIONS]
    assert len(before[0]) >= 5
    maintain(large)
    monkeypatch.setattr(search, "EXACT_CHUNKS", few)
    assert [hits(large, question, mode=mode, filters=filters) for question in QUESTIONS] == before


def test_a_question_of_common_words_only_looks_at_the_rarest_and_still_fills_its_list(
    large: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hits(large, " ".join(WORDS), mode="lexical")
    maintain(large)
    monkeypatch.setattr(search, "LEXICAL_BUDGET", 5)
    assert hits(large, " ".join(WORDS), mode="lexical") == before


@pytest.mark.parametrize(
    ("chunks", "depth", "width"),
    [(-1, 10, 80), (60, 10, 80), (100_000, 80, 100), (1_000_000, 10, 110), (10**15, 10, 380), (60, 1_200, 1_000)],
)
def test_a_graph_of_more_chunks_is_searched_wider(large: Deployment, chunks: int, depth: int, width: int) -> None:
    maintain(large)
    superuser(large, f"update pg_class set reltuples = {chunks} where relname ~ '^embeddings_of_[0-9]+$'")
    [(embedding,)] = superuser(large, "select embedding::text from embeddings limit 1")
    with psycopg.connect(large.database.dsn("rag_query")) as connection:
        connection.execute(ALL_OF, [str(large.tenant)])
        asked = "select * from search(%s, 'default', 'english', %s::halfvec, null, null, null, %s, 5, 1, 1, 1, 80)"
        assert len(connection.execute(asked, [large.tenant, embedding, depth]).fetchall()) > 1
        assert connection.execute("select current_setting('hnsw.ef_search')").fetchall() == [(str(width),)]


@pytest.mark.parametrize("table", ["chunks", "embeddings"])
def test_how_many_rows_a_collection_has_is_not_taken_for_less_because_it_is_of_one_tenant(
    large: Deployment, table: str
) -> None:
    others = """
        set session_replication_role = replica;
        insert into {table} select (one).* from generate_series(1001, 1009) other, lateral (
          select jsonb_populate_record(row, jsonb_build_object(
            'tenant_id', md5(other::text)::uuid, 'collection_id', other
          )) as one from {table} row where tenant_id = '{tenant}'
        ) as made;
        analyze {table}
    """
    superuser(large, others.format(table=table, tenant=large.tenant))
    [(collection, rows)] = superuser(
        large, f"select collection_id, count(*) from {table} where tenant_id = '{large.tenant}' group by collection_id"
    )
    asked = f"select from {table} where tenant_id = '{large.tenant}' and collection_id = {collection}"
    [([plan],)] = superuser(large, f"explain (format json) {asked}")
    assert plan["Plan"]["Plan Rows"] == pytest.approx(rows, rel=0.2)


def test_an_invalid_index_is_never_searched_and_made_again(large: Deployment) -> None:
    before = hits(large, QUESTIONS[0])
    maintain(large)
    broken = "update pg_index set indisvalid = false where indexrelid::regclass::text ~ '^chunks_of_'"
    superuser(large, broken)
    assert hits(large, QUESTIONS[0]) == before
    assert {name for name, count in scans(large).items() if count} == set()
    changes = maintain(large)
    assert changes == {"chunks_of_": "created"}
    assert hits(large, QUESTIONS[0]) == before


def test_once_a_day_an_index_is_asked_how_much_it_finds(large: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    [asked] = run(large)["recalls"]
    assert (asked["found"], asked["when_new"], asked["rebuilt"]) == (1.0, None, False)
    assert '"IndexRecall":[100.0]' in capsys.readouterr().out
    assert run(large)["recalls"] == []
    assert "IndexRecall" not in capsys.readouterr().out
    # What it finds now is compared with what it found when it was new.
    comment = "comment on index {} is 'recall {} when new, 0.9000 on 2026-01-01'"
    name = asked["name"]
    for when_new, rebuilt in (("unknown", False), ("1.0000", False), ("1.0600", True)):
        superuser(large, comment.format(name, when_new))
        [asked] = run(large)["recalls"]
        assert (asked["found"], asked["rebuilt"]) == (1.0, rebuilt), when_new


def test_an_index_that_there_was_no_time_to_ask_is_asked_on_another_day(
    large: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(recall, "LEAST_SAMPLES", recall.SAMPLES + 1)
        assert run(large)["recalls"] == []
    named = "select relname, obj_description(oid) from pg_class where relname ~ '^embeddings_of_'"
    [(name, comment)] = superuser(large, named)
    assert comment.startswith("recall unknown when new, unknown on ")
    assert run(large)["recalls"] == []
    superuser(large, f"comment on index {name} is 'recall unknown when new, unknown on 2026-01-01'")
    assert [(found["found"], found["when_new"]) for found in run(large)["recalls"]] == [(1.0, None)]
    assert superuser(large, named)[0][1].startswith("recall 1.0000 when new, 1.0000 on ")


def done(deployment: Deployment) -> list[tuple[str, str]]:
    return [(change["name"], change["action"]) for change in run(deployment)["changes"]]


def test_an_index_that_was_built_in_the_place_of_another_takes_it_though_nobody_waited_for_it(
    large: Deployment,
) -> None:
    maintain(large)
    before = [hits(large, question) for question in QUESTIONS]
    indexes = "select {} from pg_indexes where indexname ~ '^embeddings_of_'"
    there = indexes.format("indexname, pg_relation_filenode(indexname::regclass)")
    [(name, number)] = superuser(large, there)
    [(made,)] = superuser(large, indexes.format("indexdef"))
    for suffix in ("_next", "_replaced"):
        superuser(large, made.replace(name, f"{name}{suffix}"))
    assert done(large) == [(f"{name}_replaced", "dropped"), (name, "rebuilt")]
    assert [(found, node != number) for found, node in superuser(large, there)] == [(name, True)]
    assert [hits(large, question) for question in QUESTIONS] == before

    superuser(large, made.replace(name, f"{name}_next"))
    superuser(large, f"update pg_index set indisvalid = false where indexrelid = '{name}_next'::regclass")
    assert done(large) == [(f"{name}_next", "dropped")]
    assert [found for found, _ in superuser(large, there)] == [name]


def test_a_collection_that_shrank_loses_its_indexes(large: Deployment) -> None:
    maintain(large)
    assert maintain(large, threshold=LARGE + 40) == {}
    assert maintain(large, threshold=1000) == {"embeddings_of_": "dropped", "chunks_of_": "dropped"}
    assert len(hits(large, QUESTIONS[0])) == 20


def test_one_run_at_a_time(large: Deployment) -> None:
    with psycopg.connect(large.database.dsn("rag_owner"), autocommit=True) as other:
        other.execute("select pg_advisory_lock(hashtextextended('maintenance', 0))")
        assert maintain(large) == {}
    assert set(maintain(large)) == {"embeddings_of_", "chunks_of_"}


def test_what_is_added_to_an_indexed_collection_is_found_at_once(large: Deployment) -> None:
    maintain(large)
    large.put("new.txt", "zyxomma is a dragonfly.")
    body = large.ask("POST", "/v1/search", {"query": "zyxomma"}).json
    assert body["hits"][0]["key"] == "new.txt"


def test_the_function_that_looks_past_row_security_shows_no_other_tenants_rows(large: Deployment) -> None:
    stranger, _ = large.tenants.create("second")
    collections = superuser(large, "select id, tenant_id from collections")
    lexemes = superuser(large, "select lexemes from chunks limit 1")[0][0]
    seen = {}
    with psycopg.connect(large.database.dsn("rag_query"), autocommit=True) as connection:
        for tenant in (str(large.tenant), str(stranger), ""):
            connection.execute(ALL_OF, [tenant])
            seen[tenant] = sum(
                len(
                    connection.execute(
                        "select * from lexical_candidates(%s, %s, '{}', '{}', '{}/1000000000', null, 1000)",
                        [of, lexemes],
                    ).fetchall()
                )
                for of, _ in collections
            )
        for statement in ("set role rag_definer", "select * from collection_sizes()"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())
    assert seen[str(large.tenant)] > 0
    assert (seen[str(stranger)], seen[""]) == (0, 0)


def test_a_lexeme_that_is_paired_counts_only_beside_another_of_the_question(large: Deployment) -> None:
    chunks = dict(superuser(large, "select id, lexemes from chunks"))
    [first, second, third, *_] = next(iter(chunks.values()))
    wanted = {
        chunk for chunk, lexemes in chunks.items() if first in lexemes or (second in lexemes and third in lexemes)
    }
    [(tenant, collection)] = superuser(large, "select distinct tenant_id, collection_id from chunks")
    with psycopg.connect(large.database.dsn("rag_query"), autocommit=True) as connection:
        connection.execute(ALL_OF, [str(tenant)])
        found = connection.execute(
            "select chunk_id from lexical_candidates(%s, %s, %s, %s, '{}/1000000000', null, 1000)",
            [collection, [first], [second], [first, second, third]],
        ).fetchall()
    assert {chunk for (chunk,) in found} == wanted
    assert len(wanted) < len(chunks)


def weights(deployment: Deployment) -> list[Any]:
    """Chunks by what is in them, with their weights and what they were weighed with."""
    return superuser(deployment, "select content, lexical::text, average_length from chunks order by content")


@pytest.fixture
def short(deployment: Deployment) -> Deployment:
    """Eighty chunks of two words, and one of many."""
    with deployment.function("rag_ingest"):
        for number in range(80):
            deployment.put(f"{number}.txt", f"{WORDS[number % len(WORDS)]} number{number}")
        deployment.put("long.txt", f"{WORDS[0]} {' '.join(WORDS)}")
    return deployment


def test_chunks_are_weighed_anew_where_the_average_length_has_drifted(short: Deployment) -> None:
    assert {average for *_, average in weights(short)} == {100}
    assert run(short, threshold=1000) == {
        "changes": [],
        "recalls": [],
        "chunks_weighed": 81,
        "statistics_added_up": 1,
        "audit_rows_dropped": 0,
    }
    healed = weights(short)
    assert {average for *_, average in healed} == {5}
    with short.function("rag_ingest"):
        for key in [f"{number}.txt" for number in range(80)]:
            before = short.s3.get_object(Bucket=BUCKET, Key=f"{short.tenant}/default/{key}")["Body"].read()
            short.put(key, before + b" ")
    assert weights(short) == healed
    assert run(short, threshold=1000)["chunks_weighed"] == 0


def test_a_short_chunk_stands_before_a_long_one_that_says_the_same(short: Deployment) -> None:
    run(short)
    body = short.ask("POST", "/v1/search", {"query": WORDS[0], "mode": "lexical"}).json
    assert {hit["key"] for hit in body["hits"][:-1]} == {"0.txt", "56.txt"}
    assert body["hits"][-1]["key"] == "long.txt"
    first, *_, last = body["hits"]
    assert last["score"] < 0.6 * first["score"]


def statistics_of(deployment: Deployment) -> Any:
    """What the rows of statistics add up to."""
    frequencies = (
        f"select collection_id, lexeme, sum(document_frequency) from {LEXEME_COUNTS} group by 1, 2 order by 1, 2"
    )
    sizes = """
        select collection_id, sum(document_count), sum(chunk_count), sum(lexeme_count)
        from collection_statistics group by 1 order by 1
    """
    return superuser(deployment, frequencies), superuser(deployment, sizes)


def rows_of_statistics(deployment: Deployment) -> Any:
    counted = "select (select count(*) from lexeme_changes), (select count(*) from collection_statistics)"
    return superuser(deployment, counted)[0]


def test_what_the_last_ingests_left_of_statistics_is_added_up(deployment: Deployment) -> None:
    fill(deployment)
    deployment.put("0/0.md", f"{WORDS[0]} and nothing else")
    deployment.put("few.md", "A collection of one document.", collection="few")
    sums = statistics_of(deployment)
    found = [hits(deployment, question) for question in QUESTIONS]
    before = rows_of_statistics(deployment)
    assert before[0] >= 5
    assert before[1] == 6

    with deployment.function("rag_owner"):
        assert wiring.statistics_maintenance().run(Running(0.0)) == 0  # type: ignore[arg-type]
    assert rows_of_statistics(deployment) == before

    assert run(deployment, threshold=1000)["statistics_added_up"] == 1
    # Of the other collection one row is no more than its sum would be.
    assert rows_of_statistics(deployment) == (1, 2)
    assert statistics_of(deployment) == sums
    assert [hits(deployment, question) for question in QUESTIONS] == found
    assert run(deployment, threshold=1000)["statistics_added_up"] == 0


class Running:
    """A deadline of which these seconds are left, each time it is asked."""

    def __init__(self, *seconds: float) -> None:
        self._seconds = iter(seconds)

    def remaining(self) -> float:
        return next(self._seconds)


def test_weighing_that_was_cut_short_is_finished_by_the_next_run(
    short: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rag.store import weights as job

    with monkeypatch.context() as patch:
        patch.setattr(job, "CHUNKS_AT_ONCE", 30)
        with short.function("rag_owner"):
            running: Any = Running(600.0, 600.0, 0.0)
            assert wiring.weight_maintenance().run(running) == 60
    assert run(short, threshold=1000)["chunks_weighed"] == 21
    assert run(short, threshold=1000)["chunks_weighed"] == 0


def test_an_ingest_that_weighed_with_what_holds_no_more_begins_again(
    short: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rag import ingestion

    real, runs = ingestion.indexed, []

    def late(*arguments: Any) -> Any:
        if not runs:
            runs.append(superuser(short, "update collections set average_length = 7, reweighing = true"))
        return real(*arguments)

    monkeypatch.setattr(ingestion, "indexed", late)
    short.put("late.txt", "weighed with an average that is over")
    assert superuser(short, "select average_length from chunks where content like 'weighed with%'") == [(7,)]


def test_maintenance_is_woken_when_a_collection_doubles_or_outgrows_the_exact_search(deployment: Deployment) -> None:
    sqs = deployment.aws.client("sqs")
    queue = sqs.create_queue(QueueName=f"maintenance-{deployment.tenant}")["QueueUrl"]
    woken = []
    settings = {"maintenance_queue_url": queue, "index_chunks": "50"}
    with deployment.function("rag_ingest", **settings):
        for number in range(66):
            object_key = f"{deployment.tenant}/default/{number}.txt"
            deployment.s3.put_object(Bucket=BUCKET, Key=object_key, Body=b"A few words.")
            deployment.ingest(notification(object_key), **settings)
            if sqs.receive_message(QueueUrl=queue).get("Messages"):
                woken.append(number + 1)
    assert woken == [51, 64]
    assert run(deployment, threshold=50, event="maintain/message.json")["changes"]


def test_an_ingest_does_not_wait_for_a_queue_that_is_not_there(deployment: Deployment) -> None:
    deployment.put("many.md", "\n\n".join(f"# {number}\n\nA few words." for number in range(70)))
    assert deployment.documents()["many.md"]["status"] == "ready"


def test_a_run_that_another_has_overtaken_weighs_nothing_with_what_holds_no_more(
    short: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rag.store import weights as job

    real = job._some

    def overtaken(transaction: Any, collection: int, average: float) -> int:
        monkeypatch.setattr(job, "_some", real)
        superuser(short, "update collections set average_length = 77")
        return real(transaction, collection, average)

    monkeypatch.setattr(job, "_some", overtaken)
    assert run(short, threshold=1000)["chunks_weighed"] == 0
    assert superuser(short, "select average_length, reweighing from collections") == [(77, True)]
    assert run(short, threshold=1000)["chunks_weighed"] == 81
    assert {average for *_, average in weights(short)} == {5}


def test_a_collection_that_others_keep_locked_does_not_keep_another_from_its_indexes(large: Deployment) -> None:
    superuser(large, "update collections set reweighing = true")
    locked = "select pg_advisory_lock(hashtextextended('reweigh ' || id, 0)) from collections"
    with psycopg.connect(large.database.superuser_dsn(), autocommit=True) as other:
        other.execute(locked)
        with pytest.raises(UnavailableError, match="LockNotAvailable"):
            maintain(large)
    assert scans(large).keys() == {"embeddings_of_", "chunks_of_"}


def test_expired_conversations_of_every_tenant_go(deployment: Deployment) -> None:
    stranger, _ = deployment.tenants.create("second")
    for tenant in (deployment.tenant, stranger):
        deployment.put("note.txt", "A note.", tenant=tenant)
        for _ in range(2):
            deployment.ask("POST", "/v1/query", {"question": "A note?", "conversation": True}, tenant=tenant)
    newest = "select distinct on (tenant_id) id from conversations order by tenant_id, expires_at desc"
    superuser(deployment, f"update conversations set expires_at = now() where id not in ({newest})")
    run(deployment)
    assert superuser(deployment, "select count(*), count(distinct tenant_id) from conversations") == [(2, 2)]
    assert superuser(deployment, "select count(*) from messages") == [(4,)]


def test_each_indexed_collection_has_a_function_and_no_other_has(large: Deployment) -> None:
    functions = "select proname from pg_proc where proname like 'nearest\\_of\\_%'"
    maintain(large)
    [(name,)] = superuser(large, functions)
    superuser(large, f"drop function {name}")
    before = hits(large, QUESTIONS[0])
    assert {name for name, count in scans(large).items() if count} == set()  # searched exactly, not in vain
    assert maintain(large) == {}
    assert superuser(large, functions) == [(name,)]
    assert hits(large, QUESTIONS[0]) == before
    assert scans(large)["embeddings_of_"]
    maintain(large, threshold=1000)
    assert superuser(large, functions) == [(name,)]  # for searches that are under way
    assert hits(large, QUESTIONS[0]) == before
    maintain(large, threshold=1000)
    assert superuser(large, functions) == []


def test_a_search_that_saw_the_indexes_just_before_they_were_dropped_finds_the_same(large: Deployment) -> None:
    maintain(large)
    [(embedding,)] = superuser(large, "select embedding::text from embeddings limit 1")
    exact = "select chunks from exact_dense_candidates(%s, %s, %s::halfvec, null, 20)"
    by_index = "select chunks from dense_candidates(%s, %s, 4, %s::halfvec, null, 20)"
    with psycopg.connect(large.database.dsn("rag_query")) as connection:
        connection.execute(ALL_OF, [str(large.tenant)])
        [seen] = connection.execute("select id, space_id from searched_collections where indexed").fetchall()
        assert len(maintain(large, threshold=1000)) == 2
        found = connection.execute(by_index, [*seen, embedding]).fetchall()
        assert found == connection.execute(exact, [*seen, embedding]).fetchall()
        assert len(found[0][0]) == 20
