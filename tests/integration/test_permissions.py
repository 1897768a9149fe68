"""Who may see a document, from the request that uploads it to what each caller is shown of it."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.integration.deployment import BUCKET, Deployment, Reply, before_reply, notification

DONE: dict[str, list[Any]] = {"batchItemFailures": []}
PUBLIC = "Refunds are paid within nine working days."
SECRET = "Refunds to directors are paid within one working day."


@dataclass(frozen=True)
class Who:
    """A caller as the authorizer tells of him."""

    principal: str
    role: str = "reader"
    groups: tuple[str, ...] = ()

    def asks(self, deployment: Deployment, method: str, path: str, body: Any = None, **event: Any) -> Reply:
        told = {"role": self.role, "principal": self.principal, "groups": json.dumps(self.groups)}
        return deployment.ask(method, path, body, **told, **event)

    def keys(self, deployment: Deployment) -> set[str]:
        return {one["key"] for one in self.asks(deployment, "GET", "/v1/documents").json["documents"]}

    def finds(self, deployment: Deployment, query: str = "refunds", **options: Any) -> set[str]:
        reply = self.asks(deployment, "POST", "/v1/search", {"query": query, **options})
        assert reply.status == 200, reply.json
        return {hit["key"] for hit in reply.json["hits"]}

    def document(self, deployment: Deployment, identity: str) -> Any:
        reply = self.asks(deployment, "GET", f"/v1/documents/{identity}")
        return reply.json if reply.status == 200 else reply.status


ADMIN = Who("key:admin", "admin")
WRITER = Who("key:writer", "writer")
READER = Who("user:1", groups=("sales",))
FINANCE = Who("user:2", groups=("sales", "finance"))
ANN = Who("user:ann")
IN_FINANCE = Who("key:finance", "writer", ("finance",))


def upload(
    deployment: Deployment, key: str, content: bytes | str, *, by: Who = ADMIN, deliver: bool = True, **request: Any
) -> Any:
    """Upload by the form that a caller gets, have the object's message delivered, and return what he was answered."""
    created = by.asks(deployment, "POST", "/v1/documents", {"key": key, **request}).json
    with httpx.Client(timeout=60) as client:
        sent = client.post(created["upload"]["url"], data=created["upload"]["fields"], files={"file": content})
    assert sent.status_code == 204, sent.text
    if deliver:
        assert deployment.ingest(notification(created["upload"]["fields"]["key"])) == DONE
    return created


def beside(deployment: Deployment, key: str, content: Any, *, by: Who = ADMIN) -> None:
    """Upload a sidecar."""
    upload(deployment, f"{key}.metadata.json", content if isinstance(content, str) else json.dumps(content), by=by)


def allowed(deployment: Deployment, key: str) -> Any:
    return deployment.documents()[key]["allowed_principals"]


@pytest.fixture
def filled(deployment: Deployment) -> Deployment:
    """A document for everyone, and one for finance and Ann."""
    upload(deployment, "public.txt", PUBLIC)
    upload(deployment, "secret.txt", SECRET, allowed_principals=["group:finance", "user:ann"])
    return deployment


@pytest.mark.parametrize("who", [ADMIN, FINANCE, ANN, IN_FINANCE])
def test_who_is_named_sees_a_document_and_for_whom_it_is(filled: Deployment, who: Who) -> None:
    identity = filled.documents()["secret.txt"]["id"]
    assert who.keys(filled) == {"public.txt", "secret.txt"}
    assert who.document(filled, identity)["allowed_principals"] == ["group:finance", "user:ann"]
    assert who.finds(filled) == {"public.txt", "secret.txt"}
    assert who.finds(filled, filters={"document_id": identity}) == {"secret.txt"}


@pytest.mark.parametrize(
    "who", [READER, WRITER, Who("user:finance"), Who("key:ann"), Who("user:3", groups=("Finance",))]
)
def test_nobody_else_is_shown_anything_of_it(filled: Deployment, who: Who) -> None:
    identity = filled.documents()["secret.txt"]["id"]
    assert who.keys(filled) == {"public.txt"}
    for mode in ("hybrid", "dense", "lexical"):
        assert who.finds(filled, mode=mode) == {"public.txt"}
    assert who.finds(filled, filters={"document_id": identity}) == set()
    assert who.finds(filled, filters={"key": {"prefix": "secret"}}) == set()
    absent = "11111111-1111-5111-8111-111111111111"
    for method, path in (
        ("GET", "/v1/documents/{}"),
        ("DELETE", "/v1/documents/{}"),
        ("POST", "/v1/documents/{}/retry"),
    ):
        told = [who.asks(filled, method, path.format(one)) for one in (identity, absent)]
        assert len({one.status for one in told}) == 1
        assert told[0].status == (403 if who.role == "reader" and method != "GET" else 404)
        details = [one.json["detail"].replace(identity, "…").replace(absent, "…") for one in told]
        assert details[0] == details[1]
    explained = who.asks(filled, "POST", "/v1/search", {"query": "directors", "why_not": identity}).json
    assert explained["explanation"]["why_not"]["stage"] == "not_found"
    assert "directors" not in json.dumps(explained["hits"])


