"""A form for one upload writes that key, that large at most, until it expires, and nothing else."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from rag import wiring
from tests.integration.deployment import BUCKET, Deployment

pytestmark = pytest.mark.slow

LIMIT = 64
OTHER = "rag-other-documents"
KEY = "mine.txt"


def _form(deployment: Deployment, *, valid_seconds: int = 900) -> tuple[str, dict[str, str]]:
    with deployment.function("rag_query"):
        made = wiring.bucket().presign_upload(
            f"{deployment.tenant}/default/{KEY}", limit_bytes=LIMIT, valid_seconds=valid_seconds
        )
    return made["url"], made["fields"]


def _looser(policy: str, **changed: Any) -> str:
    """The policy with other conditions, as it would be signed."""
    read = json.loads(base64.b64decode(policy))
    read["conditions"] = [
        ["content-length-range", 0, 10**9] if isinstance(each, list) and each[0] == "content-length-range" else each
        for each in read["conditions"]
    ]
    return base64.b64encode(json.dumps({**read, **changed}).encode()).decode()


def _attacks(tenant: Any, stranger: Any, fields: dict[str, str]) -> dict[str, tuple[dict[str, str], bytes]]:
    """By what is wrong: the form's fields, and the file."""
    foreign = f"{stranger}/default/{KEY}"
    changed: dict[str, dict[str, str]] = {
        "another tenant's key": {"key": foreign},
        "another key of the own": {"key": f"{tenant}/default/other.txt"},
        "a key that begins alike": {"key": f"{fields['key']}.exe"},
        "a way up": {"key": f"{tenant}/default/../../{foreign}"},
        "the file's name as key": {"key": f"{stranger}/default/${{filename}}"},
        "the product's own folder": {"key": f"{tenant}/.rag/canary.txt"},
        "readable by all": {"acl": "public-read"},
        "a page to go to": {"success_action_redirect": "https://evil.example/"},
        "another class of storage": {"x-amz-storage-class": "GLACIER"},
        "tags": {"tagging": "<Tagging/>"},
        "metadata that was not signed": {"x-amz-meta-rag-metadata": '{"year": 1}'},
        "permissions that were not signed": {"x-amz-meta-rag-allowed-principals": '["user:me"]'},
        "a website redirect": {"x-amz-website-redirect-location": "https://evil.example/"},
        "a policy that allows more": {"policy": _looser(fields["policy"])},
        "a policy that never ends": {"policy": _looser(fields["policy"], expiration="2999-01-01T00:00:00Z")},
        "no policy": {"policy": ""},
        "no signature": {"x-amz-signature": ""},
        "another signature": {"x-amz-signature": "0" * 64},
        "another date": {"x-amz-date": "20200101T000000Z"},
        "another credential": {"x-amz-credential": "AKIAEVIL/20261120/us-east-1/s3/aws4_request"},
        "another algorithm": {"x-amz-algorithm": "none"},
    }
    small = b"x" * 10
    attacks = {what: ({**fields, **change}, small) for what, change in changed.items()}
    attacks["a larger file"] = (fields, b"x" * (LIMIT + 1))
    attacks["a much larger file"] = (fields, b"x" * 5_000_000)
    attacks["only a key"] = ({"key": foreign}, small)
    return attacks


def test_a_form_writes_its_own_key_and_no_more_than_it_may(
    deployment: Deployment, record_attack: Callable[..., None]
) -> None:
    stranger, _ = deployment.tenants.create("second")
    url, fields = _form(deployment)
    _, expired = _form(deployment, valid_seconds=-1)
    attacks = _attacks(deployment.tenant, stranger, fields)
    attacks["a form that is over"] = (expired, b"x")
    with httpx.Client(trust_env=False, timeout=60) as client:
        answers = {
            what: client.post(url, data=given, files={"file": ("evil.txt", content)}).status_code
            for what, (given, content) in attacks.items()
        }
        deployment.s3.create_bucket(Bucket=OTHER)
        answers["another bucket"] = client.post(
            url.replace(BUCKET, OTHER), data=fields, files={"file": b"x"}
        ).status_code
        written = deployment.s3.list_object_versions(Bucket=BUCKET)
        there = [one["Key"] for one in written.get("Versions", []) if one["Key"].startswith(str(deployment.tenant))]
        foreign = [one["Key"] for one in written.get("Versions", []) if one["Key"].startswith(str(stranger))]
        # Used again while it is valid, it writes a version of the one key that it is for.
        again = [client.post(url, data=fields, files={"file": b"x" * LIMIT}).status_code for _ in range(2)]
    through = [what for what, status in answers.items() if status < 400]
    record_attack(
        "J9",
        tried=len(answers),
        succeeded=max(len(through), len(there) + len(foreign)),
        figure="forms changed in each field, too large, expired; nothing written",
    )
    assert through == []
    assert (there, foreign) == ([], [])
    assert deployment.s3.list_objects_v2(Bucket=OTHER)["KeyCount"] == 0
    assert again == [204, 204]
    versions = deployment.s3.list_object_versions(Bucket=BUCKET, Prefix=f"{deployment.tenant}/")["Versions"]
    assert {one["Key"] for one in versions} == {fields["key"]}


def test_what_came_by_another_way_and_is_too_large_is_not_read(
    deployment: Deployment, record_attack: Callable[..., None]
) -> None:
    from tests.integration.deployment import notification

    object_key = f"{deployment.tenant}/default/{KEY}"
    deployment.s3.put_object(Bucket=BUCKET, Key=object_key, Body=b"persimmon " * 100, ContentType="text/html")
    deployment.ingest(notification(object_key), max_document_bytes=str(LIMIT))
    document = deployment.documents()[KEY]
    found = deployment.ask("POST", "/v1/search", {"query": "persimmon"}).json["hits"]
    record_attack("J9", tried=1, succeeded=len(found), figure=f"failed as {document['error']['code']}, 0 passages")
    assert (document["status"], document["error"]["code"]) == ("failed", "TOO_LARGE")
    assert found == []
