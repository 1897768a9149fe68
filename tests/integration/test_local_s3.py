"""The local S3 as a real process: what clients and consumers of its events see, and what a restart keeps."""

from __future__ import annotations

import http.client
import io
import itertools
import json
import threading
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus, urlsplit

import boto3
import httpx
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from local.aws.exchange import authorization
from local.aws.journal import Journal
from local.aws_service import Aws

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

_numbers = itertools.count(1)
MEGABYTE = 1024 * 1024


@dataclass
class Place:
    """A versioned bucket, and the queue that hears of everything in it."""

    server: Aws
    bucket: str
    queue_url: str
    queue_arn: str

    @cached_property
    def s3(self) -> Any:
        return self.server.client("s3")

    @cached_property
    def sqs(self) -> Any:
        return self.server.client("sqs")

    def put(self, key: str, body: bytes = b"text", **options: Any) -> dict[str, Any]:
        return dict(self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, **options))

    def head(self, key: str, **options: Any) -> dict[str, Any]:
        reply = dict(self.s3.head_object(Bucket=self.bucket, Key=key, **options))
        return {name: value for name, value in reply.items() if name != "ResponseMetadata"}

    def announce(self, *events: str, **rules: str) -> None:
        filters = {"Key": {"FilterRules": [{"Name": name, "Value": value} for name, value in rules.items()]}}
        configuration = {"Id": "rag", "QueueArn": self.queue_arn, "Events": list(events), "Filter": filters}
        self.s3.put_bucket_notification_configuration(
            Bucket=self.bucket, NotificationConfiguration={"QueueConfigurations": [configuration]}
        )

    def messages(self) -> list[dict[str, Any]]:
        """Everything in the queue, which is empty then."""
        bodies = []
        while found := self.sqs.receive_message(QueueUrl=self.queue_url, MaxNumberOfMessages=10).get("Messages"):
            for message in found:
                self.sqs.delete_message(QueueUrl=self.queue_url, ReceiptHandle=message["ReceiptHandle"])
                bodies.append(json.loads(message["Body"]))
        return bodies

    def records(self) -> list[dict[str, Any]]:
        return [record for message in self.messages() for record in message.get("Records", [])]

    def happened(self) -> list[tuple[str, str, str | None]]:
        objects = [(record["eventName"], record["s3"]["object"]) for record in self.records()]
        return [(event, unquote_plus(found["key"]), found.get("versionId")) for event, found in objects]


def make_place(server: Aws, *, versioned: bool = True) -> Place:
    number = next(_numbers)
    bucket, queue = f"bucket-{number}", f"queue-{number}"
    place = Place(server, bucket, f"{server.url}/123456789012/{queue}", f"arn:aws:sqs:us-east-1:123456789012:{queue}")
    assert place.sqs.create_queue(QueueName=queue)["QueueUrl"] == place.queue_url
    place.s3.create_bucket(Bucket=bucket)
    if versioned:
        place.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    place.announce("s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:ObjectRestore:*")
    place.messages()
    return place


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    server = Aws(tmp_path_factory.mktemp("servers") / "aws")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def place(server: Aws) -> Place:
    return make_place(server)


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """A server that a test may kill."""
    server = Aws(tmp_path_factory.mktemp("killed") / "aws")
    server.start()
    yield server
    server.stop()


def restart(server: Aws) -> None:
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    server.start()


def refused(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


# Events


def test_a_put_is_announced_as_s3_announces_it(place: Place) -> None:
    started = datetime.now(UTC)
    reply = place.put("folder/a b.txt", b"hello")
    [record] = place.records()
    assert started.timestamp() - 1 <= datetime.fromisoformat(record.pop("eventTime")).timestamp()
    assert len(record["s3"]["object"].pop("sequencer")) == 18
    assert record["responseElements"].pop("x-amz-id-2")
    assert record == {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventName": "ObjectCreated:Put",
        "userIdentity": {"principalId": "AWS:LOCALRAG"},
        "requestParameters": {"sourceIPAddress": "127.0.0.1"},
        "responseElements": {"x-amz-request-id": reply["ResponseMetadata"]["RequestId"]},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "rag",
            "bucket": {
                "name": place.bucket,
                "ownerIdentity": {"principalId": "123456789012"},
                "arn": f"arn:aws:s3:::{place.bucket}",
            },
            "object": {
                "key": "folder%2Fa+b.txt",
                "size": 5,
                "eTag": "5d41402abc4b2a76b9719d911017c592",
                "versionId": reply["VersionId"],
            },
        },
    }


