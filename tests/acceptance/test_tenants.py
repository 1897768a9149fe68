"""Two tenants and an attacker with one key: nobody reaches what is another's, by any route."""

from __future__ import annotations

import base64
import http.client
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.acceptance.platform_process import RAG, ROOT, Api, PlatformProcess, assert_problem, send_form

pytestmark = pytest.mark.slow

SECRET = "The vault of Harrowgate opens with the word persimmon."
QUESTION = "Which word opens the vault of Harrowgate?"
KEY = "vault/word.txt"
OWN_KEY = "cupboard.txt"
ABSENT = "00000000-0000-5000-8000-000000000000"
OPEN = {"/health", "/ready"}


@dataclass(frozen=True)
class Tenant:
    id: str
    key: str
    api: Api


@dataclass(frozen=True)
class Foreign:
    """What the first tenant has, as far as the second may guess of it."""

    tenant_id: str
    document_id: str
    object_key: str
    conversation_id: str
    erasure_id: str
    key_id: str


@pytest.fixture(scope="module")
def first(running_platform: PlatformProcess) -> Iterator[Tenant]:
    ready = running_platform.ready
    with running_platform.api() as api:
        yield Tenant(ready["tenant_id"], ready["api_key"], api)


@pytest.fixture(scope="module")
def second(running_platform: PlatformProcess) -> Iterator[Tenant]:
    command = [*RAG, "tenants", "create", "second", "--json", "--data", str(running_platform.directory)]
    made = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
    with running_platform.api(made["api_key"]) as api:
        # The first's is English: had they one name space, this would be a conflict.
        assert api.post("/v1/collections", {"name": "vaults", "language": "german"}).status_code == 201
        api.upload(OWN_KEY, b"Nothing of interest lies in this cupboard.", "vaults")
        api.wait_until_ready("vaults", {OWN_KEY})
        yield Tenant(made["tenant_id"], made["api_key"], api)


@pytest.fixture(scope="module")
def foreign(first: Tenant) -> Foreign:
    document_id = first.api.upload(KEY, SECRET.encode(), "vaults")
    first.api.upload(KEY, SECRET.encode(), "cellars")
    for collection in ("vaults", "cellars"):
        first.api.wait_until_ready(collection, {KEY})
    asked = {"question": QUESTION, "collection": "vaults", "conversation": True}
    answer = first.api.post("/v1/query", asked).json()
    assert "persimmon" in answer["answer"]
    doomed = first.api.upload("doomed.txt", b"Nobody needs this any more.", "ashes")
    first.api.wait_until_ready("ashes", {"doomed.txt"})
    erasure = first.api.http.delete(f"/v1/documents/{doomed}").json()
    return Foreign(
        first.id, document_id, f"{first.id}/vaults/{KEY}", answer["conversation_id"], erasure["id"], first.key[4:12]
    )


def _search(path: str, field: str) -> Callable[[Tenant, Foreign], None]:
    """Ask for what the other has: as it is asked there, so that a shared cache would show, and by all its names."""

    def probe(attacker: Tenant, foreign: Foreign) -> None:
        names: list[dict[str, Any]] = [
            {},
            {"document_id": foreign.document_id},
            {"document_id": {"any": [foreign.document_id]}},
            {"key": KEY},
            {"key": {"prefix": "vault"}},
            {"media_type": "text/plain"},
        ]
        for filters in names:
            for mode in ("hybrid", "dense", "lexical"):
                body = {field: QUESTION, "collection": "vaults", "mode": mode, "filters": filters}
                reply = attacker.api.post(path, body)
                assert reply.status_code == 200, reply.text
                assert {hit["key"] for hit in reply.json()["hits"]} <= {OWN_KEY}
                assert not _shows(reply, foreign)
        absent, hidden = (attacker.api.post(path, {field: QUESTION, "collection": at}) for at in ("nowhere", "cellars"))
        for reply in (absent, hidden):
            assert_problem(reply, 404)
        assert _words(absent, "nowhere") == _words(hidden, "cellars")
        for collection in (f"{foreign.tenant_id}/vaults", "../vaults", "%"):
            assert_problem(attacker.api.post(path, {field: QUESTION, "collection": collection}), 422)

    return probe


def _list(attacker: Tenant, foreign: Foreign) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps(["vaults", ""]).encode()).decode()
    for wanted in (
        {},
        {"collection": "vaults"},
        {"key": KEY},
        {"prefix": "vault"},
        {"status": "ready"},
        {"cursor": cursor},
        {"tenant_id": foreign.tenant_id},
    ):
        listed = attacker.api.get("/v1/documents", **wanted)
        assert {document["key"] for document in listed.json()["documents"]} <= {OWN_KEY}
        assert not _shows(listed, foreign)


