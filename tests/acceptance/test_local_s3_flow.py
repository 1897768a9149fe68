"""Objects that come and go by the plain S3 API, and what else may lie in the queue."""

from __future__ import annotations

import io
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig

from tests.acceptance.platform_process import Api, PlatformProcess, wait_for

pytestmark = pytest.mark.slow

POISON = ["this is no JSON", "[]", '{"Records": [{"s3": {}}]}']
MULTIPART_BYTES = 5 * 1024 * 1024


class Bucket:
    """A collection of the first tenant, written past the API."""

    def __init__(self, platform: PlatformProcess, collection: str) -> None:
        self._s3 = platform.client("s3")
        self._prefix = f"{platform.ready['tenant_id']}/{collection}/"
        self._bucket = platform.ready["bucket"]

    def put(self, key: str, text: str) -> str:
        """Return the version."""
        return str(self._s3.put_object(**self._named(key), Body=text.encode())["VersionId"])

    def put_in_parts(self, key: str, body: bytes) -> None:
        config = TransferConfig(multipart_threshold=MULTIPART_BYTES, multipart_chunksize=MULTIPART_BYTES)
        self._s3.upload_fileobj(io.BytesIO(body), self._bucket, self._prefix + key, Config=config)

    def delete(self, key: str, version: str | None = None) -> str:
        """Return the version that was deleted, or of the marker that was set."""
        named = self._named(key) | ({"VersionId": version} if version else {})
        return str(self._s3.delete_object(**named)["VersionId"])

    def etag(self, key: str) -> str:
        return str(self._s3.head_object(**self._named(key))["ETag"])

    def _named(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}


def _found(api: Api, collection: str, query: str) -> list[str]:
    reply = api.post("/v1/search", {"query": query, "collection": collection, "mode": "lexical"})
    return [hit["content"] for hit in reply.json()["hits"]]


def test_an_object_put_comes_into_the_index_and_leaves_it_with_a_delete(running_platform: PlatformProcess) -> None:
    bucket = Bucket(running_platform, "plain")
    with running_platform.api() as api:
        bucket.put("boats/red boat+größe.txt", "The red boat is called Petrel.")
        bucket.put("boats/blue.txt", "The blue boat is called Fulmar.")
        api.wait_until_ready("plain", {"boats/red boat+größe.txt", "boats/blue.txt"})
        assert _found(api, "plain", "Petrel") == ["The red boat is called Petrel."]
        bucket.delete("boats/red boat+größe.txt")
        api.wait_until_ready("plain", {"boats/blue.txt"})
        assert _found(api, "plain", "Petrel") == []


def test_an_object_in_parts_comes_into_the_index_whole(running_platform: PlatformProcess) -> None:
    bucket = Bucket(running_platform, "parts")
    # The filler is markup, so that two parts are sent and only the two sentences are embedded.
    filler = b"<!-- " + b"x" * MULTIPART_BYTES + b" -->"
    body = b"<html><body><p>The log begins at dawn.</p>" + filler + b"<p>The log ends at dusk.</p></body></html>"
    with running_platform.api() as api:
        bucket.put_in_parts("log.html", body)
        assert bucket.etag("log.html").strip('"').endswith("-2")
        api.wait_until_ready("parts", {"log.html"})
        assert api.documents("parts")["log.html"]["size"] == len(body)
        found = "\n".join(_found(api, "parts", "log"))
        assert "begins at dawn" in found
        assert "ends at dusk" in found


def test_the_index_follows_the_current_version(running_platform: PlatformProcess) -> None:
    bucket = Bucket(running_platform, "versions")
    with running_platform.api() as api:

        def indexed(version: str) -> bool:
            document = api.documents("versions").get("price.txt", {})
            return (document.get("version_id"), document.get("status")) == (version, "ready")

        old = bucket.put("price.txt", "The sextant costs four hundred.")
        wait_for(lambda: indexed(old))
        new = bucket.put("price.txt", "The sextant costs five hundred.")
        wait_for(lambda: indexed(new))
        assert _found(api, "versions", "sextant") == ["The sextant costs five hundred."]
        bucket.delete("price.txt", new)
        wait_for(lambda: indexed(old), lambda: api.documents("versions"))
        assert _found(api, "versions", "sextant") == ["The sextant costs four hundred."]
        marker = bucket.delete("price.txt")
        wait_for(lambda: api.documents("versions") == {})
        assert _found(api, "versions", "sextant") == []
        bucket.delete("price.txt", marker)
        wait_for(lambda: indexed(old), lambda: api.documents("versions"))
        assert _found(api, "versions", "sextant") == ["The sextant costs four hundred."]
        bucket.delete("price.txt", old)
        wait_for(lambda: api.documents("versions") == {})


def test_poison_messages_end_among_the_dead_letters_and_harm_no_document(running_platform: PlatformProcess) -> None:
    ready, sqs = running_platform.ready, running_platform.client("sqs")
    bucket = Bucket(running_platform, "poisoned")
    for number, poison in enumerate(POISON):
        bucket.put(f"{number}.txt", f"This is note number {number}.")
        sqs.send_message(QueueUrl=ready["queue_url"], MessageBody=poison)
    bucket.put("last.txt", "This is the last note.")
    with running_platform.api() as api:
        api.wait_until_ready("poisoned", {"last.txt", *(f"{number}.txt" for number in range(len(POISON)))})
    dead: set[str] = set()

    def dead_letters() -> set[str]:
        got = sqs.receive_message(QueueUrl=ready["dead_letter_queue_url"], MaxNumberOfMessages=10, VisibilityTimeout=1)
        dead.update(message["Body"] for message in got.get("Messages", []))
        return dead

    seconds = wait_for(lambda: len(dead_letters()) >= len(POISON), lambda: dead)
    print(f"dead {seconds:.1f} s after the documents were ready")
    assert dead == set(POISON)