@pytest.mark.parametrize(
    "key", ["a b+c.txt", "100%.txt", "%41", "é/日本.pdf", "a//b/../c", "q?x=1&y#z", "latest/meta-data/"]
)
def test_any_key_is_stored_and_announced_under_its_own_name(place: Place, key: str) -> None:
    version = place.put(key, key.encode())["VersionId"]
    assert place.happened() == [("ObjectCreated:Put", key, version)]
    assert place.s3.get_object(Bucket=place.bucket, Key=key)["Body"].read() == key.encode()
    assert [found["Key"] for found in place.s3.list_objects_v2(Bucket=place.bucket)["Contents"]] == [key]


def test_overwrites_markers_and_deletes_by_version_are_announced_in_order(place: Place) -> None:
    first, second = place.put("k", b"1")["VersionId"], place.put("k", b"2")["VersionId"]
    marker = place.s3.delete_object(Bucket=place.bucket, Key="k")["VersionId"]
    place.s3.delete_object(Bucket=place.bucket, Key="k", VersionId=second)
    place.s3.delete_object(Bucket=place.bucket, Key="k", VersionId=marker)
    place.s3.delete_object(Bucket=place.bucket, Key="k", VersionId="no-such-version")
    records = place.records()
    assert [(record["eventName"], record["s3"]["object"]["versionId"]) for record in records] == [
        ("ObjectCreated:Put", first),
        ("ObjectCreated:Put", second),
        ("ObjectRemoved:DeleteMarkerCreated", marker),
        ("ObjectRemoved:Delete", second),
        ("ObjectRemoved:Delete", marker),
    ]
    sequencers = [record["s3"]["object"]["sequencer"] for record in records]
    assert sequencers == sorted(set(sequencers))
    assert "size" not in records[3]["s3"]["object"]
    assert place.head("k")["VersionId"] == first


def test_a_key_that_never_existed_gets_a_delete_marker(place: Place) -> None:
    marker = place.s3.delete_object(Bucket=place.bucket, Key="never")["VersionId"]
    assert place.happened() == [("ObjectRemoved:DeleteMarkerCreated", "never", marker)]
    listed = place.s3.list_object_versions(Bucket=place.bucket)
    assert [found["VersionId"] for found in listed["DeleteMarkers"]] == [marker]
    assert "Versions" not in listed


def test_a_bucket_without_versions_announces_no_version_ids(server: Aws) -> None:
    place = make_place(server, versioned=False)
    place.put("k", b"1")
    place.put("k", b"2")
    place.s3.delete_object(Bucket=place.bucket, Key="k")
    place.s3.delete_object(Bucket=place.bucket, Key="k")
    events = ["ObjectCreated:Put", "ObjectCreated:Put", "ObjectRemoved:Delete"]
    assert place.happened() == [(event, "k", None) for event in events]


def test_deleting_many_objects_announces_each(place: Place) -> None:
    version = place.put("a")["VersionId"]
    place.put("b & c")
    place.messages()
    objects = [{"Key": "a", "VersionId": version}, {"Key": "b & c"}]
    place.s3.delete_objects(Bucket=place.bucket, Delete={"Objects": objects})
    assert [(event, key) for event, key, _ in place.happened()] == [
        ("ObjectRemoved:Delete", "a"),
        ("ObjectRemoved:DeleteMarkerCreated", "b & c"),
    ]


def test_a_copy_is_announced_as_a_copy(place: Place) -> None:
    place.put("a", b"text", Metadata={"n": "1"})
    place.messages()
    version = place.s3.copy_object(Bucket=place.bucket, Key="b", CopySource={"Bucket": place.bucket, "Key": "a"})[
        "VersionId"
    ]
    assert place.happened() == [("ObjectCreated:Copy", "b", version)]
    assert place.head("b")["Metadata"] == {"n": "1"}


def test_an_older_version_is_restored_by_copying_it_over_the_newer(place: Place) -> None:
    old = place.put("k", b"old")["VersionId"]
    place.put("k", b"new")
    place.messages()
    source = {"Bucket": place.bucket, "Key": "k", "VersionId": old}
    version = place.s3.copy_object(Bucket=place.bucket, Key="k", CopySource=source)["VersionId"]
    assert place.happened() == [("ObjectCreated:Copy", "k", version)]
    assert place.s3.get_object(Bucket=place.bucket, Key="k")["Body"].read() == b"old"