def _by_id(method: str, path: str, of: Callable[[Foreign], str]) -> Callable[[Tenant, Foreign], None]:
    def probe(attacker: Tenant, foreign: Foreign) -> None:
        foreign_reply, absent_reply = (
            attacker.api.http.request(method, f"{path}/{number}") for number in (of(foreign), ABSENT)
        )
        for reply in (foreign_reply, absent_reply):
            assert_problem(reply, 404)
        assert _words(foreign_reply, of(foreign)) == _words(absent_reply, ABSENT)

    return probe


def _conversations(attacker: Tenant, foreign: Foreign) -> None:
    assert attacker.api.get("/v1/conversations").json() == {"conversations": []}
    replies = [
        attacker.api.post("/v1/query", {"question": QUESTION, "collection": "vaults", "conversation_id": number})
        for number in (foreign.conversation_id, ABSENT)
    ]
    for reply in replies:
        assert_problem(reply, 404)
    assert _words(replies[0], foreign.conversation_id) == _words(replies[1], ABSENT)


def _upload(attacker: Tenant, foreign: Foreign) -> None:
    for key in (f"../../{foreign.object_key}", f"/{foreign.object_key}", "..", "./x", "a//b", "a\0b", "x/"):
        assert_problem(attacker.api.post("/v1/documents", {"key": key}), 422)
    for collection in (foreign.tenant_id.upper(), f"../{foreign.tenant_id}", f"{foreign.tenant_id}/vaults", ""):
        assert_problem(attacker.api.post("/v1/documents", {"key": "x", "collection": collection}), 422)
    made = attacker.api.post("/v1/documents", {"key": foreign.object_key, "collection": "vaults"}).json()
    assert made["id"] != foreign.document_id
    assert made["upload"]["fields"]["key"] == f"{attacker.id}/vaults/{foreign.object_key}"


def _collections(attacker: Tenant, foreign: Foreign) -> None:
    listed = attacker.api.get("/v1/collections")
    counts = {one["name"]: one["document_count"] for one in listed.json()["collections"]}
    assert {name: counts[name] for name in counts if counts[name]} == {"vaults": 1}
    assert "cellars" not in counts


def _create_collection(attacker: Tenant, foreign: Foreign) -> None:
    made = attacker.api.post("/v1/collections", {"name": "taken-by-both"})
    assert (made.status_code, made.json()["document_count"]) == (201, 0)


def _retry(attacker: Tenant, foreign: Foreign) -> None:
    replies = [attacker.api.post(f"/v1/documents/{number}/retry", {}) for number in (foreign.document_id, ABSENT)]
    for reply in replies:
        assert_problem(reply, 404)
    assert _words(replies[0], foreign.document_id) == _words(replies[1], ABSENT)


def _delete_collection(attacker: Tenant, foreign: Foreign) -> None:
    replies = {name: attacker.api.http.delete(f"/v1/collections/{name}") for name in ("cellars", "nowhere")}
    for reply in replies.values():
        assert_problem(reply, 404)
    assert _words(replies["cellars"], "cellars") == _words(replies["nowhere"], "nowhere")


def _erasures(attacker: Tenant, foreign: Foreign) -> None:
    listed = attacker.api.get("/v1/erasures")
    assert listed.status_code == 200
    assert foreign.erasure_id not in listed.text


def _keys(attacker: Tenant, foreign: Foreign) -> None:
    listed = attacker.api.get("/v1/keys")
    assert attacker.key[4:12] in {key["id"] for key in listed.json()["keys"]}
    assert foreign.key_id not in listed.text


def _create_key(attacker: Tenant, foreign: Foreign) -> None:
    """A key reaches its own tenant, whatever it is to reach."""
    made = attacker.api.post("/v1/keys", {"name": "theirs", "collections": ["vaults", "cellars"]}).json()
    reply = attacker.api.http.post(
        "/v1/search", json={"query": QUESTION, "collection": "cellars"}, headers={"x-api-key": made["api_key"]}
    )
    assert_problem(reply, 404)
    attacker.api.http.delete(f"/v1/keys/{made['id']}")
    assert_problem(attacker.api.post("/v1/keys", {"name": "theirs", "tenant_id": foreign.tenant_id}), 422)