def test_answers_and_citations_rest_on_what_the_caller_may_see(filled: Deployment) -> None:
    filled.model.says = "They are paid. [1]"
    question = {"question": "When are refunds paid to directors?"}
    shown = {}
    for who in (FINANCE, READER, WRITER, ANN, ADMIN):
        told = who.asks(filled, "POST", "/v1/query", question).json
        shown[who.principal] = {one["key"] for one in (*told["hits"], *told["citations"])}
        if who in (READER, WRITER):
            assert SECRET not in json.dumps(told)
    assert shown == {
        **{who.principal: {"public.txt", "secret.txt"} for who in (FINANCE, ANN, ADMIN)},
        **{who.principal: {"public.txt"} for who in (READER, WRITER)},
    }


def test_lists_and_results_stay_full(deployment: Deployment) -> None:
    for number in range(12):
        upload(
            deployment,
            f"{number:02}.txt",
            f"{PUBLIC} {number}",
            **({"allowed_principals": ["group:finance"]} if number % 2 else {}),
        )
    assert len(READER.finds(deployment, top_k=6)) == 6
    assert len(READER.finds(deployment, top_k=10)) == 6
    pages = [READER.asks(deployment, "GET", "/v1/documents", queryStringParameters={"limit": "5"}).json]
    cursor = {"limit": "5", "cursor": pages[0]["next_cursor"]}
    pages.append(READER.asks(deployment, "GET", "/v1/documents", queryStringParameters=cursor).json)
    keys = [[one["key"] for one in page["documents"]] for page in pages]
    assert keys == [["00.txt", "02.txt", "04.txt", "06.txt", "08.txt"], ["10.txt"]]


def test_a_change_of_the_sidecar_holds_with_the_next_question_and_embeds_nothing(filled: Deployment) -> None:
    filled.model.says = "Within one day. [1]"
    question = {"question": "When are refunds to directors paid?"}

    def told(who: Who) -> tuple[bool, bool]:
        reply = who.asks(filled, "POST", "/v1/query", question).json
        return "secret.txt" in {hit["key"] for hit in reply["hits"]}, reply["cached"]

    assert (told(FINANCE), told(FINANCE)) == ((True, False), (True, True))
    assert told(READER) == (False, False)
    calls = sum("input" in request for request in filled.model.requests)
    beside(filled, "secret.txt", {"allowed_principals": ["group:sales"]})
    assert READER.finds(filled) == {"public.txt", "secret.txt"}
    assert (told(READER), told(ANN)) == ((True, True), (False, True))
    beside(filled, "secret.txt", {"allowed_principals": ["user:ann"]})
    assert (told(READER)[0], told(FINANCE)[0], told(ANN)) == (False, False, (True, True))
    filled.s3.delete_object(Bucket=BUCKET, Key=f"{filled.tenant}/default/secret.txt.metadata.json")
    gone = notification(f"{filled.tenant}/default/secret.txt.metadata.json", event="ObjectRemoved:DeleteMarkerCreated")
    assert filled.ingest(gone) == DONE
    assert allowed(filled, "secret.txt") == ["group:finance", "user:ann"]
    assert sum("input" in request for request in filled.model.requests) == calls + 1  # the other question


def test_a_limit_in_the_sidecar_leaves_the_metadata_to_the_upload(deployment: Deployment) -> None:
    upload(deployment, "a.txt", PUBLIC, metadata={"year": 2026})
    beside(deployment, "a.txt", {"allowed_principals": ["group:finance"]})
    document = deployment.documents()["a.txt"]
    assert (document["metadata"], document["allowed_principals"]) == ({"year": 2026}, ["group:finance"])
    beside(deployment, "a.txt", {"allowed_principals": ["group:finance"], "year": 2027})
    document = deployment.documents()["a.txt"]
    assert (document["metadata"], document["metadata_error"]) == ({"year": 2027}, None)
    assert FINANCE.finds(deployment, filters={"allowed_principals": {"exists": True}}) == set()