def test_an_object_brought_back_from_the_archive_is_announced(place: Place) -> None:
    place.put("cold", StorageClass="GLACIER")
    place.messages()
    place.s3.restore_object(Bucket=place.bucket, Key="cold", RestoreRequest={"Days": 1})
    assert [event for event, _, _ in place.happened()] == ["ObjectRestore:Post", "ObjectRestore:Completed"]


def test_an_upload_in_parts_is_announced_once(place: Place) -> None:
    body = bytes(range(256)) * (12 * MEGABYTE // 256)
    place.s3.upload_fileobj(io.BytesIO(body), place.bucket, "big")
    [record] = place.records()
    found = record["s3"]["object"]
    assert record["eventName"] == "ObjectCreated:CompleteMultipartUpload"
    assert (found["size"], found["eTag"]) == (len(body), place.head("big")["ETag"].strip('"'))
    assert found["eTag"].endswith("-2")


def test_only_wanted_events_of_wanted_keys_are_announced(place: Place) -> None:
    place.announce("s3:ObjectCreated:Put", prefix="in/", suffix=".pdf")
    place.messages()
    for key in ("in/a.pdf", "in/a.txt", "out/a.pdf"):
        place.put(key)
    place.s3.delete_object(Bucket=place.bucket, Key="in/a.pdf")
    assert [(event, key) for event, key, _ in place.happened()] == [("ObjectCreated:Put", "in/a.pdf")]


def test_a_new_configuration_sends_a_test_event_and_reads_back(place: Place) -> None:
    place.announce("s3:ObjectCreated:*", prefix="in/")
    [event] = place.messages()
    assert {name: event[name] for name in ("Service", "Event", "Bucket")} == {
        "Service": "Amazon S3",
        "Event": "s3:TestEvent",
        "Bucket": place.bucket,
    }
    [rule] = place.s3.get_bucket_notification_configuration(Bucket=place.bucket)["QueueConfigurations"]
    assert (rule["Id"], rule["QueueArn"], rule["Events"]) == ("rag", place.queue_arn, ["s3:ObjectCreated:*"])
    assert rule["Filter"]["Key"]["FilterRules"] == [{"Name": "Prefix", "Value": "in/"}]


def test_a_configuration_for_a_queue_that_is_not_there_is_refused(place: Place) -> None:
    place.queue_arn += "-gone"
    with pytest.raises(ClientError) as error:
        place.announce("s3:ObjectCreated:*")
    assert refused(error) == "InvalidArgument"


@pytest.mark.parametrize("media_type", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_a_body_that_is_called_a_form_is_stored_as_it_is(place: Place, media_type: str) -> None:
    place.put("form", b"a=1&key=2", ContentType=media_type)
    stored = place.s3.get_object(Bucket=place.bucket, Key="form")
    assert (stored["Body"].read(), stored["ContentType"]) == (b"a=1&key=2", media_type)


def test_what_fails_is_not_announced(place: Place) -> None:
    place.put("k")
    place.messages()
    with pytest.raises(ClientError) as error:
        place.put("k", IfNoneMatch="*")
    assert refused(error) == "PreconditionFailed"
    assert place.records() == []


def test_an_announced_object_is_there_with_all_its_metadata(place: Place) -> None:
    keys = {f"k{number}" for number in range(40)}
    writers = [
        threading.Thread(target=lambda part: [place.put(key, Metadata={"name": key}) for key in part], args=[part])
        for part in (sorted(keys)[::2], sorted(keys)[1::2])
    ]
    for writer in writers:
        writer.start()
    seen: dict[str, str] = {}
    while len(seen) < len(keys):
        found = place.sqs.receive_message(QueueUrl=place.queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=10)
        for message in found.get("Messages", []):
            key = json.loads(message["Body"])["Records"][0]["s3"]["object"]["key"]
            seen[key] = place.head(key)["Metadata"]["name"]
    for writer in writers:
        writer.join()
    assert seen == {key: key for key in keys}


# Forms and URLs


def post(place: Place, key: str = "up/a.txt", body: bytes = b"0123456789", **change: Any) -> httpx.Response:
    """Upload as a browser does; `change` replaces fields, adds conditions, or the files of the form."""
    fields = {"Content-Type": "text/plain", **change.get("fields", {})}
    conditions = [["content-length-range", 1, 100], *({name: value} for name, value in fields.items())]
    signed = place.s3.generate_presigned_post(place.bucket, key, Fields=fields, Conditions=conditions, ExpiresIn=60)
    files = change.get("files", {"file": ("C:\\dir\\own name.txt", body)})
    return httpx.post(signed["url"], data={**signed["fields"], **change.get("sent", {})}, files=files)


def code(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.text.partition("<Code>")[2].partition("</Code>")[0]


def test_a_form_uploads_what_its_policy_allows(place: Place) -> None:
    reply = post(place, fields={"x-amz-meta-who": "Zoë"})
    head = place.head("up/a.txt")
    assert (reply.status_code, reply.content) == (204, b"")
    assert (reply.headers["etag"], reply.headers["x-amz-version-id"]) == (head["ETag"], head["VersionId"])
    assert (head["ContentType"], head["ContentLength"], head["Metadata"]) == (
        "text/plain",
        10,
        {"who": "=?UTF-8?B?Wm/Dqw==?="},
    )
    assert place.happened() == [("ObjectCreated:Post", "up/a.txt", head["VersionId"])]


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ({"body": b"x" * 101}, (400, "EntityTooLarge")),
        ({"body": b""}, (400, "EntityTooSmall")),
        ({"sent": {"key": "up/b.txt"}}, (403, "AccessDenied")),
        ({"sent": {"x-amz-meta-extra": "1"}}, (403, "AccessDenied")),
        ({"sent": {"Content-Type": "text/html"}}, (403, "AccessDenied")),
        ({"sent": {"x-amz-signature": "0" * 64}}, (403, "SignatureDoesNotMatch")),
        ({"files": {"other": ("a", b"1")}}, (400, "InvalidArgument")),
    ],
)
def test_a_form_that_s3_would_refuse_is_refused_in_its_words(
    place: Place, change: dict[str, Any], answer: tuple[int, str]
) -> None:
    assert code(post(place, **change)) == answer
    assert place.records() == []


def test_a_large_file_is_read_no_further_than_its_policy_allows(place: Place) -> None:
    assert code(post(place, body=b"x" * 20 * MEGABYTE)) == (400, "EntityTooLarge")


def test_fields_after_the_file_do_not_count(place: Place) -> None:
    signed = place.s3.generate_presigned_post(place.bucket, "k")
    parts: list[tuple[str, Any]] = [("file", ("a", b"1")), *((n, (None, v)) for n, v in signed["fields"].items())]
    assert code(httpx.post(signed["url"], files=parts)) == (400, "InvalidArgument")


def test_a_form_without_end_is_malformed(place: Place) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="key"\r\n\r\nk'
    reply = httpx.post(
        f"{place.server.url}/{place.bucket}", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert code(reply) == (400, "MalformedPOSTRequest")


def test_a_form_says_how_it_wants_to_be_answered(place: Place) -> None:
    created = post(place, key="a&b", fields={"success_action_status": "201"})
    assert created.status_code == 201
    assert f"<Key>a&amp;b</Key><ETag>{created.headers['etag']}</ETag>" in created.text.replace("&quot;", '"')
    assert post(place, fields={"success_action_status": "200"}).status_code == 200
    assert post(place, fields={"success_action_status": "418"}).status_code == 204
    moved = post(place, fields={"success_action_redirect": "http://app.example/done?x=1"})
    assert moved.status_code == 303
    assert moved.headers["location"].startswith(
        f"http://app.example/done?x=1&bucket={place.bucket}&key=up%2Fa.txt&etag="
    )


def test_the_key_may_name_the_file(place: Place) -> None:
    post(place, key="in/${filename}")
    assert place.head("in/own name.txt")["ContentLength"] == 10


def test_presigned_urls_put_and_get(place: Place) -> None:
    put = place.s3.generate_presigned_url(
        "put_object", {"Bucket": place.bucket, "Key": "a b/é", "Metadata": {"n": "1"}}
    )
    assert httpx.put(put, content=b"text", headers={"x-amz-meta-n": "1"}).status_code == 200
    get = place.s3.generate_presigned_url("get_object", {"Bucket": place.bucket, "Key": "a b/é"})
    reply = httpx.get(get)
    assert (reply.content, reply.headers["x-amz-meta-n"]) == (b"text", "1")
    assert [(event, key) for event, key, _ in place.happened()] == [("ObjectCreated:Put", "a b/é")]


def test_a_url_that_expired_or_was_changed_opens_nothing(place: Place) -> None:
    place.put("secret")
    url = place.s3.generate_presigned_url("get_object", {"Bucket": place.bucket, "Key": "secret"}, ExpiresIn=60)
    assert code(httpx.get(url.replace("X-Amz-Expires=60", "X-Amz-Expires=61"))) == (403, "SignatureDoesNotMatch")
    old = url.replace(url.partition("X-Amz-Date=")[2][:16], "20200101T000000Z").replace(
        url.partition(f"Credential={place.server.credentials.access_key_id}%2F")[2][:8], "20200101"
    )
    assert code(httpx.get(old)) == (403, "AccessDenied")
    assert "Request has expired" in httpx.get(old).text


def test_nobody_in_particular_may_do_nothing(place: Place) -> None:
    place.put("secret")
    url = f"{place.server.url}/{place.bucket}/secret"
    assert code(httpx.get(url)) == (403, "AccessDenied")
    assert code(httpx.put(url, content=b"x")) == (403, "AccessDenied")
    assert code(httpx.delete(url)) == (403, "AccessDenied")
    assert code(httpx.post(f"{place.server.url}/moto-api/reset")) == (403, "AccessDenied")
    assert code(httpx.get(f"{url}?AWSAccessKeyId=LOCALRAG&Expires=99999999999&Signature=x")) == (400, "InvalidRequest")
    assert place.head("secret")["ContentLength"] == 4


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ContentType": "text/markdown; charset=utf-8", "Metadata": {"rag_note": "a", "other-note": "b c"}},
        {"ServerSideEncryption": "AES256", "Tagging": "a=1&b=2"},
        {"StorageClass": "STANDARD_IA", "WebsiteRedirectLocation": "/elsewhere", "CacheControl": "no-store"},
        {"ContentEncoding": "aws-other", "ContentDisposition": "attachment"},
    ],
    ids=str,
)
@pytest.mark.parametrize("versioned", [True, False])
def test_who_asks_for_no_more_is_answered_as_by_moto(server: Aws, *, versioned: bool, options: dict[str, Any]) -> None:
    """A condition that holds anyway has moto answer; without one the same comes from here."""
    place = make_place(server, versioned=versioned)
    place.put("key", **options)
    headers = {"Authorization": authorization("s3")}
    named = f"?versionId={place.head('key')['VersionId']}" if versioned else ""
    for method, query in itertools.product(["GET", "HEAD"], {"", named}):
        ours, motos = (
            httpx.request(method, f"{server.url}/{place.bucket}/key{query}", headers=headers | condition)
            for condition in ({}, {"If-None-Match": '"another"'})
        )
        changing = {"date", "x-amz-request-id", "x-amz-id-2"}
        assert (ours.status_code, ours.content) == (motos.status_code, motos.content)
        assert {n: v for n, v in ours.headers.items() if n not in changing} == {
            n: v for n, v in motos.headers.items() if n not in changing
        }