def _rotate_key(attacker: Tenant, foreign: Foreign) -> None:
    replies = [attacker.api.post(f"/v1/keys/{number}/rotate", {}) for number in (foreign.key_id, "00000000")]
    for reply in replies:
        assert_problem(reply, 404)
    assert _words(replies[0], foreign.key_id) == _words(replies[1], "00000000")


def _revoke_key(attacker: Tenant, foreign: Foreign) -> None:
    replies = [attacker.api.http.delete(f"/v1/keys/{number}") for number in (foreign.key_id, "00000000")]
    for reply in replies:
        assert_problem(reply, 404)
    assert _words(replies[0], foreign.key_id) == _words(replies[1], "00000000")


def _audit(attacker: Tenant, foreign: Foreign) -> None:
    for wanted in ({"limit": 1000}, {"document": foreign.document_id}, {"action": "document.create"}):
        reply = attacker.api.get("/v1/audit", **wanted)
        assert reply.status_code == 200, reply.text
        records = reply.json()["records"]
        assert f"key:{foreign.key_id}" not in {record["principal"] for record in records}
        # That it was asked for by its id is the attacker's own doing; nothing is told of it.
        told = [one for record in records for one in record["documents"] if one["document_id"] == foreign.document_id]
        assert all((one["version_id"], one["positions"]) == (None, []) for one in told)


def _export(attacker: Tenant, foreign: Foreign) -> None:
    for kind in ("collections", "documents", "conversations", "feedback", "usage", "erasures"):
        reply = attacker.api.get(f"/v1/export/{kind}", limit=500)
        assert reply.status_code == 200, reply.text
        assert not _shows(reply, foreign)
        assert foreign.conversation_id not in reply.text
        assert foreign.erasure_id not in reply.text
    assert_problem(attacker.api.get("/v1/export/tenants"), 422)


def _erase_user(attacker: Tenant, foreign: Foreign) -> None:
    begun = attacker.api.http.delete("/v1/users/user:of-the-other/data")
    assert begun.status_code == 202, begun.text
    assert begun.json()["scope"] == "principal"
    assert_problem(attacker.api.http.delete("/v1/users/nobody/data"), 422)


def _usage(attacker: Tenant, foreign: Foreign) -> None:
    """What somebody else uses is in no sum."""
    listed = attacker.api.get("/v1/usage", by=["key", "month"])
    assert listed.status_code == 200
    assert foreign.key_id not in listed.text


PROBES: dict[tuple[str, str], Callable[[Tenant, Foreign], None]] = {
    ("post", "/v1/query"): _search("/v1/query", "question"),
    ("post", "/v1/search"): _search("/v1/search", "query"),
    ("get", "/v1/documents"): _list,
    ("get", "/v1/documents/{document_id}"): _by_id("GET", "/v1/documents", attrgetter("document_id")),
    ("delete", "/v1/documents/{document_id}"): _by_id("DELETE", "/v1/documents", attrgetter("document_id")),
    ("post", "/v1/documents/{document_id}/retry"): _retry,
    ("get", "/v1/erasures"): _erasures,
    ("get", "/v1/audit"): _audit,
    ("delete", "/v1/users/{principal}/data"): _erase_user,
    ("get", "/v1/export/{kind}"): _export,
    ("get", "/v1/erasures/{erasure_id}"): _by_id("GET", "/v1/erasures", attrgetter("erasure_id")),
    ("delete", "/v1/collections/{name}"): _delete_collection,
    ("get", "/v1/conversations"): _conversations,
    ("get", "/v1/conversations/{conversation_id}"): _by_id("GET", "/v1/conversations", attrgetter("conversation_id")),
    ("delete", "/v1/conversations/{conversation_id}"): _by_id(
        "DELETE", "/v1/conversations", attrgetter("conversation_id")
    ),
    ("get", "/v1/collections"): _collections,
    ("post", "/v1/collections"): _create_collection,
    ("post", "/v1/documents"): _upload,
    ("get", "/v1/usage"): _usage,
    ("get", "/v1/keys"): _keys,
    ("post", "/v1/keys"): _create_key,
    ("delete", "/v1/keys/{key_id}"): _revoke_key,
    ("post", "/v1/keys/{key_id}/rotate"): _rotate_key,
}


def test_every_route_is_probed(running_platform: PlatformProcess) -> None:
    assert set(_routes(running_platform)) == set(PROBES)