def test_a_new_version_is_as_open_as_its_upload_says_unless_a_sidecar_limits_it(filled: Deployment) -> None:
    upload(filled, "secret.txt", "Refunds: nothing is secret any more.")
    assert (allowed(filled, "secret.txt"), READER.finds(filled)) == (None, {"public.txt", "secret.txt"})
    beside(filled, "secret.txt", {"allowed_principals": ["user:ann"]})
    upload(filled, "secret.txt", "Refunds: this is.")
    assert (allowed(filled, "secret.txt"), READER.finds(filled)) == (["user:ann"], {"public.txt"})


def test_until_a_new_version_is_there_the_one_before_is_as_hidden_as_it_was(filled: Deployment) -> None:
    seen: list[Any] = []
    filled.model.script = [before_reply(lambda: seen.append(allowed_now(filled, "secret.txt")))]
    upload(filled, "secret.txt", "Refunds: " + "nothing is secret any more. " * 3)
    assert seen == [["group:finance", "user:ann"]]
    assert allowed(filled, "secret.txt") is None


def allowed_now(deployment: Deployment, key: str) -> Any:
    """Past the API, which is one process with the ingest that is under way."""
    import psycopg

    query = "select allowed_principals from documents where key = %s"
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        return [*connection.execute(query, [key]), (None,)][0][0]


@pytest.mark.parametrize("order", ["sidecar first", "together", "sidecar's event last"])
def test_a_new_document_with_a_sidecar_is_not_public_for_a_moment(deployment: Deployment, order: str) -> None:
    import psycopg

    place = f"{deployment.tenant}/default/new.txt"
    limit = json.dumps({"allowed_principals": ["user:ann"]})
    for key, body in ((f"{place}.metadata.json", limit), (place, SECRET)):
        deployment.s3.put_object(Bucket=BUCKET, Key=key, Body=body)
    with psycopg.connect(deployment.database.superuser_dsn(), autocommit=True) as connection:
        # Whatever is committed of it is looked at, not only what a reader happens to see.
        connection.execute("create table seen (key text, allowed_principals text[])")
        connection.execute(
            "create function see() returns trigger language plpgsql security definer as $$ begin"
            " insert into seen values (new.key, new.allowed_principals); return null; end $$"
        )
        connection.execute("create trigger see after insert or update on documents for each row execute function see()")
        events = [notification(f"{place}.metadata.json"), notification(place)]
        filler = [notification(deployment_store(deployment, f"{n}.txt")) for n in range(5)]
        batch = {
            "sidecar first": [*events],
            "together": [notification(place, f"{place}.metadata.json")],
            "sidecar's event last": [*filler, *reversed(events)],
        }[order]
        assert deployment.ingest(*batch, ingest_threads="1") == DONE
        states = connection.execute("select distinct allowed_principals from seen where key = 'new.txt'").fetchall()
    # {} where it waits behind others, until somebody has looked.
    assert sorted(states) == ([] if order == "together" else [([],)]) + [(["user:ann"],)]
    assert allowed(deployment, "new.txt") == ["user:ann"]
    assert READER.keys(deployment) == ({f"{n}.txt" for n in range(5)} if "last" in order else set())


def deployment_store(deployment: Deployment, key: str) -> str:
    object_key = f"{deployment.tenant}/default/{key}"
    deployment.s3.put_object(Bucket=BUCKET, Key=object_key, Body=f"Nothing of {key}.")
    return object_key


@pytest.mark.parametrize(
    "torn", ["{", "[]", '{"allowed_principals": []}', '{"allowed_principals": ["ann"]}', "x" * 16_385]
)
def test_a_sidecar_that_cannot_be_read_opens_nothing(filled: Deployment, torn: str) -> None:
    place = f"{filled.tenant}/default/"
    for key in ("public.txt", "secret.txt"):
        object_key = f"{place}{key}.metadata.json"
        filled.s3.put_object(Bucket=BUCKET, Key=object_key, Body=torn)
        assert filled.ingest(notification(object_key)) == DONE
    # They stay as they were,
    assert (allowed(filled, "public.txt"), allowed(filled, "secret.txt")) == (None, ["group:finance", "user:ann"])
    for key in ("public.txt", "secret.txt"):
        filled.put(key, "Refunds, in a new version without a limit of its own.")
    # a new version is nobody's, unless the document was somebody's;
    assert (allowed(filled, "public.txt"), allowed(filled, "secret.txt")) == ([], ["group:finance", "user:ann"])
    assert filled.documents()["public.txt"]["metadata_error"].startswith("the sidecar: ")
    assert (READER.keys(filled), READER.finds(filled)) == (set(), set())
    # and is what it is once that is mended.
    beside(filled, "public.txt", {"year": 2026})
    assert (allowed(filled, "public.txt"), READER.finds(filled)) == (None, {"public.txt"})