def test_what_is_not_there_is_not_found(place: Place) -> None:
    place.put("gone")
    place.s3.delete_object(Bucket=place.bucket, Key="gone")
    for key in ("gone", "never"):
        with pytest.raises(place.s3.exceptions.NoSuchKey):
            place.s3.get_object(Bucket=place.bucket, Key=key)
        with pytest.raises(ClientError, match=r"\(404\)"):
            place.head(key)
    with pytest.raises(ClientError, match="NoSuchVersion"):
        place.s3.get_object(Bucket=place.bucket, Key="never", VersionId="other")


def test_a_connection_is_kept_whatever_was_answered(place: Place) -> None:
    """Refused before its body is read, to HEAD, with no body, by a form: what comes next is read as what it is."""
    place.put("key", b"text")
    address = urlsplit(place.server.url)
    with closing(http.client.HTTPConnection(f"{address.hostname}:{address.port}")) as connection:
        connection.connect()
        kept = connection.sock
        for method, path, body, signed, status in [
            ("PUT", "key", b"x" * 3 * MEGABYTE, False, 403),
            ("GET", "key", None, True, 200),
            ("HEAD", "key", None, True, 200),
            ("HEAD", "none", None, True, 404),
            ("PUT", "other", b"text", True, 200),
            ("DELETE", "other", None, True, 204),
            ("GET", "none", None, True, 404),
        ]:
            headers = {"Authorization": authorization("s3")} if signed else {}
            connection.request(method, f"/{place.bucket}/{path}", body, headers)
            reply = connection.getresponse()
            assert (reply.status, reply.read() == b"text") == (status, (method, path) == ("GET", "key"))
            assert connection.sock is kept


