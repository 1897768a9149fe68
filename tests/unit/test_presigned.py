"""Presigned URLs as boto3 makes them, held against the request that uses them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore.config import Config

from local import aws
from local.aws import presigned
from local.aws.errors import S3Error

KEY = aws.Credentials("LOCALRAG", "the secret")
HOST = "127.0.0.1:9999"


def url(operation: str = "get_object", key: str = "a/b c+é.txt", **params: Any) -> str:
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{HOST}",
        region_name=aws.REGION,
        aws_access_key_id=KEY.access_key_id,
        aws_secret_access_key=params.pop("secret", KEY.secret_access_key),
        config=Config(signature_version="s3v4"),
    )
    return str(client.generate_presigned_url(operation, Params={"Bucket": "b", "Key": key, **params}, ExpiresIn=60))


def check(address: str, method: str = "GET", *, now: datetime | None = None, **headers: str) -> None:
    parts = urlsplit(address)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    headers = {"host": HOST, **named}
    presigned.check(method, parts.path, parts.query, headers, now=now or datetime.now(UTC), credentials=KEY)


def refusal(address: str, method: str = "GET", *, now: datetime | None = None, **headers: str) -> S3Error:
    with pytest.raises(S3Error) as error:
        check(address, method, now=now, **headers)
    return error.value


@pytest.mark.parametrize("key", ["a", "a/b c+é.txt", "100%.txt", "a//b", "~tilde'(1)*!", "日本/語"])
def test_a_url_opens_what_it_was_made_for(key: str) -> None:
    check(url(key=key))
    check(url("put_object", key=key), "PUT")


def test_parameters_of_the_operation_are_signed_too() -> None:
    address = url(VersionId="1", ResponseContentType="text/plain; charset=utf-8")
    check(address)
    assert refusal(address.replace("versionId=1", "versionId=2")).code == "SignatureDoesNotMatch"


def test_another_key_method_host_or_secret_does_not_match() -> None:
    assert refusal(url().replace("/b/a/", "/b/x/")).code == "SignatureDoesNotMatch"
    assert refusal(url(), "DELETE").code == "SignatureDoesNotMatch"
    assert refusal(url(), host="evil.example").code == "SignatureDoesNotMatch"
    assert refusal(url(secret="guessed")).code == "SignatureDoesNotMatch"


def test_a_url_expires_and_its_lifetime_cannot_be_stretched() -> None:
    address = url()
    [date] = parse_qs(urlsplit(address).query)["X-Amz-Date"]
    made = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    check(address, now=made + timedelta(seconds=59))
    error = refusal(address, now=made + timedelta(seconds=61))
    assert (error.status, error.code, str(error)) == (403, "AccessDenied", "Request has expired")
    stretched = address.replace("X-Amz-Expires=60", "X-Amz-Expires=6000")
    assert refusal(stretched, now=made + timedelta(seconds=61)).code == "SignatureDoesNotMatch"


def test_a_url_from_the_future_is_not_yet_valid() -> None:
    assert "not yet valid" in str(refusal(url(), now=datetime.now(UTC) - timedelta(hours=1)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("X-Amz-Expires=60", "X-Amz-Expires=604801"),
        ("X-Amz-Expires=60", "X-Amz-Expires=soon"),
        ("X-Amz-Expires=60", "X-Amz-Other=60"),
        ("X-Amz-Algorithm=AWS4-HMAC-SHA256", "X-Amz-Algorithm=AWS4-HMAC-SHA1"),
        ("%2Faws4_request", ""),
        ("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders=date"),
    ],
)
def test_parameters_that_make_no_sense_are_named(old: str, new: str) -> None:
    assert old in url()
    assert refusal(url().replace(old, new)).code == "AuthorizationQueryParametersError"


def test_an_unknown_access_key_is_not_in_the_records() -> None:
    assert refusal(url().replace(KEY.access_key_id, "NOBODY")).code == "InvalidAccessKeyId"


def test_metadata_that_was_not_signed_cannot_be_added() -> None:
    error = refusal(url("put_object"), "PUT", x_amz_meta_owner="me")
    assert (error.code, error.details["HeadersNotSigned"]) == ("AccessDenied", "x-amz-meta-owner")
    check(url("put_object", Metadata={"owner": "me"}), "PUT", x_amz_meta_owner="me")
