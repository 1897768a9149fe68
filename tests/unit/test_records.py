"""Which documents a queue message names, as S3 writes it."""

from __future__ import annotations

import json
import uuid
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.records import Named, by_document, document, ignored, is_own, named
from rag.types import Location

TENANT = uuid.UUID("0c6f9a52-6d0b-4d7a-9a53-5f0d3c1e2b11")

BUCKET = "documents"

KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=60)
COLLECTIONS = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)


def message(*encoded_keys: object) -> str:
    return json.dumps({"Records": [record(key) for key in encoded_keys]})


def record(encoded_key: object, bucket: str = BUCKET) -> dict[str, object]:
    return {"s3": {"bucket": {"name": bucket}, "object": {"key": encoded_key}}}


def eventbridge(object_key: object, bucket: str = BUCKET) -> str:
    detail = {"bucket": {"name": bucket}, "object": {"key": object_key}, "reason": "PutObject"}
    return json.dumps({"version": "0", "source": "aws.s3", "detail-type": "Object Created", "detail": detail})


def by_sns(body: str) -> str:
    return json.dumps({"Type": "Notification", "TopicArn": "arn:aws:sns:us-east-1:1:topic", "Message": body})


@given(
    tenant=st.uuids(), collection=COLLECTIONS, key=KEYS.filter(lambda key: not key.endswith(("/", ".metadata.json")))
)
def test_a_place_comes_back_from_the_event_of_its_object(tenant: uuid.UUID, collection: str, key: str) -> None:
    place = Location(tenant, collection, key)
    assert named(message(quote_plus(place.object_key, safe="/")), BUCKET) == [Named(place)]


@given(st.text(max_size=80))
def test_a_key_is_a_document_only_under_its_own_name(object_key: str) -> None:
    found = document(object_key)
    assert found is None or found.sidecar or found.location.object_key == object_key


@pytest.mark.parametrize(
    "object_key",
    [
        "",
        "readme.txt",
        f"{TENANT}",
        f"{TENANT}/default",
        f"{TENANT}/default/",
        f"{TENANT}/default/folder/",
        f"{TENANT}//a.txt",
        f"/{TENANT}/default/a.txt",
        f"{TENANT}/Default/a.txt",
        f"{TENANT}/-default/a.txt",
        f"{TENANT}/{'x' * 64}/a.txt",
        f"{TENANT}/default\n/a.txt",
        f"{TENANT.hex}/default/a.txt",
        f"{str(TENANT).upper()}/default/a.txt",
        f"{{{TENANT}}}/default/a.txt",
        f"{TENANT}/default/nul\0.txt",
        f"{TENANT}/default/.metadata.json",
        f"{TENANT}/default/folder/.metadata.json",
        f"{TENANT}/default/a.txt.metadata.json.metadata.json",
        f"{TENANT}/Default/a.txt.metadata.json",
    ],
)
def test_a_key_outside_the_scheme_is_nobodys(object_key: str) -> None:
    assert document(object_key) is None


@given(tenant=st.uuids(), key=KEYS.filter(lambda key: not key.endswith(("/", ".metadata.json"))))
def test_a_sidecar_is_of_the_document_that_it_describes_and_none_itself(tenant: uuid.UUID, key: str) -> None:
    place = Location(tenant, "default", key)
    encoded = quote_plus(place.object_key + ".metadata.json", safe="/")
    assert named(message(encoded), BUCKET) == [Named(place, sidecar=True)]


def test_a_message_may_name_several_documents_and_keeps_their_order() -> None:
    body = message(f"{TENANT}/default/a+b.txt", "nobodys.txt", f"{TENANT}/default/100%25.txt")
    assert [found.location.key for found in named(body, BUCKET)] == ["a b.txt", "100%.txt"]


@given(tenant=st.uuids(), key=KEYS.filter(lambda key: not key.endswith(("/", ".metadata.json"))))
def test_eventbridge_writes_a_key_as_it_is(tenant: uuid.UUID, key: str) -> None:
    place = Location(tenant, "default", key)
    assert named(eventbridge(place.object_key), BUCKET) == ([] if is_own(place.object_key) else [Named(place)])