def test_any_key_in_a_header_opens_the_bucket(place: Place) -> None:
    strange = {"aws_access_key_id": "AKIAIOSFODNN7EXAMPLE", "aws_secret_access_key": "x", "aws_session_token": "y"}
    s3 = boto3.client("s3", endpoint_url=place.server.url, region_name="us-east-1", **strange)  # type: ignore[call-overload]
    s3.put_object(Bucket=place.bucket, Key="k", Body=b"text")
    assert place.head("k")["ContentLength"] == 4


def test_browsers_are_answered_by_the_rules_of_the_bucket(place: Place) -> None:
    rule = {
        "AllowedOrigins": ["http://localhost:*"],
        "AllowedMethods": ["PUT", "POST"],
        "AllowedHeaders": ["content-*"],
        "ExposeHeaders": ["ETag"],
        "MaxAgeSeconds": 60,
    }
    place.s3.put_bucket_cors(Bucket=place.bucket, CORSConfiguration={"CORSRules": [rule]})
    url = place.s3.generate_presigned_url("put_object", {"Bucket": place.bucket, "Key": "k"})
    ask = {"Origin": "http://localhost:5173", "Access-Control-Request-Method": "PUT"}
    asked = httpx.options(url, headers={**ask, "Access-Control-Request-Headers": "content-type"})
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, "http://localhost:5173")
    assert httpx.options(url, headers={**ask, "Access-Control-Request-Method": "DELETE"}).status_code == 403
    assert httpx.options(url, headers={**ask, "Origin": "http://evil.example"}).status_code == 403
    reply = httpx.put(url, content=b"x", headers={"Origin": "http://localhost:5173"})
    assert (reply.headers["access-control-allow-origin"], reply.headers["access-control-expose-headers"]) == (
        "http://localhost:5173",
        "ETag",
    )
    assert (
        "access-control-allow-origin"
        not in httpx.put(url, content=b"x", headers={"Origin": "http://evil.example"}).headers
    )