@pytest.mark.parametrize("route", PROBES, ids=" ".join)
def test_a_foreign_document_is_out_of_reach_by(
    route: tuple[str, str], first: Tenant, second: Tenant, foreign: Foreign
) -> None:
    PROBES[route](second, foreign)
    assert first.api.get(f"/v1/documents/{foreign.document_id}").json()["status"] == "ready"
    assert first.api.post("/v1/search", {"query": QUESTION, "collection": "vaults"}).json()["hits"][0]["key"] == KEY
    assert len(first.api.get(f"/v1/conversations/{foreign.conversation_id}").json()["messages"]) == 2


def test_a_presigned_form_writes_its_own_key_and_no_other(
    running_platform: PlatformProcess, first: Tenant, second: Tenant, foreign: Foreign
) -> None:
    form = second.api.post("/v1/documents", {"key": "mine.txt", "collection": "forms"}).json()["upload"]
    stolen = {**form, "fields": {**form["fields"], "key": foreign.object_key}}
    assert send_form(stolen, b"Overwritten.").status_code == 403
    templated = {**form, "fields": {**form["fields"], "key": f"{foreign.tenant_id}/vaults/${{filename}}"}}
    assert send_form(templated, b"Overwritten.").status_code == 403
    unsigned = {**form, "fields": {"key": foreign.object_key}}
    assert send_form(unsigned, b"Overwritten.").status_code == 403
    body = running_platform.client("s3").get_object(Bucket=running_platform.ready["bucket"], Key=foreign.object_key)
    assert body["Body"].read().decode() == SECRET
    assert send_form(form, b"Mine.").status_code == 204
    second.api.wait_until_ready("forms", {"mine.txt"})
    second.api.http.delete(f"/v1/documents/{second.api.documents('forms')['mine.txt']['id']}")
    assert first.api.documents("forms") == {}


def test_the_bucket_is_closed_to_whoever_has_no_credentials(
    running_platform: PlatformProcess, foreign: Foreign
) -> None:
    ready = running_platform.ready
    url = f"{ready['s3_endpoint']}/{ready['bucket']}"
    with httpx.Client(trust_env=False, timeout=60) as client:
        for method, path in (("GET", ""), ("GET", f"/{foreign.object_key}"), ("PUT", f"/{foreign.object_key}")):
            assert client.request(method, url + path).status_code == 403


def _forged(key: str, other: str) -> dict[str, dict[str, str]]:
    """Headers that name no live key, by what is wrong with them."""
    public, _, secret = key.partition(".")
    last = "a" if key[-1] != "a" else "b"
    return {
        "none": {},
        "empty": {"x-api-key": ""},
        "shorter": {"x-api-key": key[:-1]},
        "longer": {"x-api-key": key + "x"},
        "changed": {"x-api-key": key[:-1] + last},
        "half": {"x-api-key": public},
        "other case": {"x-api-key": key.swapcase()},
        "sql": {"x-api-key": "' or true --"},
        "mixed": {"x-api-key": f"{public}.{other.partition('.')[2]}"},
        "checksum only": {"x-api-key": f"{public}.{'0' * (len(secret) - 6)}{secret[-6:]}"},
        "shorter bearer": {"authorization": f"Bearer {key[:-1]}"},
        "basic": {"authorization": f"Basic {key}"},
        "no token": {"authorization": "Bearer"},
        "cookie": {"cookie": f"x-api-key={key}"},
    }


def test_no_door_opens_without_a_whole_key(running_platform: PlatformProcess, first: Tenant, second: Tenant) -> None:
    with running_platform.api("") as nobody:
        for method, path in [*_routes(running_platform), ("get", "/"), ("get", "/v2/anything")]:
            for wrong, headers in _forged(first.key, second.key).items():
                reply = nobody.http.request(method, path, headers=headers, json={})
                assert_problem(reply, 401)
                assert reply.headers["www-authenticate"].startswith("Bearer"), wrong


@pytest.mark.parametrize(
    "path",
    [
        "/health/../v1/documents",
        "/health/%2e%2e/v1/documents",
        "/docs/..%2fv1/documents",
        "//v1/documents",
        "/V1/documents",
        "/v1/documents/",
        "/v1/documents?/health",
        "/v1/documents#/health",
        "/health;/v1/documents",
        "/2015-03-31/functions/tenants/invocations",
        "/health/../2015-03-31/functions/tenants/invocations",
    ],
)
def test_no_spelling_of_a_path_goes_round_the_authorizer(running_platform: PlatformProcess, path: str) -> None:
    address = urlsplit(running_platform.ready["url"])
    assert address.hostname
    connection = http.client.HTTPConnection(address.hostname, address.port or 80, timeout=60)
    connection.putrequest("GET", path, skip_host=False)  # as it is, where httpx would tidy it up
    connection.endheaders()
    reply = connection.getresponse()
    body = reply.read().decode()
    connection.close()
    assert reply.status in {400, 401, 404}, body
    assert reply.getheader("content-type") == "application/problem+json" or reply.status == 400
    assert "documents" not in json.loads(body) if body.startswith("{") else True