def test_a_writer_does_not_let_himself_in_by_a_sidecar(filled: Deployment) -> None:
    let_in: dict[str, Any] = {"allowed_principals": ["key:writer", "group:finance"]}
    for content in (let_in, {}, {"year": 1}, {"allowed_principals": ["key:writer"]}):
        beside(filled, "secret.txt", content, by=WRITER)
        assert allowed(filled, "secret.txt") == ["group:finance", "user:ann"]
        assert WRITER.keys(filled) == {"public.txt"}
    # Nor by one that was there before the document,
    beside(filled, "later.txt", let_in, by=WRITER)
    upload(filled, "later.txt", SECRET, allowed_principals=["group:finance"])
    document = filled.documents()["later.txt"]
    assert (document["allowed_principals"], WRITER.keys(filled)) == (["group:finance"], {"public.txt"})
    assert document["metadata_error"] == "the sidecar: whoever uploaded it may not see the document"
    # nor does he open one that a sidecar limited alone.
    upload(filled, "by sidecar.txt", SECRET)
    beside(filled, "by sidecar.txt", {"allowed_principals": ["group:finance"]})
    beside(filled, "by sidecar.txt", {}, by=WRITER)
    filled.put("by sidecar.txt", f"{SECRET} In a new version.")
    assert (allowed(filled, "by sidecar.txt"), WRITER.keys(filled)) == (["group:finance"], {"public.txt"})


def test_who_sees_a_document_may_say_who_else_does(filled: Deployment) -> None:
    beside(filled, "secret.txt", {"allowed_principals": ["group:sales", "group:finance"]}, by=IN_FINANCE)
    assert (allowed(filled, "secret.txt"), READER.finds(filled)) == (
        ["group:sales", "group:finance"],
        {"public.txt", "secret.txt"},
    )


def test_a_writer_may_upload_for_others_and_hears_no_more_of_it(filled: Deployment) -> None:
    created = upload(filled, "mine.txt", SECRET, by=WRITER, allowed_principals=["group:finance"])
    assert (created["visible"], WRITER.document(filled, created["id"])) == (False, 404)
    assert FINANCE.document(filled, created["id"])["status"] == "ready"
    beside(filled, "sidecar.txt", {"allowed_principals": ["group:finance"], "year": 1}, by=WRITER)
    upload(filled, "sidecar.txt", SECRET, by=WRITER)
    upload(filled, "sidecar.txt", f"{SECRET} In a new version.", by=WRITER)
    document = filled.documents()["sidecar.txt"]
    assert (document["allowed_principals"], document["metadata"]) == (["group:finance"], {"year": 1})
    assert document["metadata_error"] is None
    own = upload(filled, "own.txt", SECRET, by=WRITER, allowed_principals=["group:finance", "key:writer"])
    assert (own["visible"], WRITER.document(filled, own["id"])["status"]) == (True, "ready")


def test_whoever_uploads_a_sidecar_that_cannot_be_read_sees_why(deployment: Deployment) -> None:
    beside(deployment, "a.txt", "{", by=WRITER)
    created = upload(deployment, "a.txt", SECRET, by=WRITER)
    document = WRITER.document(deployment, created["id"])
    assert document["metadata_error"] == "the sidecar: is not JSON in UTF-8"
    assert (document["allowed_principals"], READER.document(deployment, created["id"])) == (["key:writer"], 404)
    beside(deployment, "a.txt", {}, by=WRITER)
    assert READER.document(deployment, created["id"])["allowed_principals"] is None


def test_what_was_signed_into_a_form_can_be_neither_changed_nor_left_out(deployment: Deployment) -> None:
    for given in ({"key": "a.txt", "allowed_principals": ["group:finance"]}, {"key": "a.txt.metadata.json"}):
        form = WRITER.asks(deployment, "POST", "/v1/documents", given).json["upload"]
        [name] = [name for name in form["fields"] if name.startswith("x-amz-meta-")]
        kept = {field: value for field, value in form["fields"].items() if field != name}
        with httpx.Client(timeout=60) as client:
            for fields in (kept, {**kept, name: '["key:writer", "group:finance"]'}, {**kept, name: ""}):
                assert client.post(form["url"], data=fields, files={"file": b"x"}).status_code == 403
            assert client.post(form["url"], data=form["fields"], files={"file": b"x"}).status_code == 204