# Restarts


def test_a_killed_server_comes_back_with_the_same_versions(own_server: Aws) -> None:
    place = make_place(own_server)
    body = b"%PDF" * (13 * MEGABYTE)
    place.put("big", body, ContentType="application/pdf", CacheControl="no-cache")
    place.s3.upload_fileobj(io.BytesIO(body[: 9 * MEGABYTE]), place.bucket, "parts")
    place.put("a b/é+%.txt", b"1", Metadata={"under_score": "1", "dash-ed": "2"}, Tagging="team=search&x=1")
    place.put("a b/é+%.txt", b"2")
    place.s3.delete_object(Bucket=place.bucket, Key="a b/é+%.txt")
    place.s3.delete_object(Bucket=place.bucket, Key="never")
    place.s3.put_object_tagging(Bucket=place.bucket, Key="big", Tagging={"TagSet": [{"Key": "t", "Value": "2"}]})
    before = inventory(place)
    restart(own_server)
    assert inventory(place) == before
    assert place.s3.get_object(Bucket=place.bucket, Key="big")["Body"].read() == body
    restart(own_server)
    assert inventory(place) == before


def inventory(place: Place) -> list[Any]:
    """All that S3 tells of a bucket's versions."""
    listed = place.s3.list_object_versions(Bucket=place.bucket)
    versions = [{"Key": found["Key"], "VersionId": found["VersionId"]} for found in listed["Versions"]]
    heads = [place.head(ChecksumMode="ENABLED", key=v["Key"], VersionId=v["VersionId"]) for v in versions]
    tags = [place.s3.get_object_tagging(Bucket=place.bucket, **version)["TagSet"] for version in versions]
    return [listed["Versions"], listed["DeleteMarkers"], heads, tags]