def test_the_public_port_invokes_no_function(running_platform: PlatformProcess, second: Tenant) -> None:
    ready = running_platform.ready
    tenants = running_platform.rows("select count(*) from tenants")
    path = "/2015-03-31/functions/tenants/invocations"
    body = json.dumps({"action": "create", "name": "intruder"})
    for headers in ({"authorization": f"Bearer {ready['admin_token']}", "x-api-key": second.key}, {}):
        for method in ("POST", "GET", "PUT"):
            sent = {**headers, "content-type": "application/json"}
            reply = second.api.http.request(method, path, content=body, headers=sent)
            assert_problem(reply, 401, 404, 405)
    refused = httpx.post(
        ready["admin_url"] + path, content=body, headers={"x-api-key": second.key}, trust_env=False, timeout=60
    )
    assert refused.status_code == 403
    assert running_platform.rows("select count(*) from tenants") == tenants


def test_errors_carry_a_request_id_and_nothing_of_the_inside(second: Tenant) -> None:
    http, as_json = second.api.http, {"content-type": "application/json"}
    odd = "'; drop table documents; --"
    for reply, *statuses in (
        (http.post("/v1/query", content="{", headers=as_json), 400),
        (http.post("/v1/query", content=b"\xff\xfe", headers=as_json), 400),
        (http.post("/v1/query", content="[" * 50_000, headers=as_json), 400, 422),
        (http.post("/v1/query", json={}), 422),
        (http.post("/v1/query", json={"question": "x" * 5000}), 422),
        (http.post("/v1/query", json={"question": "x", "filters": {"document_id": odd}}), 422),
        (http.post("/v1/query", json={"question": "x", "top_k": 10**30}), 422),
        (http.post("/v1/search", json={"query": "a\0b"}), 422),
        (http.get("/v1/documents", params={"limit": "-1"}), 422),
        (http.get("/v1/documents", params={"cursor": "bm9uc2Vuc2U="}), 400),
        (http.get("/v1/documents", params={"cursor": base64.urlsafe_b64encode(b"[1, 2]").decode()}), 400),
        (http.get("/v1/documents", params={"cursor": "é"}), 400),
        (http.get(f"/v1/documents/{odd}"), 404, 422),
        (http.delete("/v1/documents/x"), 422),
        (http.put("/v1/documents"), 405),
        (http.get("/v1/nothing"), 404),
        (http.post("/v1/documents", json={"key": "x", "size": 10**15}), 413),
        (http.post("/v1/collections", json={"name": "x", "language": odd}), 422),
        (http.post("/v1/query", content=b"x" * (11 * 1024 * 1024)), 413),
    ):
        assert_problem(reply, *statuses)
    assert http.get("/v1/documents", params={"prefix": odd}).json()["documents"] == []


def test_what_the_client_says_of_itself_is_not_believed(second: Tenant, foreign: Foreign) -> None:
    lies = {
        "x-tenant-id": foreign.tenant_id,
        "tenant_id": foreign.tenant_id,
        "x-amzn-request-context": json.dumps({"authorizer": {"tenant_id": foreign.tenant_id}}),
        "x-http-method-override": "DELETE",
        "x-request-id": "chosen",
    }
    reply = second.api.http.get(f"/v1/documents/{foreign.document_id}", headers=lies)
    assert_problem(reply, 404)
    assert reply.json()["request_id"] != "chosen"


def _routes(platform: PlatformProcess) -> list[tuple[str, str]]:
    """Every operation that needs a key."""
    with platform.api("") as nobody:
        paths = nobody.get("/openapi.json").json()["paths"]
    return [(method, path) for path in paths if path not in OPEN for method in paths[path]]


def _shows(reply: httpx.Response, foreign: Foreign) -> bool:
    """Whether anything of the document or of its owner stands in the reply."""
    return any(word in reply.text for word in ("persimmon", foreign.document_id, foreign.tenant_id))


def _words(reply: httpx.Response, document_id: str) -> dict[str, Any]:
    """A problem without what is the request's own."""
    problem = json.loads(reply.text.replace(document_id, "…"))
    return {name: problem[name] for name in problem if name != "request_id"}