@pytest.mark.parametrize(
    "given",
    [
        {"allowed_principals": []},
        {"allowed_principals": None, "metadata": {"allowed_principals": ["group:finance"]}},
        {"allowed_principals": ["finance"]},
        {"allowed_principals": ["user:" + "x" * 316]},
        {"allowed_principals": [f"user:{number}{'x' * 60}" for number in range(60)]},
        {"key": "a.txt.metadata.json", "allowed_principals": ["group:finance"]},
    ],
)
def test_what_names_nobody_is_refused_with_the_reason(deployment: Deployment, given: Any) -> None:
    reply = WRITER.asks(deployment, "POST", "/v1/documents", {"key": "a.txt", **given})
    assert reply.status == 422
    assert reply.json["errors"][0]["message"] or reply.json["detail"]


def test_a_conversation_is_of_who_has_it_and_later_answers_rest_on_what_is_allowed_then(filled: Deployment) -> None:
    filled.model.says = "Within one day. [1]"
    question = {"question": "When are refunds to directors paid?", "conversation": True}
    begun = FINANCE.asks(filled, "POST", "/v1/query", question).json
    place = f"/v1/conversations/{begun['conversation_id']}"
    beside(filled, "secret.txt", {"allowed_principals": ["user:ann"]})
    assert len(FINANCE.asks(filled, "GET", place).json["messages"]) == 2
    assert ANN.asks(filled, "GET", place).status == 404
    more = {"question": "And refunds to all others?", "conversation_id": begun["conversation_id"]}
    told = FINANCE.asks(filled, "POST", "/v1/query", more).json
    assert {one["key"] for one in (*told["hits"], *told["citations"])} == {"public.txt"}


def test_a_sidecar_limits_what_is_there_while_a_new_version_is_ingested(filled: Deployment) -> None:
    seen: list[Any] = []

    def limit() -> None:
        key = f"{filled.tenant}/default/public.txt.metadata.json"
        filled.s3.put_object(Bucket=BUCKET, Key=key, Body=json.dumps({"allowed_principals": ["user:ann"]}))
        deliver_elsewhere(filled, key)
        seen.append(allowed_now(filled, "public.txt"))

    filled.model.script = [before_reply(limit)]
    upload(filled, "public.txt", "Refunds, in a new version that is still being embedded.")
    assert (seen, allowed(filled, "public.txt")) == ([["user:ann"]], ["user:ann"])


def deliver_elsewhere(deployment: Deployment, object_key: str) -> None:
    """As another sandbox of ingest would, while this one waits for the model."""
    from rag import ingestion, wiring
    from rag.records import document

    found = document(object_key)
    assert found is not None
    failures: list[BaseException] = []

    def work() -> None:
        try:
            ingestion.describe(found.location, bucket=wiring.bucket(), store=wiring.index_store())
        except BaseException as error:  # noqa: BLE001 (told below)
            failures.append(error)

    other = threading.Thread(target=work)
    other.start()
    other.join(10)
    assert not failures


def test_a_large_document_is_published_with_its_limit(deployment: Deployment) -> None:
    pages = (f"# Page {n}\n\n{SECRET} So says entry {n} of a long list of entries about refunds." for n in range(20))
    key, limit = f"{deployment.tenant}/default/large.md", {"allowed_principals": ["group:finance"]}
    said = {"rag-metadata": json.dumps(limit)}
    deployment.s3.put_object(Bucket=BUCKET, Key=key, Body="\n\n".join(pages), Metadata=said)
    seen: list[Any] = []
    deployment.model.script = [before_reply(lambda: seen.append(allowed_now(deployment, "large.md")))]
    staged = {"held_chunks": "5", "batch_size": "4", "chunk_tokens": "40", "chunk_max_tokens": "80"}
    assert deployment.ingest(notification(key), **staged) == DONE
    document = deployment.documents()["large.md"]
    assert (seen, document["allowed_principals"]) == ([["group:finance"]], ["group:finance"])
    assert document["chunk_count"] > 5
    assert (READER.finds(deployment), FINANCE.finds(deployment)) == (set(), {"large.md"})