def test_a_killed_server_comes_back_with_the_settings_of_its_buckets(own_server: Aws) -> None:
    place = make_place(own_server)
    s3, bucket = place.s3, place.bucket
    s3.put_bucket_cors(
        Bucket=bucket, CORSConfiguration={"CORSRules": [{"AllowedOrigins": ["*"], "AllowedMethods": ["GET"]}]}
    )
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "a", "Value": "1"}]})
    s3.delete_bucket_tagging(Bucket=bucket)
    s3.create_bucket(Bucket="short-lived")
    s3.delete_bucket(Bucket="short-lived")
    created = [found["Name"] for found in s3.list_buckets()["Buckets"]]
    restart(own_server)
    assert [found["Name"] for found in s3.list_buckets()["Buckets"]] == created
    assert {bucket, "short-lived"}.intersection(created) == {bucket}
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    assert s3.get_bucket_cors(Bucket=bucket)["CORSRules"][0]["AllowedMethods"] == ["GET"]
    with pytest.raises(ClientError) as error:
        s3.get_bucket_tagging(Bucket=bucket)
    assert refused(error) == "NoSuchTagSet"
    assert place.messages() == []
    version = place.put("k")["VersionId"]
    assert place.happened() == [("ObjectCreated:Put", "k", version)]


def test_objects_put_before_versions_were_kept_stay_null_versions(own_server: Aws) -> None:
    place = make_place(own_server, versioned=False)
    place.put("k", b"old")
    place.put("gone")
    place.s3.delete_object(Bucket=place.bucket, Key="gone")
    place.s3.put_bucket_versioning(Bucket=place.bucket, VersioningConfiguration={"Status": "Enabled"})
    place.put("k", b"new")
    before = place.s3.list_object_versions(Bucket=place.bucket)["Versions"]
    restart(own_server)
    assert place.s3.list_object_versions(Bucket=place.bucket)["Versions"] == before
    assert sorted(found["VersionId"] == "null" for found in before) == [False, True]
    assert place.s3.get_object(Bucket=place.bucket, Key="k", VersionId="null")["Body"].read() == b"old"


def test_sequencers_grow_over_restarts(own_server: Aws) -> None:
    place = make_place(own_server)
    place.put("k")
    restart(own_server)
    place.put("k")
    before, after = [record["s3"]["object"]["sequencer"] for record in place.records()]
    assert before < after


def test_sequencers_grow_over_a_deleted_journal_and_a_clock_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Journal(tmp_path / "one")) as first, closing(Journal(tmp_path / "two")) as second:
        with first.commit():
            before = first.next_sequencer()
        with second.commit():
            assert second.next_sequencer() > before
        monkeypatch.setattr("local.aws.journal.time.time_ns", lambda: 1)
        with first.commit():
            assert first.next_sequencer() > before


def test_a_server_killed_between_uploads_keeps_every_acknowledged_one_and_its_event(own_server: Aws) -> None:
    place = make_place(own_server)
    acknowledged: dict[str, str] = {}
    killed = threading.Event()

    def upload(worker: int) -> None:
        for number in itertools.count():
            key = f"{worker}/{number}"
            try:
                acknowledged[key] = place.put(key, key.encode() * 500)["VersionId"]
            except BotoCoreError:
                if killed.is_set():
                    return
            if len(acknowledged) > 60 and not killed.is_set():
                killed.set()
                assert own_server.process is not None
                own_server.process.kill()

    workers = [threading.Thread(target=upload, args=[worker]) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    restart(own_server)
    versions = place.s3.list_object_versions(Bucket=place.bucket)["Versions"]
    stored = {found["Key"]: found["VersionId"] for found in versions}
    events = {key: version for _, key, version in place.happened()}
    assert acknowledged.items() <= stored.items()
    assert events == stored
    for key in acknowledged:
        assert place.s3.get_object(Bucket=place.bucket, Key=key)["Body"].read() == key.encode() * 500


def test_everything_on_disk_is_the_owners_only(server: Aws) -> None:
    make_place(server).put("k")
    modes = {path.name: path.stat().st_mode & 0o777 for path in server.directory.iterdir()}
    assert {"aws.sqlite3", "aws.sqlite3-wal"} <= modes.keys()
    assert set(modes.values()) == {0o600}
    assert server.directory.stat().st_mode & 0o777 == 0o700


def test_a_second_server_on_the_same_directory_is_refused(server: Aws) -> None:
    from local.service import ServiceError

    with pytest.raises(ServiceError, match="in use by another process"):
        Aws(server.directory, log=server.log).start(timeout_seconds=0.2)