@pytest.mark.parametrize("wrapped", [message(f"{TENANT}/default/a+b.txt"), eventbridge(f"{TENANT}/default/a b.txt")])
def test_a_notification_may_come_by_sns(wrapped: str) -> None:
    assert named(by_sns(wrapped), BUCKET) == [Named(Location(TENANT, "default", "a b.txt"))]
    assert named(by_sns('{"Event": "s3:TestEvent"}'), BUCKET) == []


@pytest.mark.parametrize(
    "object_key",
    [".rag/a.txt", f"{TENANT}/.rag/a.txt", f"{TENANT}/default/.rag/a.txt", f"{TENANT}/default/b/.rag/c/a.txt"],
)
def test_what_the_product_writes_itself_is_never_a_document(object_key: str) -> None:
    assert named(message(quote_plus(object_key, safe="/")), BUCKET) == []
    assert ignored(message(object_key), BUCKET) == {"own": 1}


@pytest.mark.parametrize(
    ("body", "reasons"),
    [
        ('{"Event": "s3:TestEvent"}', {"empty": 1}),
        ('{"Records": []}', {"empty": 1}),
        (message(f"{TENANT}/default/folder/", "nobodys.txt", f"{TENANT}/default/a.txt"), {"folder": 1, "nobodys": 1}),
        (eventbridge(f"{TENANT}/default/a.txt"), {}),
        (
            json.dumps({"Records": [{**record(f"{TENANT}/default/a.txt"), "eventName": "ObjectDreamt:Of"}]}),
            {"unknown_event": 1},
        ),
        (
            json.dumps({"Records": [{**record(f"{TENANT}/default/a.txt"), "eventName": "s3:ObjectCreated:Put"}]}),
            {},
        ),
    ],
)
def test_why_a_message_leads_to_no_document_is_said(body: str, reasons: dict[str, int]) -> None:
    assert ignored(body, BUCKET) == reasons


def test_an_event_that_nobody_knows_is_looked_at_all_the_same() -> None:
    body = json.dumps({"Records": [{**record(f"{TENANT}/default/a.txt"), "eventName": "ObjectDreamt:Of"}]})
    assert named(body, BUCKET) == [Named(Location(TENANT, "default", "a.txt"))]


@pytest.mark.parametrize("body", ['{"Event": "s3:TestEvent"}', '{"Records": []}'])
def test_a_notification_may_name_nothing(body: str) -> None:
    assert named(body, BUCKET) == []


@pytest.mark.parametrize(
    "body",
    [
        *("", "{", "{}", "null", "[]", "5", "[" * 10**5, message(None)),
        *(eventbridge(None), eventbridge("a.txt", "another"), by_sns("no JSON"), by_sns("[]"), by_sns(by_sns("{}"))),
        *('{"Message": "wrapped"}', '{"Records": {}', '{"Records": 5}', '{"Records": [[]]}'),
    ],
    ids=lambda body: body[:20] or "empty",
)
def test_what_is_no_notification_is_refused_in_one_way(body: str) -> None:
    with pytest.raises(ValueError, match="not an S3 notification"):
        named(body, BUCKET)


def test_a_notification_of_another_bucket_is_not_ours() -> None:
    body = json.dumps({"Records": [record(f"{TENANT}/default/a.txt", "another")]})
    with pytest.raises(ValueError, match="of the bucket documents"):
        named(body, BUCKET)


def test_messages_of_one_document_stay_together_and_in_their_order() -> None:
    bodies = [message(f"{TENANT}/default/{key}") for key in ("a.txt", "b.txt", "a.txt.metadata.json", "b.txt")]
    records = [{"messageId": str(number), "body": body} for number, body in enumerate([*bodies, "poison", "{}"])]
    groups = by_document(records, BUCKET)
    assert [[record["messageId"] for record in group] for group in groups] == [["0", "2"], ["1", "3"], ["4"], ["5"]]
